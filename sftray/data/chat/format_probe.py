"""Who says what is trained on: a template's markers, TRL's training template, or its prefixes.

Promise: the assistant's tokens are those from the end of the generation prompt through the
end-of-turn token; a template from which they cannot be located for certain is a TemplateError,
raised on one small conversation before any data is read, and so is one that does not
terminate. Price: a dozen renderings.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sftray.data.chat.chat_format import (
    MARKERS,
    PREFIXES,
    TRAINING_TEMPLATE,
    ChatFormat,
    has_markers,
    render,
    training_template,
    variables_of,
)
from sftray.data.chat.named_templates import costs_text
from sftray.data.chat.shape_probe import with_shape
from sftray.data.chat.template_process import (
    LIMITS,
    Limits,
    OverLimitsError,
    RefusedError,
    Rendered,
    Span,
)
from sftray.data.chat.tokenizer import ModelTokenizer, backend, special_tokens
from sftray.data.chat.turn_shape import TurnShape
from sftray.data.source.turns import Message
from sftray.errors import TemplateError

_PROBE: list[Message] = [
    {"role": "user", "content": "Name a fruit."},
    {"role": "assistant", "content": "Apple it is."},
    {"role": "user", "content": "And a tree?"},
    {"role": "assistant", "content": "Birch it is."},
]
"""Written into every template to see how it begins and ends a turn."""


COMPARED_TURNS = 40
"""So many of a sample, beside a system turn, are compared at most."""


def choose_format(
    tokenizer: ModelTokenizer,
    *,
    template: str | None,
    date: str,
    samples: Sequence[list[Message]],
    limits: Limits = LIMITS,
    thinking: str = "as_template",
    train_on: str = "assistant",
    enable_thinking: bool | None = None,
    allow_special_tokens: bool = False,
) -> ChatFormat:
    """The format of a tokenizer with its own template, or with `template` in its place, and fields
    of a DataConfig.

    `samples` are real conversations to compare TRL's training template on. Raises TemplateError.
    """
    own = template or tokenizer.chat_template
    if own is None:
        raise TemplateError(
            f"{tokenizer.name}: the tokenizer has no chat template",
            "set data.chat_template (of sftray init: --chat-template) to a named one, here "
            f"{costs_text(tokenizer, date)}, or to the path of a Jinja template; or take an "
            "instruction-tuned model",
        )
    training = None if has_markers(own) else training_template(own)
    probe = partial(_probe, tokenizer, own, date, limits, enable_thinking)
    if training is None:
        chat = probe(own, MARKERS if has_markers(own) else PREFIXES)
    else:
        chat = probe(training, TRAINING_TEMPLATE)
    chat = dataclasses.replace(
        with_shape(chat, special_tokens(tokenizer.json, tokenizer.special_tokens)),
        thinking=thinking,
        train_on=train_on,
        allow_special_tokens=allow_special_tokens,
    )
    if training is None:
        return chat
    starts = (turns[: COMPARED_TURNS + (turns[0]["role"] == "system")] for turns in samples)
    differences = _differences(chat, [_PROBE, *starts])
    return dataclasses.replace(chat, differences=(*chat.differences, *differences))


def _probe(
    tokenizer: ModelTokenizer,
    own: str,
    date: str,
    limits: Limits,
    enable_thinking: bool | None,
    template: str,
    method: str,
) -> ChatFormat:
    """Learn from one conversation how the template begins and ends what the assistant writes."""
    named = {text for _, text in tokenizer.special_tokens}
    variables = variables_of(tokenizer.special_tokens, enable_thinking)
    written = _write_probe(
        tokenizer.name, partial(render, template, variables=variables, date=date, limits=limits)
    )
    text, answers = written.text, written.answers
    starts = [shared(tokenizer.json, prompt, text) for prompt in written.prompts]
    if method == PREFIXES:
        _check_prefixes(tokenizer, written, starts)
    tokens = special_tokens(tokenizer.json, tokenizer.special_tokens)
    end = _closing(tokenizer, tokens, text, answers[1][1], len(text))
    middle = end
    if not text.startswith(end, answers[0][1]):
        marked = next((b for a, b in written.spans if a <= answers[0][0] < b), 0)
        middle = _closing(tokenizer, tokens, text, answers[0][1], marked)
    edges = {_edges(written, turn, starts[turn]) for turn in (0, 1)} - {None}
    if method != PREFIXES and not edges:
        raise TemplateError(
            f"{tokenizer.name}: the template's generation markers are around no answer's words"
        )
    if len(edges) > 1:
        raise TemplateError(
            f"{tokenizer.name}: the template's generation markers begin differently from answer "
            f"to answer ({sorted(map(repr, edges))}), must begin where the generation prompt ends"
        )
    lead, gap = next(iter(edges), None) or ("", "")
    vocabulary = backend(tokenizer.json)
    return ChatFormat(
        template=template,
        own_template=own,
        method=method,
        tokenizer=tokenizer.json,
        variables=tokenizer.special_tokens,
        date=date,
        shape=TurnShape(as_parts=written.as_parts),
        lead=lead,
        gap=gap,
        ends=(middle.strip(), end.strip()),
        header=written.prompts[0].rpartition(str(_PROBE[0]["content"]))[2],
        end_of_turn_id=vocabulary.encode(end.strip(), add_special_tokens=False).ids[-1],
        pad_token_id=_pad_token_id(tokenizer),
        limits=limits,
        differences=_prompt_differences(written, starts),
        control_tokens=tuple(t for t in tokens if t in text or t in named),
        enable_thinking=enable_thinking,
        beside_trl=_beside_trl(written, starts[0], middle),
    )


def _pad_token_id(tokenizer: ModelTokenizer) -> int:
    """What fills rows; never trained on, so any token serves where there is no pad token."""
    named = dict(tokenizer.special_tokens)
    for name in ("pad_token", "unk_token", "eos_token", "bos_token"):
        token = backend(tokenizer.json).token_to_id(named[name]) if name in named else None
        if token is not None:
            return int(token)
    raise TemplateError(f"{tokenizer.name}: the tokenizer has no pad, unknown or end token")


@dataclass(frozen=True)
class _Written:
    """The probe as a template writes it."""

    text: str
    spans: list[Span]
    answers: list[Span]
    """Characters of the two answers' own words."""
    prompts: list[str]
    """The conversation up to each answer, with the generation prompt."""
    as_parts: bool


