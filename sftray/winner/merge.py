"""The adapter merged into its base, as a model that needs no PEFT; and what that does to the loss.

Promise: merged is into the base's own weights, never into 4-bit ones; the sum is made in float32
and rounded once. The folder is there whole and checked, or not at all. Price: memory for the base
in the wanted dtype on the CPU, and the check's up to three loads of the base.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel

from sftray.config import TrialConfig
from sftray.data.packs.packs import open_packs
from sftray.errors import Log, PacksError, SftrayError
from sftray.plan.checkpoint_format import quantization_of
from sftray.storage import files
from sftray.storage.model_files import BaseConfig, model_config
from sftray.storage.paths import SweepPaths, is_uri, resolved
from sftray.trial.base_model import parameters_of, pretrained, saved_tokenizer
from sftray.trial.eval_loss import Sources, default_device, evaluate_adapter, evaluate_model
from sftray.trial.generation import end_with_turns
from sftray.trial.gpu_memory import free_memory, is_out_of_memory
from sftray.winner import DTYPES
from sftray.winner.bundle import CARD, BundleFacts, open_bundle
from sftray.winner.model_card import merged_card

MODEL_CONFIG = "config.json"
"""The last of the files: without it nothing is loaded."""
CHECKED_ROWS = 64
"""Held-out rows that the check is of, at most."""


@dataclass(frozen=True)
class Losses:
    """Eval losses on the same held-out rows, in nats; None where it was not asked for or did not
    fit the GPU."""

    adapter: float | None = None
    """Of the adapter on its base as trained."""
    merged: float | None = None
    """Of the saved folder, loaded again."""
    in_4_bit: float | None = None
    """Of the saved folder, quantised to NF4 while loading."""


def merge(
    folder: str,
    out: str,
    *,
    dtype: str = "bf16",
    max_shard_size: str = "5GB",
    check: bool | None = None,
    log: Log,
    trust_remote_code: bool = False,
) -> Losses:
    """Merge the adapter of a sweep's or a bundle's folder into its unquantised base, saved in `out`
    with tokenizer, chat template, generation settings and card.

    `check` compares eval losses before and after, and with True (for an NF4 base by default) also
    what is left in 4 bits; False loads nothing again. Raises SftrayError where `out` is not empty,
    or the disk too full.
    """
    if is_uri(out):
        raise SftrayError(f"{out}: got a URI, must be a local folder; copy it from there")
    local, facts = open_bundle(folder)
    facts.require_adapter(folder)
    trial = facts.as_trained(folder, trust_remote_code)
    require_unquantised(trial.model, model_config(trial.model, trial.model_revision))
    held, target = getattr(torch, DTYPES[dtype]), Path(out).absolute()
    _require_room(target, trial, held)
    rows = None if check is False else _held_out(_packs(folder, facts), facts, check, log)
    # an empty folder may be the current one, or a disk: it stays, and is filled
    place = target / "model" if target.is_dir() else target
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _save(local, trial, partial, held, max_shard_size, facts.end_of_turn)
        log(f"merged into {trial.model} in {dtype}")
        losses = Losses()
        if rows is not None:
            in_4_bit = check or trial.in_4_bits
            losses = _measure(local, trial, partial, held, rows, in_4_bit, log)
        gained = facts.base_eval_loss - facts.eval_loss
        words = in_words(losses, trial, dtype, gained, facts.loss_name)
        (partial / CARD).write_text(merged_card(facts, dtype, words), encoding="utf-8")
        for file in partial.iterdir():  # safetensors writes for its user alone
            file.chmod((partial / CARD).stat().st_mode)
        if place == target:
            os.replace(partial, target)
        else:
            for name in sorted(os.listdir(partial), key=lambda name: name == MODEL_CONFIG):
                os.replace(partial / name, target / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if words:
        log(words)
    log(f"saved in {out}")
    return losses


def require_unquantised(model: str, base: BaseConfig) -> None:
    """Raise SftrayError where the base's own weights are quantised."""
    if quantization_of(base):
        raise SftrayError(
            f"{model}: got a base whose own weights are quantised, must be in floating point to "
            "merge into",
            "merge into the checkpoint that it was quantised from, or serve base and adapter",
        )


