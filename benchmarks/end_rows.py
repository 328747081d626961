"""How often the check of the end of an answer (`plan/end_row.py`) is wrong, on bases at hand.

    python benchmarks/end_rows.py --model BASE --data chats.jsonl

False alarms: of the tokens that the data has at least --often times, those whose row it takes for
one that was never trained. Misses: of rows that were never trained, those that it takes for known:
tokens called <unused…>, and rows put in the place of known ones, of zeros, of the vocabulary's mean
and drawn with a standard deviation of 0.02, as libraries make them where a vocabulary is extended.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from console import argument_parser, say
from tokenizers import Tokenizer

from sftray.demo import FOLDER
from sftray.plan.end_row import Rows, embedding
from sftray.storage.model_files import weights_folder


def main() -> None:
    options = _options()
    folder = weights_folder(options.model)
    assert folder is not None, "the weights must be on this machine"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = Rows.of(embedding(folder), [*tokenizer.get_added_tokens_decoder()])
    counts = _counts(tokenizer, options.data, options.rows)
    rng = np.random.default_rng(0)
    known = rng.permutation(np.flatnonzero(counts >= options.often))[: options.tokens].tolist()
    alarms = [number for number in known if rows.of_token(number).is_untrained]
    say(f"{options.model}: {len(alarms)} of {len(known)} known tokens are taken for untrained")
    if alarms:
        say(f"  {[tokenizer.id_to_token(number) for number in alarms[:12]]}")
    unused = [k for k in range(len(counts)) if str(tokenizer.id_to_token(k)).startswith("<unused")]
    groups: dict[str, Iterable[bool]] = {
        "<unused…>": [not rows.of_token(k).is_untrained for k in rng.permutation(unused)[:1000]],
        "zeros": [not rows.beside(np.zeros_like(rows.centre)).is_untrained],
        "the mean": [not rows.beside(rows.centre * 1.0001).is_untrained],
        "drawn": [
            not rows.beside(rng.normal(0, 0.02, rows.centre.shape).astype(np.float32)).is_untrained
            for _ in range(100)
        ],
    }
    for name, missed in groups.items():
        missed = list(missed)
        say(f"  {name}: {sum(missed)} of {len(missed)} are missed")


def _counts(tokenizer: Tokenizer, file: str, most: int) -> np.ndarray:
    counts = np.zeros(tokenizer.get_vocab_size(), np.int64)
    lines = Path(file).read_text(encoding="utf-8").splitlines()[:most]
    texts = [" ".join(turn["content"] for turn in json.loads(line)["messages"]) for line in lines]
    for encoding in tokenizer.encode_batch(texts):
        counts += np.bincount(encoding.ids, minlength=len(counts))
    return counts


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", default=str(FOLDER), help="a folder with weights in floating point")
    add("--data", required=True, help="conversations, a .jsonl file with a `messages` column")
    add("--rows", type=int, default=20_000, help="of the data")
    add("--often", type=int, default=100, help="times that a known token occurs")
    add("--tokens", type=int, default=1000, help="known tokens that are looked at")
    return parser.parse_args()


if __name__ == "__main__":
    main()
