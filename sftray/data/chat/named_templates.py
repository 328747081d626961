"""Chat templates by name, for bases without one of their own: ours, and those that TRL brings.

Promise: TRL's are read from the installed package, never copied.
"""

from __future__ import annotations

import re

from sftray.data.chat.chat_format import render, trl_templates, variables_of
from sftray.data.chat.template_process import RefusedError
from sftray.data.chat.tokenizer import ModelTokenizer, backend

_TURNS = (
    "{{% for turn in messages %}}"
    "{{{{ {begin} }}}}"
    "{{% if turn['role'] == 'assistant' %}}"
    "{{% generation %}}{{{{ turn['content'] + {end} }}}}{{% endgeneration %}}{{{{ '\\n' }}}}"
    "{{% else %}}{{{{ turn['content'] + {close} + '\\n' }}}}{{% endif %}}"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ {ask} }}}}{{% endif %}}"
)
OWN = {
    "chatml": _TURNS.format(
        begin="'<|im_start|>' + turn['role'] + '\\n'",
        end="'<|im_end|>'",
        close="'<|im_end|>'",
        ask="'<|im_start|>assistant\\n'",
    ),
    "plain": _TURNS.format(
        begin="turn['role'].capitalize() + ':\\n'",
        end="eos_token",
        close="''",
        ask="'Assistant:\\n'",
    ),
}
"""`plain` needs no token but the end of text, which every base has seen."""
PROPOSED = ("chatml", "gemma", "llama3", "phi3", "plain", "qwen3")
"""Those whose costs are printed."""
_WORD = "word"
_MARKER = re.compile(r"<[^<>\s]+>")


def named_template(name: str) -> str | None:
    """The text of a named template; None where there is none of that name."""
    if name in OWN:
        return OWN[name]
    return (trl_templates() / f"{name}.jinja").read_text("utf-8") if name in _of_trl() else None


def template_names() -> list[str]:
    return [*OWN, *sorted(_of_trl())]


def costs_text(tokenizer: ModelTokenizer, date: str) -> str:
    """What the PROPOSED cost in this tokenizer, the cheapest first, as "gemma (9 tokens an
    exchange), plain (12)"; those with a marker that is no token of its own are left out, because a
    model could not end its answers with it."""
    costs = {name: _cost(tokenizer, named_template(name), date) for name in PROPOSED}
    known = sorted((cost, name) for name, cost in costs.items() if cost is not None)
    first = [f"{name} ({cost} tokens an exchange)" for cost, name in known[:1]]
    return ", ".join(first + [f"{name} ({cost})" for cost, name in known[1:]])


def _of_trl() -> set[str]:
    """By the files' names; a name stands for the training template that belongs to it, too."""
    names = {path.stem for path in trl_templates().glob("*.jinja")}
    return {name for name in names if not name.endswith("_training")}


def _cost(tokenizer: ModelTokenizer, template: str | None, date: str) -> int | None:
    """Tokens of a question and its answer besides their own; None where it cannot be written, or
    has a marker that is no token."""
    if template is None:
        return None
    turns = [{"role": "user", "content": _WORD}, {"role": "assistant", "content": _WORD}]
    variables = variables_of(tokenizer.special_tokens, None)
    try:
        written, _ = render(template, [turns, [*turns, *turns]], variables=variables, date=date)
    except RefusedError:
        return None
    vocabulary = backend(tokenizer.json)
    if any(vocabulary.token_to_id(marker) is None for marker in _MARKER.findall(written[0])):
        return None
    one, two, word = (
        len(vocabulary.encode(text, add_special_tokens=False).ids) for text in (*written, _WORD)
    )
    return two - one - 2 * word