def _write_probe(name: str, write: Callable[..., Rendered]) -> _Written:
    refusal = ""
    for parts in (False, True):
        probe = TurnShape(as_parts=parts).turns(_PROBE)
        try:
            (text,), (spans,) = write([probe])
            prompts, _ = write([probe], cuts=[[(1, True), (3, True)]])
        except OverLimitsError as error:
            raise TemplateError(
                f"{name}: the chat template does not terminate for a conversation of "
                f"{len(_PROBE)} short turns ({error})",
                "set data.chat_template to one that does",
            ) from error
        except RefusedError as error:  # perhaps because of a list where text is meant
            refusal = f" ({error})"
            continue
        words = [turn["content"] for turn in _PROBE if turn["role"] == "assistant"]
        if all(word in text for word in words):
            answers = [(text.index(word), text.index(word) + len(word)) for word in words]
            return _Written(text, merged(spans), answers, prompts, parts)
    raise TemplateError(
        f"{name}: the chat template does not write the answers of a plain conversation "
        f"of user and assistant{refusal}; set data.chat_template to one that does"
    )


def merged(spans: Sequence[Span]) -> list[Span]:
    """Spans in order, those that touch made one and empty ones left out."""
    out: list[Span] = []
    for start, stop in spans:
        if start == stop:
            continue
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], stop)
        else:
            out.append((start, stop))
    return out


def shared(tokenizer_json: str, prompt: str, text: str) -> int:
    """Characters of `text` under the leading tokens that it shares with the prompt."""
    encode = backend(tokenizer_json).encode
    ours, theirs = (encode(part, add_special_tokens=False) for part in (text, prompt))
    number = 0
    for a, b in zip(ours.ids, theirs.ids, strict=False):
        if a != b:
            break
        number += 1
    return ours.offsets[number - 1][1] if number else 0


