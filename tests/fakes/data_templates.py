"""Tokenizers for the chat templates that TRL bundles, and the golden masks of tests/golden.

`python tests/fakes/data_templates.py` writes the golden file again; read its diff first.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from sftray.data.chat.chat_format import ChatFormat, trl_templates
from sftray.data.chat.documents import Document
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.loss_mask import encode
from sftray.data.chat.tokenizer import ModelTokenizer, backend, read_tokenizer
from sftray.data.source.turns import Message

DEMO = Path(__file__).parents[2] / "sftray" / "demo"
GOLDEN = Path(__file__).parents[1] / "golden" / "data_masks.json"

CONVERSATIONS: dict[str, list[Message]] = {
    "one exchange": [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "Four."},
    ],
    "two exchanges": [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "Are you sure?"},
        {"role": "assistant", "content": "Yes, quite sure: 2 + 2 = 4."},
    ],
    "system": [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "Grüße, 你好 🙂?"},
        {"role": "assistant", "content": "你好 🙂"},
    ],
}

_SPECIAL = re.compile(
    r"<\|?[A-Za-z_/][A-Za-z_0-9/]*\|?>|<｜[^｜]*｜>|\[gMASK\]|\[/?INST\]|<[a-z]+\|>|<\|[a-z]+>"
)
_NOT_SPECIAL = ("<think>", "</think>")


def bundled() -> list[str]:
    """The names of the templates that models ship with, as far as TRL bundles them."""
    names = sorted(path.stem for path in trl_templates().glob("*.jinja"))
    return [name for name in names if not name.endswith("_training")]


def template_text(name: str) -> str:
    return (trl_templates() / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer_of(template: str, *, eos: str = "</s>") -> ModelTokenizer:
    """The demo's tokenizer with the special tokens that a template writes."""
    tokenizer = Tokenizer.from_str(read_tokenizer(str(DEMO)).json)
    special = {*_SPECIAL.findall(template), "<s>", "</s>", "<pad>"} - set(_NOT_SPECIAL)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in sorted(special)])
    tokenizer.add_tokens(list(_NOT_SPECIAL))
    named = (("bos_token", "<s>"), ("eos_token", eos), ("pad_token", "<pad>"))
    return ModelTokenizer("test", tokenizer.to_str(), template, named)


def format_of(template: str, *, date: str = "2025-01-01") -> ChatFormat:
    return choose_format(tokenizer_of(template), template=None, date=date, samples=[])


def trained_text(chat: ChatFormat, document: Document) -> list[str]:
    """The runs of trained tokens, as text."""
    runs: list[list[int]] = []
    previous = False
    for token, trained in zip(document.input_ids.tolist(), document.trained, strict=True):
        if trained and not previous:
            runs.append([])
        if trained:
            runs[-1].append(token)
        previous = bool(trained)
    return [backend(chat.tokenizer).decode(run, skip_special_tokens=False) for run in runs]


def masks(name: str) -> dict[str, object]:
    """What the golden file holds of a template."""
    chat = format_of(template_text(name))
    found: dict[str, object] = {"method": chat.method}
    for label, turns in CONVERSATIONS.items():
        (document,) = encode(chat, [turns], 4096)
        is_document = isinstance(document, Document)
        found[label] = trained_text(chat, document) if is_document else document.reason
    return found


if __name__ == "__main__":
    golden = {name: masks(name) for name in bundled()}
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
