"""Whether a base knows the token that ends an answer: its rows in the head and in the embedding.

Promise: neither torch nor transformers is needed; rows are read where the weights lie on this
machine in floating point, and else the plan says that they were not looked at. A token that no
text of the pretraining had keeps the direction into which all such tokens are pushed (Land and
Bartolo 2024, arXiv:2405.05417), or a length that no trained row has; LoRA changes neither. Rates:
docs/data.md. Price: 0.1 s and 70 MB for a vocabulary of 262,144.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftray.config import SweepConfig
from sftray.data.chat.tokenizer import backend, read_tokenizer
from sftray.data.packs.manifest import Estimate, Manifest
from sftray.storage.model_files import BaseConfig, model_config, weights_folder

ALIKE, NEIGHBOURS = 0.9, 8
"""A row is one of those that were never trained where so many others have this cosine to it, or
more, measured from the mean of all rows …"""
SHORT = 0.5
"""… or where it, or what it is away from that mean, is shorter than this share of the median."""
_SAMPLED = 8192
"""Rows that it is compared with, beside those of added tokens."""
_HEAD, _EMBEDDING = ("lm_head.weight",), ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_TYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
Weights = NDArray[np.generic]
"""[tokens, hidden]; bfloat16 where they are 16-bit integers."""


class Row(NamedTuple):
    """A token's row beside others."""

    alike: int
    """How many of the others point where it does."""
    length: float
    """Of the median length."""
    distance: float
    """From the mean of the rows, of the median distance."""

    @property
    def is_untrained(self) -> bool:
        return self.alike >= NEIGHBOURS or min(self.length, self.distance) < SHORT

    def __str__(self) -> str:
        if self.alike >= NEIGHBOURS:
            return f"points where {self.alike} others point"
        return f"is {min(self.length, self.distance):.2g} times as long as others"


def check_end(sweep: SweepConfig, manifest: Manifest | Estimate) -> Iterator[str]:
    """Where the base of a sweep does not know the end of an answer, with what to do."""
    number = manifest.get("end_of_turn_id")  # packs of an earlier version do not have it
    if sweep.trial.finetune == "lora" and number is not None:
        yield from row_warning(sweep.trial.model, sweep.trial.model_revision, number)


def row_warning(model: str, revision: str | None, number: int) -> Iterator[str]:
    """Where a base was never trained on a token."""
    folder = weights_folder(model, revision)
    if folder is None:
        yield (
            "whether the base knows the end of an answer was not looked at: its weights are not on "
            "this machine yet"
        )
        return
    base, tokenizer = model_config(model, revision), read_tokenizer(model, revision=revision)
    vocabulary = backend(tokenizer.json)
    added = [*vocabulary.get_added_tokens_decoder()]
    if untrained := untrained_rows(folder, base, number, added):
        named = {name: vocabulary.token_to_id(text) for name, text in tokenizer.special_tokens}
        others = (named.get(name) for name in ("eos_token", "bos_token"))
        known = [
            other
            for other in others
            if other not in (None, number) and not untrained_rows(folder, base, other, added)
        ]
        remedy = "trial.finetune='full' trains both"
        if known:
            end = vocabulary.id_to_token(known[0])
            is_eos = known[0] == named.get("eos_token")
            remedy = "data.chat_template='plain' ends" if is_eos else "let data.chat_template end"
            remedy += f" answers on {end}, which it knows"
        where = " and ".join(f"its row in the {name} {row}" for name, row in untrained.items())
        yield (
            f"the base has never been trained on {vocabulary.id_to_token(number)}, which ends an "
            f"answer: {where}. LoRA leaves head and embedding alone, so the loss of the end stays "
            f"high: {remedy}"
        )


def untrained_rows(folder: Path, base: BaseConfig, number: int, added: list[int]) -> dict[str, Row]:
    """A token's row in the head and in the embedding, where it was never trained. `added`: the ids
    of added tokens, among which most of such tokens are."""
    found: dict[str, Row] = {}
    for name, weights in {"head": _matrix(folder, _HEAD), "embedding": embedding(folder)}.items():
        if weights is not None and number < len(weights):
            row = Rows.of(weights, added).of_token(number)
            found |= {name: row} if row.is_untrained else {}
    if base.get("tie_word_embeddings") and "embedding" in found:
        return {"head": found["embedding"]}
    return found


def embedding(folder: Path) -> Weights | None:
    """A checkpoint's embedding, unread; None where it has none in floating point."""
    return _matrix(folder, _EMBEDDING)


class Rows(NamedTuple):
    """The rows that a token's is compared with: those of added tokens, and of others."""

    weights: Weights
    ids: NDArray[np.int64]
    centre: NDArray[np.float32]
    away: NDArray[np.float32]
    """[rows, hidden] less the centre."""
    distances: NDArray[np.float32]
    length: float
    """The median's."""

    @classmethod
    def of(cls, weights: Weights, added: list[int]) -> Rows:
        """Of a matrix [tokens, hidden]."""
        sampled = np.random.default_rng(0).permutation(len(weights))[:_SAMPLED]
        ids = np.union1d(sampled, [number for number in added if number < len(weights)])
        rows = _floats(weights[ids])
        centre, lengths = rows[np.isin(ids, sampled)].mean(0), np.linalg.norm(rows, axis=1)
        rows -= centre
        distances = np.linalg.norm(rows, axis=1)
        return cls(weights, ids, centre, rows, distances, float(np.median(lengths)))

    def of_token(self, number: int) -> Row:
        """Its row beside those of all other tokens."""
        return self.beside(_floats(self.weights[number]), number)

    def beside(self, row: NDArray[np.float32], number: int = -1) -> Row:
        """A row beside those of all tokens but one."""
        away = row - self.centre
        distance = np.linalg.norm(away)
        cosines = self.away @ away / np.maximum(self.distances * distance, 1e-30)
        return Row(
            alike=int(np.count_nonzero(cosines[self.ids != number] >= ALIKE)),
            length=float(np.linalg.norm(row) / self.length),
            distance=float(distance / np.median(self.distances)),
        )


def _floats(values: Weights) -> NDArray[np.float32]:
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _matrix(folder: Path, endings: tuple[str, ...]) -> Weights | None:
    """A tensor of a checkpoint whose name ends so, unread; None where there is none in floating
    point."""
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(size))
        for name, facts in header.items():
            if name.endswith(endings) and facts["dtype"] in _TYPES and len(facts["shape"]) == 2:
                start = 8 + size + facts["data_offsets"][0]
                kind = np.dtype(_TYPES[facts["dtype"]])
                rows, hidden = facts["shape"]
                return np.memmap(file, kind, "r", start, (rows, hidden))
    return None
