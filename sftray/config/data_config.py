"""DataConfig: which conversations, and how they are packed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

from sftray.config.bounds import (
    Above,
    AtLeast,
    Between,
    Date,
    Either,
    Filled,
    Maps,
    Matches,
    OneOf,
    Seed,
    Share,
    Weighted,
)
from sftray.config.checks import check_fields, refuse, with_known_fields
from sftray.storage.paths import with_bundled

SPELLINGS = ("auto", "messages", "conversations", "prompt_completion", "instruction")
COLUMNS = (
    *("messages", "conversations", "system", "prompt", "completion"),
    *("instruction", "input", "output", "history", "tools"),
)
"""What a column may be called."""


class WeightedSource(NamedTuple):
    """One of the sources of a sweep."""

    name: str
    """Short, and another of each."""
    path: str
    """As `DataConfig.source`."""
    weight: float
    """In the eval loss; of all sources 1."""
    share: float
    """Of the rows that are drawn; of all sources 1."""


@with_known_fields
@dataclass(frozen=True)
class DataConfig:
    """Which conversations to train on, and how they become packed rows."""

    source: Annotated[str | None, Matches("(?s).+", "a path, a URI or a Hub id")] = None
    """Path or glob of files (JSON, CSV, Parquet, Arrow, compressed or not), a folder of
    `save_to_disk`, an s3:// or gs:// URI of .jsonl or .parquet, or a Hub dataset id."""
    sources: Annotated[Sequence[tuple[str, float]], Weighted()] = ()
    """Several in its place, each with its weight: the share of the rows that are drawn from it and
    of its loss in the eval loss. A source of weight 0 is evaluated only. An axis "mixture.NAME" of
    the search, or `trial.mixture`, changes the first and not the second."""
    split: Annotated[str, Filled()] = "train"
    """The split of a Hub dataset; files have none."""
    revision: Annotated[str | None, Filled()] = None
    """Git revision of a Hub dataset; None takes the newest at the first start, and a later start is
    refused where there is a newer one."""
    columns: Annotated[str | Mapping[str, str], Either(OneOf(*SPELLINGS), Maps(*COLUMNS))] = "auto"
    """How conversations are spelled: auto, messages, conversations, prompt_completion,
    instruction; or what the columns of the data are called here, as in {"question": "prompt",
    "answer": "completion"}."""
    eval_source: Annotated[str | None, Filled()] = None
    """Evaluation conversations of their own; None holds some out of the training data."""
    eval_split: Annotated[str | None, Filled()] = None
    """Evaluation split of the same Hub dataset."""
    eval_fraction: Annotated[float, Above(0, 1)] = 0.02
    """Share of the conversations held out, chosen by a hash of their first user turn."""
    num_eval_conversations: Annotated[int, AtLeast(1)] = 500
    """At most this many conversations are evaluated on."""
    test_fraction: Annotated[float, Share()] = 0.05
    """Share of 400 conversations or more that no decision sees: base and winner are measured
    on it once, at the end; 0 for none. At most `num_eval_conversations` of each source."""
    test_source: Annotated[str | None, Filled()] = None
    """Test conversations of their own in its place, all of which are measured on."""
    test_split: Annotated[str | None, Filled()] = None
    """Test split of the same Hub dataset."""
    hold_out: bool = True
    """False trains on what would be held out, too: the evaluation conversations are then those that
    they would be, their loss says nothing of others, and there is no test set unless one is given.
    For the last training of a point that a search has found."""
    max_conversations: Annotated[int | None, AtLeast(1), "or None for all"] = None
    """Read only this many conversations, from the start of the source."""
    max_length: Annotated[int, Between(8, 2**20, "tokens")] = 2048
    """Tokens a packed row holds; longer conversations lose trailing exchanges."""
    max_bad_fraction: Annotated[float, Between(0, 1)] = 0.05
    """Refuse to start when more than this share of the rows had to be dropped."""
    chat_template: Annotated[str | None, Filled()] = None
    """Path of a Jinja chat template, or the name of one (chatml, and gemma, llama3, qwen3 and the
    others that TRL brings); None takes the tokenizer's own."""
    template_date: Annotated[str, Date()] = "2025-01-01"
    """The date that templates print, frozen so that packs and prompts repeat (YYYY-MM-DD)."""
    thinking: Annotated[str, OneOf("as_template", "last", "drop")] = "as_template"
    """What becomes of thoughts (`reasoning_content`, <think>): as_template trains each answer as it
    is seen when the model is served, in as many documents as its template needs; last only those
    that the end of the conversation shows; drop takes thoughts out."""
    enable_thinking: bool | None = None
    """Given to the template, in training and in asking: whether an answer begins with a thought;
    None leaves it to the template."""
    train_on: Annotated[str, OneOf("assistant", "last")] = "assistant"
    """Which answers are trained on, of those that a row's own flags (weight, train, …) leave: all,
    or the last of each conversation."""
    allow_special_tokens: bool = False
    """Special tokens that are spelled in a text (`<|im_end|>`) become tokens. Else they are
    tokenised as the text that they are, in questions too."""
    seed: Annotated[int, Seed()] = 0
    """Seed of the held-out choice and of the order of packed rows."""

    @property
    def mixture(self) -> tuple[WeightedSource, ...]:
        """The sources with their names and shares; one where there is only `source`."""
        given = self.sources or [(str(self.source), 1.0)]
        total = sum(weight for _, weight in given)
        names: list[str] = []
        for path, _ in given:
            short = _short_name(path)
            same = sum(name.partition(" ")[0] == short for name in names)
            names.append(f"{short} {same + 1}" if same else short)
        return tuple(
            WeightedSource(name, path, weight / total, weight / total)
            for name, (path, weight) in zip(names, given, strict=True)
        )

    @property
    def has_eval_loss(self) -> bool:
        """Whether what is evaluated on is not trained on."""
        return self.hold_out or self.eval_source is not None or self.eval_split is not None

    @property
    def spelling(self) -> str:
        """One of SPELLINGS."""
        return self.columns if isinstance(self.columns, str) else "auto"

    def with_paths(self, change: Callable[[str], str]) -> DataConfig:
        """The same with every name of a source and of a template changed."""

        def changed(path: str | None) -> str | None:
            return path and change(path)

        return replace(
            self,
            source=changed(self.source),
            sources=tuple((change(path), weight) for path, weight in self.sources),
            eval_source=changed(self.eval_source),
            test_source=changed(self.test_source),
            chat_template=changed(self.chat_template),
        )

    def __post_init__(self) -> None:
        check_fields("data.", self)
        sources = tuple((with_bundled(path), weight) for path, weight in self.sources)
        object.__setattr__(self, "sources", sources)
        for name in ("source", "eval_source"):
            object.__setattr__(
                self, name, getattr(self, name) and with_bundled(getattr(self, name))
            )
        if (self.source is None) == (not self.sources):
            got = "both" if self.sources else "neither"
            refuse("data.source and data.sources", got, "one of them")
        for name in ("eval_split", "test_split", "revision") if self.sources else ():
            if (value := getattr(self, name)) is not None:
                refuse(f"data.{name}", f"{value!r} with data.sources", "None: it is of one dataset")
        for split in ("eval", "test"):
            source, part = f"{split}_source", f"{split}_split"
            if getattr(self, source) is not None and getattr(self, part) is not None:
                refuse(f"data.{source} and data.{part}", "both", "one of them")


def _short_name(path: str) -> str:
    """What a path, glob, URI or id is called in a table: the last part that says something."""
    plain = re.split(r"[*?[]", path)[0].rstrip("/")
    plain = re.sub(r"(\.(jsonl|json|ndjson|csv|tsv|parquet|arrow|gz|bz2|xz|zst))+$", "", plain)
    return re.sub(r"[^\w-]+", "_", plain.rpartition("/")[2]).strip("_-") or "source"
