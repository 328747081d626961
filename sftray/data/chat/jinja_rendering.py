"""Chat templates, rendered as transformers renders them, without importing it.

Promise: the same text and the same marked characters as `render_jinja_template` of transformers,
dates frozen; whoever chooses a template compares the two on its own conversations first
(`renders_alike`), and falls back to transformers' function where they differ. Price: 15 µs a
conversation, half of transformers'; importing transformers would cost every process 0.7 s.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Span = tuple[int, int]
Turns = Sequence[Mapping[str, Any]]
Rendered = tuple[list[str], list[list[Span]]]
"""Each conversation as text, and the characters in its {% generation %} blocks."""


def render(
    template: str,
    conversations: Sequence[Turns],
    *,
    variables: Mapping[str, str],
    date: str,
    prompt: bool = False,
    spans: bool = False,
) -> Rendered:
    """Each conversation as text, and the (start, stop) characters of {% generation %} if `spans`.

    `prompt` adds the generation prompt. Raises jinja2's TemplateError.
    """
    compiled, marks = _compiled(template, date)
    texts: list[str] = []
    found: list[list[Span]] = []
    # What `compiled.generate` would look up anew for every conversation, at half of the price.
    given = {**compiled.globals, **_given(date, variables), "tools": None, "documents": None}
    given["add_generation_prompt"] = prompt
    for turns in conversations:
        blocks: list[str] = []
        marked: list[Span] = []
        marks.follow(blocks, marked) if spans else marks.rest()
        try:
            context = compiled.new_context({**given, "messages": turns}, shared=True)
            for block in compiled.root_render_func(context):
                blocks.append(block)
        finally:
            marks.rest()
        texts.append("".join(blocks))
        if spans:
            found.append(marked)
    return texts, found


def render_by_transformers(
    template: str,
    conversations: Sequence[Turns],
    *,
    variables: Mapping[str, str],
    date: str,
    prompt: bool = False,
    spans: bool = False,
) -> Rendered:
    """`render` by transformers' own function."""
    from transformers.utils import chat_template_utils

    # The template's own strftime_now reads the clock, and callables cannot be passed as variables.
    environment = chat_template_utils._compile_jinja_template(template).environment
    environment.globals["strftime_now"] = _day(date).strftime
    texts, found = chat_template_utils.render_jinja_template(
        conversations,
        chat_template=template,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=spans,
        **_given(date, variables),
    )
    return texts, found


def renders_alike(
    template: str,
    conversations: Sequence[Turns],
    *,
    variables: Mapping[str, str],
    date: str,
    spans: bool,
) -> bool:
    """Whether both ways write the conversations, and the prompts before their last turns, alike."""

    def attempt(write: Callable[..., Rendered], turns: Turns, prompt: bool) -> object:
        try:
            return write(
                template, [turns], variables=variables, date=date, prompt=prompt, spans=spans
            )
        except (jinja2.TemplateError, TypeError) as error:
            return type(error), str(error)

    asked = [(turns, False) for turns in conversations]
    asked += [(turns[:-1], True) for turns in conversations]
    return all(
        attempt(render, turns, prompt) == attempt(render_by_transformers, turns, prompt)
        for turns, prompt in asked
    )


def _given(date: str, variables: Mapping[str, str]) -> dict[str, Any]:
    return {"date_string": _day(date).strftime("%d %b %Y"), **variables}


def _day(date: str) -> datetime.datetime:
    return datetime.datetime.strptime(date, "%Y-%m-%d")


@functools.lru_cache(maxsize=8)
def _compiled(template: str, date: str) -> tuple[jinja2.Template, _Marks]:
    """The template in the environment that transformers gives it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Marks, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _day(date).strftime
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    marks = environment.extensions[_Marks.identifier]
    assert isinstance(marks, _Marks)
    return environment.from_string(template), marks


class _Marks(Extension):
    """{% generation %}: notes which characters of the text it encloses."""

    tags = {"generation"}  # noqa: RUF012 — jinja2 reads the class attribute

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.rest()

    def follow(self, blocks: list[str], marked: list[Span]) -> None:
        """Note what is marked in the text whose blocks are written from now on."""
        self._blocks, self._marked = blocks, marked

    def rest(self) -> None:
        """Note nothing."""
        self._blocks, self._marked = None, None

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Callable[[], str]) -> str:
        text = caller()
        if self._blocks is not None and self._marked is not None:
            start = sum(map(len, self._blocks))
            self._marked.append((start, start + len(text)))
        return text

    _blocks: list[str] | None
    _marked: list[Span] | None


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without the escapes for HTML of jinja2's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


class _Dict:
    """What templates know as `dict`: no way to the class, for they are untrusted code."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """jinja2's, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            "Chat templates cannot store underscore-prefixed attributes on a namespace, but got "
            f"{name!r}. Please rename the attribute."
        )
