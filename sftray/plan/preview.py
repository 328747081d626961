"""What a sweep would do, before anything is started: `--plan`, and the checks that a start shares.

Promise: no ray and no torch; exact where packs exist, else estimated from a sample and labelled so.
Price: under 3 s.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sftray.config import SweepConfig, TrialConfig
from sftray.config.config_json import to_json
from sftray.config.points import reachable
from sftray.config.sweep_config import BUDGETS
from sftray.data.packs.manifest import Estimate, Manifest, Overlap, counts_of
from sftray.metrics import ANSWER_TOKENS
from sftray.plan.bank_settings import BankSettings, bank_memory, choose_settings
from sftray.plan.base_config import require_attention, special_attention
from sftray.plan.device_fit import DeviceFit, choose_execution, fit_train
from sftray.plan.disk import disk_needed, free_space
from sftray.plan.memory import train_memory
from sftray.plan.model_shape import ModelShape
from sftray.plan.preflight import (
    WOULD_NOT_START,
    bad_rows,
    check_batch_sizes,
    check_budgets,
    check_code,
    check_evaluation,
    check_name,
    check_plans,
    check_ranks,
    check_rates,
    drops,
    shape_corners,
)
from sftray.plan.prior_points import prior_points
from sftray.plan.rungs import rung_ladder
from sftray.plan.trainer_choice import pick_trainer, without_bank
from sftray.plan.trial_plan import TrialPlan, fit_batch_sizes, planner

USUAL_GPUS = {"24 GB": 23.6, "48 GB": 44.4, "80 GB": 79.1, "141 GB": 139.8}
"""GiB that cards sold under these names have."""


AT_ONCE = 8
"""Trials at a time where that is up to the cluster."""


def make_plan(sweep: SweepConfig, *, gpu_memory: float | None) -> dict[str, Any]:
    """Everything `--plan` shows, as JSON values, for GPUs of so many bytes; None for CPUs.

    Raises ConfigError where a point of the search could not run.
    """
    from sftray.data.estimate import estimate_packs
    from sftray.data.recipe import find_packs
    from sftray.storage.model_files import model_config, require_safetensors

    data, trial, asked = sweep.data, sweep.trial, sweep
    where: dict[str, Any] = {
        "model_revision": trial.model_revision,
        "trust_remote_code": trial.trust_remote_code,
    }
    packs = find_packs(data, trial.model, storage=sweep.storage, **where)
    manifest: Manifest | Estimate
    if packs:
        manifest, sample = packs.manifest, None
    else:
        manifest = estimate_packs(data, trial.model, **where)
        sample = {"sampled": manifest["sampled"], "read": manifest["read"]}
    counts = manifest["splits"]
    rows = counts["train"]["rows"]
    sweep = fit_batch_sizes(sweep, rows)
    ladder = rung_ladder(sweep, rows)
    base = model_config(trial.model, trial.model_revision)
    require_safetensors(trial.model, trial.model_revision)
    require_attention(sweep, base)
    trainer, why = pick_trainer(sweep, base)
    bank = None
    if trainer == "bank":
        bank = choose_settings(sweep, base, memory=gpu_memory)
        if bank is None:
            trainer, why = without_bank(sweep)
    fit = DeviceFit(bank.execution) if bank else fit_train(sweep, base, gpu_memory)
    plan = planner(sweep, rows, execution=fit.execution)
    overlap = Overlap.of(manifest)
    refused = bad_rows(data, counts)
    refused += [overlap.refusal() + WOULD_NOT_START] if overlap and overlap.refused else []
    warnings = [
        *check_code(trial),
        *refused,
        *check_evaluation(counts_of(manifest)["eval"]),
        *check_references(sweep, manifest["sample_prompts"]),
        *check_plans(sweep, plan),
        *check_ranks(sweep, fit),
        *check_budgets(sweep, gpus=gpu_memory is not None),
        *check_batch_sizes(asked, sweep),
        *check_rates(sweep, base),
        *check_attention(sweep, base, gpus=gpu_memory is not None),
        *check_name(asked),
    ]
    repeats = sweep.confirm_top * sweep.confirm_seeds
    disk = disk_needed(sweep, base, counts, at_once=bank.slots if bank else AT_ONCE)
    shapes = [_shape(config, plan(config), counts, rows) for config in shape_corners(sweep)]
    return {
        "sweep": sweep.name,
        "exact": packs is not None,
        "sample": sample,
        "packs": packs.root if packs else None,
        "data": counts_of(manifest),
        "dropped": {split: drops(counts[split]) for split in ("train", "eval")},
        "overlap": asdict(overlap) if overlap else None,
        "padding": {
            "waste": counts["train"]["waste"],
            "waste_padded": counts["train"]["waste_padded"],
            "waste_longest": counts["train"]["waste_longest"],
        },
        "trials": sweep.total_trials,
        "confirm": {"top": sweep.confirm_top, "seeds": sweep.confirm_seeds},
        "trainer": trainer,
        "why_trainer": why,
        "bank": asdict(bank) if bank else None,
        "memory": _memory(sweep, base, bank, fit, gpu_memory),
        "gpus": _usual_gpus(sweep, base, trainer),
        "first": prior_points(sweep, base),
        "rungs": list(ladder),
        "scheduler": sweep.scheduler,
        "reduction_factor": sweep.reduction_factor if ladder else None,
        "shapes": shapes,
        "tokens": {
            "most": (sweep.total_trials + repeats) * max(shape["tokens"] for shape in shapes),
            "least": sweep.total_trials * min(shape["tokens_to_first_rung"] for shape in shapes)
            + repeats * min(shape["tokens"] for shape in shapes),
        },
        "budgets": {name: getattr(sweep, name) for name in BUDGETS},
        "disk": {**asdict(disk), "total": disk.total, "free": free_space(sweep.storage)},
        "warnings": warnings,
        "starts": not refused,
        "config": to_json(sweep),
    }


def check_attention(sweep: SweepConfig, base: Mapping[str, Any], *, gpus: float) -> list[str]:
    """A warning where the base has more than PyTorch's variable-length attention computes."""
    special = special_attention(base)
    if not special or not gpus or sweep.trial.attention is not None:
        return []
    return [
        f"the base has {special}, which varlen attention does not compute: trials take "
        "FlashAttention where it is installed, else sdpa, which is slower"
    ]


