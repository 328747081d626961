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

from sftray.config import DataConfig
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.template_process import template_process
from sftray.data.chat.tokenizer import load_tokenizer
from sftray.data.packs.manifest import (
    Manifest,
    Overlap,
    Packed,
    bad_sources,
    check_bad_rows,
    drawn_from,
    drawn_text,
    format_facts,
    overlap_of,
    overlap_refusal,
    overlap_text,
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
from sftray.data.recipe import Recipe
from sftray.data.source.conversations import Conversation, conversation
from sftray.data.source.eval_split import TESTED_FROM, held_out, kept_together, limited, tested
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
    if overlap := packs.manifest["eval_overlap"]:
        log(overlap_text(overlap))
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
        evaluation, given = None, join(temporary, "given")
        if recipe.evaluation is not None:
            evaluation = tokenise(recipe.evaluation, chat, data, given, log, each)
        for source in filter(None, (*recipe.train, recipe.evaluation)):
            check_unchanged(source)
        facts = {"train": described(train), "eval": described([evaluation] if evaluation else [])}
        check_bad_rows(facts, data.max_bad_fraction)
        if len(train) > 1:
            apart = {one.source.name: described([one]) for one in train}
            check_bad_rows(apart, data.max_bad_fraction)
        for split, reading in facts.items():
            if line := dropped_text(reading):
                log(f"{split}: {line}; `sftray inspect` shows examples")
            for line in notes(reading, data.thinking):
                log(f"{split}: {line}")
        thoughts = facts["train"]["thoughts"]["conversations"]
        asks = 2 * thoughts > facts["train"]["read"] and data.thinking != "drop"
        chat = replace(chat, asks_thoughts=asks)
        splits, overlap = _split(train, evaluation, data)
        if data.test_fraction is not None and not _hold_test_set(splits, data):
            log(f"test: none, fewer than {TESTED_FROM} conversations")
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
            "eval_overlap": overlap,
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


def _split(
    train: Sequence[Tokenised], evaluation: Tokenised | None, data: DataConfig
) -> tuple[dict[str, list[Chosen]], Overlap | None]:
    """Each split's sources and which documents of them are taken, and what a given evaluation set
    has in common with the training data. Raises DataError where that is too much."""
    kept, most = [one.documents.kept for one in train], data.num_eval_conversations
    if evaluation is None:
        _keep_together(train, data)
        held = held_out([one["hash"] for one in kept], data.eval_fraction, most)
        rest = [~one for one in held]
        splits = {"train": zip(train, rest, strict=True), "eval": zip(train, held, strict=True)}
        return {split: [*chosen] for split, chosen in splits.items()}, None
    ours, theirs = np.concatenate(kept), evaluation.documents.kept
    chosen = limited(theirs["hash"], most)
    overlap = overlap_of(ours, theirs[chosen])
    if refusal := overlap_refusal(overlap):
        raise DataError(refusal)
    _keep_together(train, data)  # for a test set
    whole = [(one, np.ones(len(one.documents.kept), np.bool_)) for one in train]
    return {"train": whole, "eval": [(evaluation, chosen)]}, overlap


def _keep_together(train: Sequence[Tokenised], data: DataConfig) -> None:
    """Give conversations that begin nearly alike one hash."""
    kept, most = [one.documents.kept for one in train], data.num_eval_conversations
    hashes, bands = [one["hash"] for one in kept], [one["bands"] for one in kept]
    together = kept_together(hashes, bands, data.eval_fraction, most)
    for one, new in zip(kept, together, strict=True):
        one["hash"] = new


def _hold_test_set(splits: dict[str, list[Chosen]], data: DataConfig) -> bool:
    """Take a test set out of the training data, if there is enough; what is in a given evaluation
    set, too, is in neither."""
    train = splits["train"]
    hashes = [one.documents.kept["hash"] for one, _ in train]
    evaluated = [~chosen for _, chosen in train]
    most = data.num_eval_conversations
    chosen = tested(hashes, evaluated, data.test_fraction or 0.0, most)
    if chosen is None:
        return False
    if not any(one.any() for one in chosen):
        return False
    seen = [one.documents.kept["whole_hash"][taken] for one, taken in splits["eval"]]
    splits["train"] = [
        (one, taken & ~test) for (one, taken), test in zip(train, chosen, strict=True)
    ]
    splits["test"] = [
        (one, test & ~np.isin(one.documents.kept["whole_hash"], np.concatenate(seen)))
        for (one, _), test in zip(train, chosen, strict=True)
    ]
    return True


def _names(recipe: Recipe) -> dict[str, list[dict[str, str | None]]]:
    of_splits = {"train": recipe.train, "eval": [recipe.evaluation] if recipe.evaluation else []}
    return {
        split: [{"name": one.name, "revision": one.revision} for one in sources]
        for split, sources in of_splits.items()
        if sources
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
        yield f"train: {drawn_text(one)}"