def _check_prefixes(tokenizer: ModelTokenizer, written: _Written, starts: list[int]) -> None:
    for prompt, start in zip(written.prompts, starts, strict=True):
        if not written.text.startswith(prompt):
            raise TemplateError(
                f"{tokenizer.name}: the chat template rewrites earlier turns or its generation "
                f"prompt (it ends on {prompt[-40:]!r}, which the whole conversation does not have "
                "there), so the assistant's tokens cannot be located; give data.chat_template with "
                "{% generation %} markers"
            )
        if start != len(prompt):
            raise TemplateError(
                f"{tokenizer.name}: a token straddles the end of the generation prompt "
                f"{prompt[-40:]!r}, so the assistant's tokens cannot be located; give "
                "data.chat_template whose prompt ends on a special token or a line break"
            )


def _closing(tokenizer: ModelTokenizer, tokens: list[str], text: str, start: int, stop: int) -> str:
    """What closes an answer that ends at `start`: special tokens, perhaps after a space."""
    pattern = re.compile(r"\s*(?:" + "|".join(map(re.escape, tokens)) + ")+")
    match = pattern.match(text, start, stop)
    if match is None:
        raise TemplateError(
            f"{tokenizer.name}: the chat template ends an answer with "
            f"{text[start : start + 20]!r}, must be an end-of-turn token of the tokenizer, or a "
            "trained model would not stop"
        )
    return match.group()


def _edges(written: _Written, turn: int, start: int) -> tuple[str, str] | None:
    """(lead, gap) of the markers around one of the two answers; None where it has no markers."""
    marked = next((a for a, b in written.spans if a <= written.answers[turn][0] < b), None)
    if marked is None:
        return None
    whole = written.text.startswith(written.prompts[turn])
    gap = written.text[start:marked] if whole else ""
    return written.text[marked:start], gap


def _beside_trl(written: _Written, start: int, end: str) -> str:
    """What TRL, which trains on the markers' text, makes of the first answer: ours is from `start`
    through its `end`."""
    text, (first, last) = written.text, written.answers[0]
    marked = next(((a, b) for a, b in written.spans if a <= first < b), None)
    if marked is None:
        return ""
    stop = last + len(end)
    more = [text[marked[0] : start], text[stop : marked[1]]]
    less = [text[start : marked[0]], text[marked[1] : stop]]
    said = []
    if parts := [repr(part) for part in more if part]:
        said.append(f"trains on {' and '.join(parts)} too")
    if parts := [repr(part) for part in less if part.strip()]:
        said.append(f"does not train on {' and '.join(parts)}")
    return ", ".join(said)


def _prompt_differences(written: _Written, starts: list[int]) -> tuple[str, ...]:
    """Where training does not begin an answer as the generation prompt of inference does."""
    differences = [
        f"the generation prompt ends on {prompt[-30:]!r}, training begins the answer after "
        f"{written.text[max(0, start - 30) : start]!r}"
        for prompt, start in zip(written.prompts, starts, strict=True)
        if start != len(prompt)
    ]
    return tuple(differences[:1])


def _differences(chat: ChatFormat, samples: Sequence[list[Message]]) -> tuple[str, ...]:
    """Where TRL's training template writes the samples otherwise than the model's own template."""
    differences = []
    for sample in samples:
        try:
            (own,), _ = chat.render([sample], own=True)
            (ours,), _ = chat.render([sample])
        except RefusedError:
            continue  # a conversation that the template refuses is dropped and counted later
        if own != ours:
            pairs = enumerate(zip(own, ours, strict=False))
            at = next((k for k, (a, b) in pairs if a != b), min(len(own), len(ours)))
            around = slice(max(0, at - 30), at + 50)
            differences.append(f"own {own[around]!r}, training {ours[around]!r}")
    return tuple(dict.fromkeys(differences))[:3]
