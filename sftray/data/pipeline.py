"""Conversations → packs, once for all trials.

Promise: packs of one key are built once, whole or not at all: the manifest is written last, and a
build that was cut short is built again. The same input gives the same bytes whatever the number of
CPUs. Price: see docs/data.md for conversations a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from sftray.config import DataConfig
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.template_process import template_process
from sftray.data.chat.tokenizer import load_tokenizer
from sftray.data.packs.manifest import (
    Described,
    Manifest,
    Overlap,
    Packed,
    bad_sources,
    check_bad_rows,
    drawn_from,
    drawn_text,
    format_facts,
    overlap_lines,
    overlap_of,
    overlap_refusals,
    sample_prompts,
)
from sftray.data.packs.packs import Packs, check_sums, manifest_sum, node_copy, open_packs
from sftray.data.packs.ray_passes import (
    Chosen,
    Each,
    Tokenised,
    described,
    each_on_ray,
    pack_splits,
    tokenise,
    wake_workers,
)
from sftray.data.packs.readings import dropped_text, mask_text, notes
from sftray.data.packs.tokenize_pass import Kept, conversations_of
from sftray.data.recipe import Recipe
from sftray.data.source.conversations import Conversation, conversation
from sftray.data.source.eval_split import (
    apart_text,
    held_out,
    kept_together,
    limited,
    no_test_set,
    tested,
)
from sftray.data.source.row_keys import BadRowError
from sftray.data.source.sources import check_spelling, check_unchanged, first_rows
from sftray.errors import DataError, Log, PacksError
from sftray.storage import files
from sftray.storage.faults import plainly
from sftray.storage.paths import PacksPaths, is_uri, join

_COMPARED = 200
"""Conversations on which TRL's training template is compared with the model's own."""
_BUILD_HOURS = 6
"""How long to wait for another process that builds the same packs."""


def packs_from(
    recipe: Recipe, *, storage: str, log: Log = lambda line: None, each: Each = each_on_ray
) -> Packs:
    """The packs of a recipe, built unless they are there already.

    `each` runs the tasks, by default on Ray, which must be initialised. Raises DataError where a
    source cannot be read, more than `data.max_bad_fraction` of its rows are bad or a given
    evaluation set is trained on, and TemplateError where the assistant's tokens are not certain.
    """
    root = PacksPaths.of(storage, recipe.key).root
    packs = _find(root, log=lambda line: None)  # whole ones need no lock, nor a right to write
    if packs is None:
        with _only_builder(root, log):
            packs = _find(root, log) or _built(recipe, root, log, each)
    check_bad_rows(packs.manifest["splits"], recipe.data.max_bad_fraction)
    for refusal in bad_sources(packs.manifest["splits"]["train"], recipe.data.max_bad_fraction):
        raise DataError(refusal, "clean it, or raise data.max_bad_fraction")
    for line in overlap_lines(packs.manifest["overlaps"]):
        log(line)
    if line := apart_text(packs.manifest["apart"]):
        log(line)
    return packs


def _built(recipe: Recipe, root: str, log: Log, each: Each) -> Packs:
    wake_workers(recipe.train)  # they start while the tokenizer is loaded here, as does
    template_process().start()
    return _build(recipe, _chat_format(recipe, log), root, log, each)


def _find(root: str, log: Log) -> Packs | None:
    """The packs in a folder, every byte checked; None where they must be built (again)."""
    if not files.exists(root):
        return None
    try:
        packs = open_packs(root)
        check_sums(packs)
    except PacksError as error:
        log(f"packs: {error} (building again now)")
        return None
    return packs


@contextlib.contextmanager
def _only_builder(root: str, log: Log) -> Iterator[None]:
    """Hold the build of one local pack; on object storage two builders write the same bytes."""
    if is_uri(root):
        yield
        return
    from filelock import FileLock, Timeout

    _, inner = files.resolve(root)
    with plainly(f"{inner}.lock"):
        files.make_folder(os.path.dirname(inner))
        os.close(files.open_shared(f"{inner}.lock", os.O_RDWR | os.O_CREAT))
        lock = FileLock(f"{inner}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log(f"packs {root}: another process builds them; waiting at most {_BUILD_HOURS} hours")
            lock.acquire(timeout=_BUILD_HOURS * 3600)
    try:
        yield
    finally:
        lock.release()


def _chat_format(recipe: Recipe, log: Log) -> ChatFormat:
    tokenizer = load_tokenizer(
        recipe.model,
        revision=recipe.model_revision,
        trust_remote_code=recipe.trust_remote_code,
    )
    spelling = recipe.data.spelling
    samples = []
    for source in recipe.train:
        check_spelling(source, spelling)
        for row in first_rows(source, _COMPARED // len(recipe.train)):
            with contextlib.suppress(BadRowError):
                samples.append(conversation(row, spelling)[0])
    chat = choose_format(
        tokenizer,
        template=recipe.template,
        date=recipe.data.template_date,
        samples=samples,
        thinking=recipe.data.thinking,
        train_on=recipe.data.train_on,
        enable_thinking=recipe.data.enable_thinking,
        allow_special_tokens=recipe.data.allow_special_tokens,
    )
    log(f"loss mask of {recipe.model}: {chat.method}")
    if mask := mask_text(chat.beside_trl):
        log(mask)
    for difference in chat.differences:
        log(f"training differs from the model's own template: {difference}")
    return chat


def _build(recipe: Recipe, chat: ChatFormat, root: str, log: Log, each: Each) -> Packs:
    began = time.monotonic()
    data = recipe.data
    if not is_uri(root):
        files.remove(root)  # what a build that was cut short has left
    temporary = join(root, f"tmp-{uuid.uuid4().hex[:8]}")
    try:
        train = [
            tokenise(source, chat, data, join(temporary, f"source-{number}"), log, each)
            for number, source in enumerate(recipe.train)
        ]
        given = {
            split: tokenise(source, chat, data, join(temporary, split), log, each)
            for split, source in recipe.given.items()
        }
        for source in (*recipe.train, *recipe.given.values()):
            check_unchanged(source)
        facts = {"train": described(train)}
        facts |= {split: described([one]) for split, one in given.items()}
        check_bad_rows(facts, data.max_bad_fraction)
        if len(train) > 1:
            by_source = {one.source.name: described([one]) for one in train}
            check_bad_rows(by_source, data.max_bad_fraction)
        for split, reading in facts.items():
            if line := dropped_text(reading):
                log(f"{split}: {line}; `sftray inspect` shows examples")
            for line in notes(reading, data.thinking):
                log(f"{split}: {line}")
        chat = replace(chat, asks_thoughts=_asks_thoughts(facts["train"], data))
        splits, overlaps, apart = _split(train, given, data, log)
        packed = pack_splits(splits, recipe, chat.pad_token_id, root, each)
        for line in _split_lines(packed, data):
            log(line)
        manifest: Manifest = {
            "key": recipe.key,
            "inputs": recipe.inputs,
            "sources": _names(recipe),
            "model": recipe.model,
            "model_revision": recipe.model_revision,
            "max_length": data.max_length,
            **format_facts(chat),
            "seconds": round(time.monotonic() - began, 1),
            "overlaps": overlaps,
            "apart": apart,
            "splits": {
                split: {**facts.get(split, described([])), **counts}
                for split, counts in packed.items()
            },
            "sample_prompts": sample_prompts(chat, _in_turn(splits["eval"])),
            "tokenizer_sha256": hashlib.sha256(chat.tokenizer.encode()).hexdigest(),
            "sha256": "",
        }
        files.write_text(PacksPaths(root).tokenizer, chat.tokenizer)
        manifest["sha256"] = manifest_sum(manifest)
        files.write_text(PacksPaths(root).manifest, json.dumps(manifest, indent=1))
    finally:
        files.remove(temporary)
        files.remove(str(node_copy(temporary)))
    return open_packs(root)


def _asks_thoughts(read: Described, data: DataConfig) -> bool:
    """Whether prompts leave room for a thought: most conversations have one."""
    return 2 * read["thoughts"]["conversations"] > read["read"] and data.thinking != "drop"


def _split(
    train: Sequence[Tokenised], given: Mapping[str, Tokenised], data: DataConfig, log: Log
) -> tuple[dict[str, list[Chosen]], dict[str, Overlap], int]:
    """Each split's sources and which documents of them are taken; what given sets have in common
    with the others, which lose it; and how many documents are not kept together (`apart`). Raises
    DataError where that is too much."""
    splits = {"train": [(one, np.ones(len(one.documents.kept), np.bool_)) for one in train]}
    overlaps, most = {}, data.num_eval_conversations
    for split in sorted(given):  # evaluation before test, which neither of the others may hold
        theirs = given[split].documents.kept
        chosen = limited(theirs["hash"], most if split == "eval" else len(theirs))
        seen = [one.documents.kept[mask] for known in splits.values() for one, mask in known]
        overlaps[split] = overlap_of(np.concatenate(seen), theirs[chosen])
        for known in splits.values():
            known[:] = [(one, mask & ~_holds(one, theirs[chosen])) for one, mask in known]
        splits[split] = [(given[split], chosen)]
    for refusal in overlap_refusals(overlaps):
        raise DataError(refusal)
    apart = 0 if {"eval", "test"} <= given.keys() else _keep_together(train, data)
    if "eval" not in given:
        hashes = [one.documents.kept["hash"] for one in train]
        _hold(splits, "eval", held_out(hashes, data.eval_fraction, most), data.hold_out)
    if "test" not in given:
        _hold_test_set(splits, data, log)
    for split, sources in splits.items():
        for one, mask in sources:
            if not mask.any():
                raise DataError(
                    f"{split} data: none of the {len(mask):,} conversations of {one.source.name} "
                    "are left beside the other sets; make those smaller, or leave the source out"
                )
    return splits, overlaps, apart


def _holds(one: Tokenised, theirs: Kept) -> NDArray[np.bool_]:
    """Which documents of a source are of conversations that another has word for word."""
    return np.isin(one.documents.kept["whole_hash"], theirs["whole_hash"])


def _hold(
    splits: dict[str, list[Chosen]],
    split: str,
    held: Sequence[NDArray[np.bool_]],
    out: bool = True,
) -> None:
    """Make a set of training data, and take it `out` of them."""
    pairs = [*zip(splits["train"], held, strict=True)]
    splits[split] = [(one, free & mask) for (one, free), mask in pairs]
    if out:
        splits["train"] = [(one, free & ~mask) for (one, free), mask in pairs]


def _keep_together(train: Sequence[Tokenised], data: DataConfig) -> int:
    """Give conversations that begin nearly alike one hash; how many are too many for that."""
    kept, most = [one.documents.kept for one in train], data.num_eval_conversations
    hashes, bands = [one["hash"] for one in kept], [one["bands"] for one in kept]
    together, apart = kept_together(hashes, bands, data.eval_fraction, most)
    for one, new in zip(kept, together, strict=True):
        one["hash"] = new
    return apart


def _hold_test_set(splits: dict[str, list[Chosen]], data: DataConfig, log: Log) -> None:
    """Take a test set out of the training data where there is enough, or say why not."""
    if not (data.test_fraction and data.hold_out):
        return
    train = splits["train"]
    kept = [one.documents.kept for one, _ in train]
    if why := no_test_set(sum(map(conversations_of, kept)), data.test_fraction):
        log(why)
        return
    hashes, taken = [one["hash"] for one in kept], [~free for _, free in train]
    chosen = tested(hashes, taken, data.test_fraction, data.num_eval_conversations)
    if chosen is None:
        log("test: none, because each first user turn begins too many conversations")
        return
    _hold(splits, "test", chosen)


def _names(recipe: Recipe) -> dict[str, list[dict[str, str | None]]]:
    of_splits = {"train": recipe.train, **{split: [one] for split, one in recipe.given.items()}}
    return {
        split: [{"name": one.name, "revision": one.revision} for one in sources]
        for split, sources in of_splits.items()
    }


def _in_turn(sources: Sequence[Chosen]) -> Iterator[Conversation]:
    """The chosen conversations of some sources, one of each in turn."""
    each = [one.conversations(np.flatnonzero(chosen).tolist()) for one, chosen in sources]
    return (one for together in zip_longest(*each) for one in together if one is not None)


def _split_lines(packed: Mapping[str, Packed], data: DataConfig) -> Iterator[str]:
    for split, counts in packed.items():
        yield (
            f"{split}: {counts['conversations']:,} conversations in {counts['rows']:,} rows, "
            f"{counts['tokens']:,} tokens, {counts['supervised_tokens']:,} trained, "
            f"{100 * counts['waste']:.2f} % padding ({100 * counts['waste_padded']:.0f} % unpacked)"
        )
    for one in drawn_from(packed["train"], data.mixture):
        yield f"train, by weight: {drawn_text(one)}"
