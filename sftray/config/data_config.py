"""DataConfig: which conversations, and how they are packed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sftray.config.checks import no_secrets, one_of, require, require_types, with_known_fields

COLUMN_FORMATS = ("auto", "messages", "conversations", "prompt_completion", "instruction")


@with_known_fields
@dataclass(frozen=True)
class DataConfig:
    """Which conversations to train on, and how they become packed rows."""

    source: str
    """A .jsonl or .parquet path or glob, an s3:// or gs:// URI of either, or a Hub dataset id."""
    split: str = "train"
    """The split of a Hub dataset; files have none."""
    revision: str | None = None
    """Git revision of a Hub dataset; None takes the newest and records it."""
    columns: str = "auto"
    """How conversations are spelled: auto, messages, conversations, prompt_completion,
    instruction."""
    eval_source: str | None = None
    """Evaluation conversations of their own; None holds some out of the training data."""
    eval_split: str | None = None
    """Evaluation split of the same Hub dataset."""
    eval_fraction: float = 0.02
    """Share of the conversations held out, chosen by a hash of their first user turn."""
    num_eval_conversations: int = 500
    """At most this many conversations are evaluated on."""
    max_conversations: int | None = None
    """Read only this many conversations, from the start of the source."""
    max_length: int = 2048
    """Tokens a packed row holds; longer conversations lose trailing exchanges."""
    max_bad_fraction: float = 0.05
    """Refuse to start when more than this share of the rows had to be dropped."""
    chat_template: str | None = None
    """Path of a Jinja chat template; None takes the tokenizer's own."""
    template_date: str = "2025-01-01"
    """The date that templates print, frozen so that packs and prompts repeat (YYYY-MM-DD)."""
    seed: int = 0
    """Seed of the held-out choice and of the order of packed rows."""

    def __post_init__(self) -> None:
        require_types("data.", self)
        no_secrets("data.", self)
        require(bool(self.source), "data.source", repr(self.source), "a path, a URI or a Hub id")
        one_of("data.columns", self.columns, COLUMN_FORMATS)
        require(
            8 <= self.max_length <= 1_048_576,
            "data.max_length",
            str(self.max_length),
            "8 … 1,048,576 tokens",
        )
        require(
            0 < self.eval_fraction < 1, "data.eval_fraction", str(self.eval_fraction), "0 < x < 1"
        )
        require(
            self.num_eval_conversations >= 1,
            "data.num_eval_conversations",
            str(self.num_eval_conversations),
            "at least 1",
        )
        require(
            self.max_conversations is None or self.max_conversations >= 1,
            "data.max_conversations",
            str(self.max_conversations),
            "at least 1, or None for all",
        )
        require(
            0 <= self.max_bad_fraction <= 1,
            "data.max_bad_fraction",
            str(self.max_bad_fraction),
            "0 … 1",
        )
        require(
            re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.template_date) is not None,
            "data.template_date",
            repr(self.template_date),
            "YYYY-MM-DD",
        )
        require(
            self.eval_source is None or self.eval_split is None,
            "data.eval_source and data.eval_split",
            "both",
            "one of them",
        )
