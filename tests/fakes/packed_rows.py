"""Packs of given rows, without the preparation of a sweep."""

from __future__ import annotations

from pathlib import Path

import datasets

from sftray.data.packs.packs import Packs


def packs_of_rows(rows: list[dict[str, list[int]]], folder: Path, length: int) -> Packs:
    """One file a split; the first two rows are evaluated on, too."""
    splits = {}
    for split, of_split in (("train", rows), ("eval", rows[:2])):
        kinds = {"kinds": [0] * length} if split == "eval" else {}
        whole = [{**row, "documents": [0, 1], **kinds} for row in of_split]
        datasets.Dataset.from_list(whole).save_to_disk(str(folder / split))
        (file,) = (folder / split).glob("*.arrow")
        of_source = {"rows": len(whole), "parts": [{"name": file.name}]}
        splits[split] = {**of_source, "sources": [of_source]}
    manifest = {"max_length": length, "end_of_turn_id": 2, "sample_prompts": [], "splits": splits}
    return Packs(str(folder), manifest)