def in_words(
    losses: Losses, trial: TrialConfig, dtype: str, gained: float, loss_name: str = "eval loss"
) -> str:
    """What merging did to the loss; `gained` is what training had brought, in nats."""
    merged, before, again = losses.merged, losses.adapter, losses.in_4_bit
    if merged is None:
        return ""
    words = f"Merged in {dtype}, the {loss_name} is {merged:.4f}"
    if before is not None:
        words += f" ({merged - before:+.4f} against the adapter on its {trial.base_precision} base)"
    if again is None:
        return f"{words}."
    if again <= merged:
        return f"{words}. In 4 bits (NF4) it is {again:.4f}: merging into 4-bit would lose nothing."
    share = f", {(again - merged) / gained:.0%} of what training gained" if gained > 0 else ""
    return (
        f"{words}. In 4 bits (NF4) it is {again:.4f}: merging into 4-bit would lose "
        f"{again - merged:.4f}{share}."
    )


def _require_room(out: Path, trial: TrialConfig, dtype: torch.dtype) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SftrayError(f"{out}: got what exists already, must be new or empty")
    out.parent.mkdir(parents=True, exist_ok=True)
    needed, free = parameters_of(trial) * dtype.itemsize, shutil.disk_usage(out.parent).free
    if needed > 0.95 * free:
        raise SftrayError(
            f"{out}: got {free / 1e9:.1f} GB of free disk, must be {needed / 1e9:.1f} GB and some "
            f"more for {trial.model} in {str(dtype).removeprefix('torch.')}; name another disk"
        )


def _packs(folder: str, facts: BundleFacts) -> str:
    """The packs of a sweep's folder or of its bundle's."""
    roots = [resolved(one, facts.packs) for one in (SweepPaths(folder).best, folder)]
    return next((root for root in roots if files.exists(root)), roots[1])


def _held_out(
    packs: str, facts: BundleFacts, check: bool | None, log: Log
) -> tuple[Dataset, Sources] | None:
    """The first of the sweep's held-out rows, of each source in proportion; None where its packs
    are gone."""
    try:
        opened = open_packs(packs)
        rows, sources = opened.dataset("eval"), opened.eval_sources(facts.data.mixture)
    except PacksError as error:
        if check:
            raise
        log(f"the eval loss is not checked: {error}")
        return None
    if len(rows) > CHECKED_ROWS:
        log(f"eval losses are of {CHECKED_ROWS} of {len(rows)} held-out rows")
    most = min(CHECKED_ROWS, len(rows))
    kept = [(max(1, most * number // len(rows)), weight) for number, weight in sources]
    first = np.cumsum([0, *(number for number, _ in sources)])
    picked = [first[k] + np.arange(number) for k, (number, _) in enumerate(kept)]
    return rows.select(np.concatenate(picked)), kept


def _save(
    adapter: Path, trial: TrialConfig, out: Path, dtype: torch.dtype, shard: str, end_of_turn: int
) -> None:
    base = pretrained(trial, dtype, whole=True)
    # PEFT keeps the adapter in float32, so the sum is float32 and rounded once
    model = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    broken = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise SftrayError(
            f"{len(broken)} merged weights are not finite in {dtype} (first: {broken[0]}); take "
            "--dtype bf16, which has the range"
        )
    end_with_turns(model, end_of_turn)
    model.save_pretrained(out, max_shard_size=shard)
    saved_tokenizer(adapter, trial).save_pretrained(out)


def _measure(
    adapter: Path,
    trial: TrialConfig,
    merged: Path,
    dtype: torch.dtype,
    held_out: tuple[Dataset, Sources],
    in_4_bit: bool,
    log: Log,
) -> Losses:
    rows, sources = held_out
    quantised = replace(
        trial, model=str(merged), model_revision=None, base_precision="nf4", shard_base=False
    )
    before = _loss("the adapter", lambda: evaluate_adapter(adapter, trial, rows, sources), log)
    after = _loss(
        "the merged model", lambda: evaluate_model(merged, trial, rows, dtype, sources), log
    )
    if not in_4_bit:
        return Losses(before, after)
    again = _loss(
        "it in 4 bits", lambda: evaluate_model(merged, quantised, rows, sources=sources), log
    )
    return Losses(before, after, again)


def _loss(what: str, compute: Callable[[], float], log: Log) -> float | None:
    try:
        return compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        log(f"the eval loss of {what} is not checked: it does not fit {default_device()}")
        return None
    finally:
        free_memory()
