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
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from sftray.config import DataConfig
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.tokenizer import load_tokenizer
from sftray.data.packs.lengths import lengths_of
from sftray.data.packs.manifest import (
    Described,
    Manifest,
    Overlap,
    Packed,
    SourceName,
    check_bad_rows,
    check_overlap,
    drops,
    format_facts,
    reasons_text,
    sample_prompts,
)
from sftray.data.packs.packs import SPLITS, Packs, check_sums, manifest_sum, node_copy, open_packs
from sftray.data.packs.ray_passes import Tokenised, pack_splits, tokenise, wake_workers
from sftray.data.recipe import Recipe, make_recipe
from sftray.data.source.conversations import BadRowError, conversation
from sftray.data.source.eval_split import held_out, limited
from sftray.data.source.sources import first_rows, spelling_of_source
from sftray.errors import Log, PacksError
from sftray.storage import files
from sftray.storage.paths import PacksPaths, is_uri, join

_COMPARED = 200
"""Conversations on which TRL's training template is compared with the model's own."""
_BUILD_HOURS = 6
"""How long to wait for another process that builds the same packs."""


def build_packs(
    data: DataConfig,
    model: str,
    *,
    storage: str,
    log: Log = lambda line: None,
) -> Packs:
    """The packs of `data` for the tokenizer of `model`: `make_recipe`, and `packs_from` it."""
    return packs_from(make_recipe(data, model), storage=storage, log=log)


def packs_from(recipe: Recipe, *, storage: str, log: Log = lambda line: None) -> Packs:
    """The packs of a recipe, built unless they are there already.

    Ray must be initialised. Raises DataError where a source cannot be read, more than
    `data.max_bad_fraction` of its rows are bad or a given evaluation set is trained on, and
    TemplateError where the assistant's tokens cannot be told.
    """
    root = PacksPaths.of(storage, recipe.key).root
    with _only_builder(root, log):
        packs = _find(root, log)
        if packs is None:
            wake_workers(recipe.train)  # they start while the tokenizer is loaded here
            packs = _build(recipe, _chat_format(recipe, log), root, log)
    check_bad_rows(packs.manifest["splits"], recipe.data.max_bad_fraction)
    if overlap := Overlap.of(packs.manifest):
        log(overlap.text())
    return packs


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
    os.makedirs(os.path.dirname(inner), exist_ok=True)
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
    spelling = spelling_of_source(recipe.train, recipe.data.columns)
    samples = []
    for row in first_rows(recipe.train, _COMPARED):
        with contextlib.suppress(BadRowError):
            samples.append(conversation(row, spelling)[0])
    chat = choose_format(
        tokenizer, template=recipe.template, date=recipe.data.template_date, samples=samples
    )
    log(f"loss mask of {recipe.model}: {chat.method}")
    for difference in chat.differences:
        log(f"training differs from the model's own template: {difference}")
    return chat


def _build(recipe: Recipe, chat: ChatFormat, root: str, log: Log) -> Packs:
    began = time.monotonic()
    data = recipe.data
    if not is_uri(root):
        files.remove_folder(root)  # what a build that was cut short has left
    temporary = join(root, f"tmp-{uuid.uuid4().hex[:8]}")
    try:
        train = tokenise(recipe.train, chat, data, join(temporary, "source"), log)
        given = None
        if recipe.evaluation is not None:
            given = tokenise(recipe.evaluation, chat, data, join(temporary, "given"), log)
        sources = {"train": train, "eval": given or train}
        described = {"train": _describe(train), "eval": _describe(given)}
        check_bad_rows(described, data.max_bad_fraction)
        for split, facts in described.items():
            if facts["dropped"]:
                log(_dropped_line(split, facts))
        chosen = _split(train, given, data)
        overlap = _overlap(train, given, chosen)
        check_overlap(overlap)
        splits = {split: (sources[split], mine) for split, mine in chosen.items()}
        packed = pack_splits(splits, chat=chat, data=data, root=root)
        for split, counts in packed.items():
            log(_split_line(split, counts))
        prompted = (int(k) for k in np.flatnonzero(chosen["eval"]))
        prompts = sample_prompts(chat, sources["eval"].conversations(prompted, data.columns))
        manifest: Manifest = {
            "key": recipe.key,
            "inputs": recipe.inputs,
            "sources": _sources(recipe),
            "model": recipe.model,
            "model_revision": recipe.model_revision,
            "max_length": data.max_length,
            **format_facts(chat),
            "seconds": round(time.monotonic() - began, 1),
            "eval_overlap": None if overlap is None else asdict(overlap),
            "splits": {split: {**described[split], **packed[split]} for split in SPLITS},
            "sample_prompts": prompts,
            "tokenizer_sha256": hashlib.sha256(chat.tokenizer.encode()).hexdigest(),
            "sha256": "",
        }
        files.write_text(PacksPaths(root).tokenizer, chat.tokenizer)
        manifest["sha256"] = manifest_sum(manifest)
        files.write_text(PacksPaths(root).manifest, json.dumps(manifest, indent=1))
    finally:
        files.remove_folder(temporary)
        files.remove_folder(str(node_copy(temporary)))
    return open_packs(root)


def _sources(recipe: Recipe) -> dict[str, SourceName | None]:
    """Where each split came from; "eval" is None where it was held out of "train"."""
    named = {"train": recipe.train, "eval": recipe.evaluation}
    return {
        split: {"name": source.name, "revision": source.revision} if source else None
        for split, source in named.items()
    }


def _split(
    train: Tokenised, given: Tokenised | None, data: DataConfig
) -> dict[str, NDArray[np.bool_]]:
    """Which documents of its source each split takes."""
    if given is not None:
        return {
            "train": np.ones(len(train.documents.hash), np.bool_),
            "eval": limited(given.documents.hash, data.num_eval_conversations),
        }
    chosen = held_out(train.documents.hash, data.eval_fraction, data.num_eval_conversations)
    return {"train": ~chosen, "eval": chosen}


def _overlap(
    train: Tokenised, given: Tokenised | None, chosen: Mapping[str, NDArray[np.bool_]]
) -> Overlap | None:
    if given is None:
        return None
    trained, mine = train.documents, chosen["eval"]
    evaluated = (given.documents.hash[mine], given.documents.whole_hash[mine])
    return Overlap.between((trained.hash, trained.whole_hash), evaluated)


def _describe(tokenised: Tokenised | None) -> Described:
    """What the first pass found in a split's own source; a held-out split has none."""
    reports = tokenised.reports if tokenised else []
    dropped, examples = drops(reports, tokenised.places() if tokenised else [])
    return {
        "read": sum(report.rows for report in reports),
        "dropped": dropped,
        "examples": examples,
        "lost_last_user_turn": sum(report.lost_last_user_turn for report in reports),
        "lost_exchanges": sum(report.lost_exchanges for report in reports),
        "lengths": lengths_of(report.lengths for report in reports),
    }


def _dropped_line(split: str, facts: Described) -> str:
    dropped = f"{sum(facts['dropped'].values()):,} of {facts['read']:,} rows dropped"
    reasons = reasons_text(facts["dropped"])
    return f"{split}: {dropped} ({reasons}); `sftray inspect` shows examples"


def _split_line(split: str, facts: Packed) -> str:
    return (
        f"{split}: {facts['conversations']:,} conversations in {facts['rows']:,} rows, "
        f"{facts['tokens']:,} tokens, {facts['supervised_tokens']:,} trained, "
        f"{100 * facts['waste']:.2f} % padding ({100 * facts['waste_padded']:.0f} % unpacked)"
    )