def check_references(sweep: SweepConfig, prompts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning where the metric holds answers against references that are longer than answers may
    be. `prompts` are a manifest's."""
    lengths = [prompt["reference_tokens"] for prompt in prompts[: sweep.num_metric_prompts]]
    longer = sum(length > ANSWER_TOKENS for length in lengths)
    if sweep.metric is None or not longer:
        return []
    return [
        f"{sweep.metric}: {longer} of {len(lengths)} references ({100 * longer / len(lengths):.0f} "
        f"%) are longer than the {ANSWER_TOKENS} tokens of an answer (median "
        f"{statistics.median(lengths):g}, longest {max(lengths):,}), so answers are cut off before "
        "what they are scored by; take references that fit (data.eval_source), or compare trials "
        "by eval_loss"
    ]


def _memory(
    sweep: SweepConfig,
    base: Mapping[str, Any],
    bank: BankSettings | None,
    fit: DeviceFit,
    gpu_memory: float | None,
) -> dict[str, float] | None:
    """GiB at the peak of a step, what for, and of how many; None where that is not known."""
    shape = ModelShape.of(base)
    if gpu_memory is None or shape is None:
        return None
    if bank is not None:
        needed = bank_memory(bank, sweep, base)
    else:
        trials = [sweep.trial.at({"lora_r": int(r)}) for r in reachable(sweep, "lora_r")]
        trial = [trial for trial in trials if not fit.too_large(trial)][-1]
        needed = train_memory(shape, trial, sweep.data.max_length, fit.execution)
    parts = asdict(needed) | {"total": needed.total, "gpu": gpu_memory}
    return {name: value / 2**30 for name, value in parts.items()}


def _usual_gpus(sweep: SweepConfig, base: Mapping[str, Any], trainer: str) -> list[str]:
    """How the sweep's trials would run on GPUs of usual sizes."""
    found = []
    for name, gib in USUAL_GPUS.items():
        memory = gib * 2**30
        bank = choose_settings(sweep, base, memory=memory) if trainer == "bank" else None
        execution = bank.execution if bank else choose_execution(sweep, base, memory=memory)
        if execution is None:
            found.append(f"{name} does not fit")
            continue
        rows = f"{execution.micro_batch_size} row{'s' * (execution.micro_batch_size > 1)}"
        slots = f"{bank.slots} slots × " if bank else ""
        how = ", checkpointing" if execution.activation_checkpointing else ""
        found.append(f"{name} {slots}{rows}{how}")
    return found


def _shape(
    config: TrialConfig, planned: TrialPlan, counts: dict[str, Any], rows: int
) -> dict[str, Any]:
    tokens_per_row = counts["train"]["tokens"] / max(rows, 1)
    first = planned.rungs[0].rows if planned.rungs else planned.rows
    return {
        "effective_batch_size": config.effective_batch_size,
        "micro_batch_size": planned.micro_batch_size,
        "accumulation": planned.accumulation,
        "num_workers": config.num_workers,
        "num_train_epochs": config.num_train_epochs,
        "steps": planned.steps,
        "warmup_steps": planned.warmup_steps,
        "rows": planned.rows,
        "rows_dropped": planned.rows_dropped,
        "tokens": round(planned.rows * tokens_per_row),
        "tokens_to_first_rung": round(first * tokens_per_row),
        "rungs": [{"rows": rung.rows, "step": rung.step} for rung in planned.rungs],
        "evaluations": len(planned.eval_steps),
    }
