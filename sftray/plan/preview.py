"""What a sweep would do, before anything is started: `--plan`, and the checks that a start shares.

Promise: no ray and no torch; exact where packs exist, else estimated from a sample and labelled so.
Price: under 3 s.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sftray.config import DataConfig, SweepConfig, TrialConfig, Uniform
from sftray.config.config_json import to_json
from sftray.config.points import point_text
from sftray.config.resume_check import refuse_other_config
from sftray.config.sweep_config import BUDGETS
from sftray.data.packs.manifest import Overlap, counts_of, reasons_text
from sftray.data.padding import padding_text
from sftray.errors import ConfigError
from sftray.metrics import ANSWER_TOKENS
from sftray.plan.bank_settings import BankSettings, bank_memory, choose_settings
from sftray.plan.base_config import require_attention, special_attention
from sftray.plan.device_fit import Fit, fit_train
from sftray.plan.disk import disk_needed, free_space
from sftray.plan.memory import Shape, choose_execution, memory_text, train_memory
from sftray.plan.prior_points import prior_points, published_rates
from sftray.plan.trainer_choice import pick_trainer, without_bank
from sftray.plan.trial_plan import (
    FEW_STEPS,
    MIN_STEPS,
    TrialPlan,
    field_values,
    fit_batch_sizes,
    planner,
    rung_ladder,
)
from sftray.storage.paths import SweepPaths

USUAL_GPUS = {"24 GB": 23.6, "48 GB": 44.4, "80 GB": 79.1, "141 GB": 139.8}
"""GiB that cards sold under these names have."""
_WOULD_NOT_START = ": the sweep would not start"
_PADDING = ("waste", "waste_padded", "waste_longest")
HIGH_RATE, BEARS_HIGH_RATES = 2e-4, 1e8
"""A learning rate above which full fine-tuning seldom wants to be; bases of fewer parameters do."""
FEW_SUPERVISED = 1000
"""Trained tokens of an evaluation set below which its loss is a warning in the plan."""


AT_ONCE = 8
"""Trials at a time where that is up to the cluster."""


def make_plan(sweep: SweepConfig, *, gpu_memory: float | None) -> dict[str, Any]:
    """Everything `--plan` shows, as JSON values, for GPUs of so many bytes; None for CPUs.

    Raises ConfigError where a point of the search could not run.
    """
    from sftray.data.chat.tokenizer import model_config, require_safetensors
    from sftray.data.packs.packs import estimate_packs, find_packs

    data, trial, asked = sweep.data, sweep.trial, sweep
    where: dict[str, Any] = {
        "model_revision": trial.model_revision,
        "trust_remote_code": trial.trust_remote_code,
    }
    packs = find_packs(data, trial.model, storage=sweep.storage, **where)
    manifest = packs.manifest if packs else estimate_packs(data, trial.model, **where)
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
    fit = Fit(bank.execution) if bank else fit_train(sweep, base, gpu_memory)
    plan = planner(sweep, rows, execution=fit.execution)
    overlap = Overlap.of(manifest)
    refused = _bad_rows(data, counts)
    refused += [overlap.refusal() + _WOULD_NOT_START] if overlap and overlap.refused else []
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
        "sample": None if packs else {name: manifest[name] for name in ("sampled", "read")},
        "packs": packs.root if packs else None,
        "data": counts_of(manifest),
        "dropped": {split: _drops(counts[split]) for split in ("train", "eval")},
        "overlap": asdict(overlap) if overlap else None,
        "padding": {name: counts["train"][name] for name in _PADDING},
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


def check_code(trial: TrialConfig) -> list[str]:
    """A warning where foreign code would run."""
    if not trial.trust_remote_code:
        return []
    pinned = f"at {trial.model_revision}" if trial.model_revision else "at whatever it is today"
    return [
        f"trust_remote_code is on: Python code of {trial.model}, {pinned}, runs here and on every "
        "worker, with all that they may do; read it, and pin trial.model_revision"
    ]


def check_plans(sweep: SweepConfig, plan: Callable[[TrialConfig], TrialPlan]) -> list[str]:
    """Warnings; ConfigError where a point that the search could suggest cannot run."""
    warnings = []
    for config in shape_corners(sweep):
        planned = plan(config)
        if planned.steps < FEW_STEPS:
            warnings.append(
                f"effective_batch_size {config.effective_batch_size} at "
                f"{config.num_train_epochs:g} epochs gives {planned.steps} optimizer steps; fewer "
                f"than {FEW_STEPS} are a noisy comparison"
            )
    return warnings


def check_ranks(sweep: SweepConfig, fit: Fit) -> list[str]:
    """A warning where the search could suggest ranks that do not fit the memory."""
    trials = [sweep.trial.at({"lora_r": int(rank)}) for rank in _reachable(sweep, "lora_r")]
    reasons = [reason for trial in trials if (reason := fit.too_large(trial))]
    if not reasons:
        return []
    return [f"{len(reasons)} of {len(trials)} ranks would not be trained: {reasons[0]}"]


def check_budgets(sweep: SweepConfig, *, gpus: float) -> list[str]:
    """A warning where a budget of GPU time will never be spent."""
    never = [name for name in ("max_gpu_hours", "max_cost") if getattr(sweep, name) is not None]
    if gpus or not never:
        return []
    return [
        f"{' and '.join(never)} never end{'s' * (len(never) == 1)} this sweep, for it runs on CPUs "
        "and no GPU is paid for; max_hours does"
    ]


def check_batch_sizes(asked: SweepConfig, fitted: SweepConfig) -> list[str]:
    """A warning where too few of the batch sizes that were asked for leave enough steps, so that
    others were taken."""
    sizes = field_values(fitted, "effective_batch_size") or []
    wanted = field_values(asked, "effective_batch_size") or []
    if set(sizes) <= set(wanted):
        return []
    return [
        f"batch sizes {_listed(wanted)} leave fewer than {MIN_STEPS} steps on so few rows; "
        f"{_listed(sizes)} are searched instead. A shorter data.max_length makes more rows"
    ]


def check_name(sweep: SweepConfig) -> list[str]:
    """A warning where the start would be refused, for a sweep of this name is there."""
    try:
        refuse_other_config(sweep, SweepPaths.of(sweep.storage, sweep.name))
    except ConfigError as error:
        return [str(error)]
    return []


def check_rates(sweep: SweepConfig, base: Mapping[str, Any]) -> list[str]:
    """A warning where the learning rates are not those of such a base: none of LoRA's that are
    published for its size, or, in full fine-tuning, all above what only small bases bear."""
    shape, values = Shape.of(base), _reachable(sweep, "learning_rate")
    if sweep.trial.finetune == "lora":
        published = published_rates(shape, str(base.get("model_type"))) if shape else []
        if not published or any(min(values) <= rate <= max(values) for rate in published):
            return []
        usual = published[0]
        tried = f"{min(values):.3g}" + (f" … {max(values):.3g}" if len(values) > 1 else "")
        return [
            f"the learning rate published as good for bases of this size is {usual:.2g}, and "
            f"{tried} does not hold it: --set 'search_space.learning_rate="
            f"loguniform({usual / 5:.0e}, {usual * 5:.0e})'"
        ]
    small = shape is not None and shape.parameters < BEARS_HIGH_RATES
    if small or min(values) <= HIGH_RATE:
        return []
    return [
        f"all learning rates are {min(values):.3g} or more; full fine-tuning usually wants 1e-5 … "
        f"5e-5, a tenth of what LoRA wants, and seldom more than {HIGH_RATE:.0e}"
    ]


def check_attention(sweep: SweepConfig, base: Mapping[str, Any], *, gpus: float) -> list[str]:
    """A warning where the base has more than PyTorch's variable-length attention computes."""
    special = special_attention(base)
    if not special or not gpus or sweep.trial.attention is not None:
        return []
    return [
        f"the base has {special}, which varlen attention does not compute: trials take "
        "FlashAttention where it is installed, else sdpa, which is slower"
    ]


def check_evaluation(evaluation: Mapping[str, int]) -> list[str]:
    """A warning where the evaluation set is too small to tell trials apart."""
    supervised = evaluation["supervised_tokens"]
    if supervised >= FEW_SUPERVISED:
        return []
    return [
        f"the evaluation set has {evaluation['conversations']} conversations and {supervised:,} "
        f"trained tokens; fewer than {FEW_SUPERVISED:,} are a noisy comparison: raise "
        "data.eval_fraction, or give data.eval_source"
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


def shape_corners(sweep: SweepConfig) -> list[TrialConfig]:
    """The baseline at every combination of batch size and epochs that the sweep can reach."""
    if sweep.points:
        names = ("effective_batch_size", "num_train_epochs")
        trials = [sweep.trial.at(point) for point in sweep.points]
        shapes = [{name: getattr(trial, name) for name in names} for trial in trials]
        return list(dict.fromkeys(sweep.trial.at(shape) for shape in shapes))
    configs = []
    for batch in _reachable(sweep, "effective_batch_size"):
        for epochs in _reachable(sweep, "num_train_epochs"):
            point = {"effective_batch_size": int(batch), "num_train_epochs": epochs}
            configs.append(sweep.trial.at(point))
    return configs


def plan_text(plan: dict[str, Any]) -> str:
    """The plan for a person to read."""
    data, exact = plan["data"], plan["exact"]
    lines = [
        f"sweep {plan['sweep']}: {plan['trials']} trials{_confirm_text(plan['confirm'])}",
        f"trainer: {plan['trainer']} ({plan['why_trainer']})",
        *([_bank_text(plan["bank"])] if plan["bank"] else []),
        *([_memory_text(plan["memory"])] if plan["memory"] else []),
        f"on other GPUs: {'; '.join(plan['gpus'])}",
        f"data ({'exact, from packs' if exact else _sample_text(plan['sample'])}):",
    ]
    for split in ("train", "eval"):
        counts = data[split]
        lines.append(
            f"  {split:<6}{counts['conversations']:>9,} conversations {counts['rows']:>8,} rows "
            f"{counts['tokens']:>12,} tokens {counts['supervised_tokens']:>12,} supervised"
        )
    lines += [
        *_dropped_text(plan["dropped"]),
        *([_overlap_text(plan["overlap"])] if plan["overlap"] else []),
        padding_text(plan["padding"], plan["config"]["data"]["max_length"]),
        "trials:",
    ]
    for shape in plan["shapes"]:
        lines.append(
            f"  batch {shape['effective_batch_size']:>4} = {shape['micro_batch_size']} micro × "
            f"{shape['accumulation']} accumulation × {shape['num_workers']} workers, "
            f"{shape['num_train_epochs']:g} epochs: {shape['steps']:,} steps "
            f"({shape['warmup_steps']} warm-up), {shape['tokens']:,} tokens, "
            f"{shape['rows_dropped']} rows dropped, judged at {_rung_rows(shape)}"
        )
    if plan["first"]:
        shown = "; ".join(point_text(point) for point in plan["first"])
        lines.append(f"first: {shown} (published as good for bases of this size)")
    if plan["rungs"]:
        rungs = ", ".join(f"{rows:,}" for rows in plan["rungs"])
        lines.append(f"rungs: after {rungs} rows {_judgement(plan)}")
    lines += [
        f"tokens: {plan['tokens']['least']:,} (all stopped at the first rung) to "
        f"{plan['tokens']['most']:,} (none stopped)",
        *_budgets_text(plan["budgets"]),
        _disk_text(plan["disk"]),
        *(f"warning: {warning}" for warning in plan["warnings"]),
    ]
    return "\n".join(lines)


def _sample_text(sample: dict[str, int]) -> str:
    if sample["sampled"] >= sample["read"]:
        return f"estimated from its {sample['read']:,} rows"
    return f"estimated from {sample['sampled']:,} of {sample['read']:,} rows"


def _dropped_text(dropped: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"  {split}: {sum(facts['reasons'].values()):,} of {facts['rows']:,} rows dropped "
        f"({reasons_text(facts['reasons'])})"
        for split, facts in dropped.items()
        if facts["reasons"]
    ]


def _overlap_text(counts: Mapping[str, int]) -> str:
    return Overlap(**counts).text()


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _confirm_text(confirm: dict[str, int]) -> str:
    if not confirm["top"]:
        return "; the best is not confirmed with other seeds (confirm_top=3 does)"
    return (
        f", then the best {confirm['top']} points {confirm['seeds']} times again with new seeds, "
        "to the end"
    )


def _judgement(plan: dict[str, Any]) -> str:
    """What happens at a rung, and who is compared with whom."""
    eta = plan["reduction_factor"]
    alike = "all have seen the same rows"
    if plan["scheduler"] == "none":
        return f"all are evaluated, and none is stopped; {alike}"
    return f"the best 1/{eta} continue, of the trials with the same number of epochs: there {alike}"


def _bank_text(bank: dict[str, Any]) -> str:
    base = "dequantised once" if bank["resident"] else "dequantised in every pass"
    again = ", activation checkpointing" if bank["activation_checkpointing"] else ""
    return (
        f"bank: {bank['slots']} slots × {bank['micro_batch_size']} rows, ranks up to "
        f"{bank['lora_r']}, base {base}{again}"
    )


def _budgets_text(budgets: dict[str, float | None]) -> list[str]:
    given = [f"{name} {value:g}" for name, value in budgets.items() if value is not None]
    if not given:
        return []
    return [
        f"budget: {', '.join(given)}; spent, the sweep ends with what it has, to be gone on with"
    ]


def _disk_text(disk: dict[str, float | None]) -> str:
    parts = " + ".join(
        f"{name} {(disk[name] or 0.0) / 1e9:.2f}" for name in ("packs", "checkpoints", "bundle")
    )
    free = "" if disk["free"] is None else f" of {disk['free'] / 1e9:,.0f} free"
    return f"disk: about {(disk['total'] or 0.0) / 1e9:.2f} GB{free} ({parts})"


def _memory_text(memory: dict[str, Any]) -> str:
    total = f"{memory['total']:.1f} of {memory['gpu']:.0f} GiB"
    return f"memory: {total} a GPU ({memory_text(memory)})"


def _memory(
    sweep: SweepConfig,
    base: Mapping[str, Any],
    bank: BankSettings | None,
    fit: Fit,
    gpu_memory: float | None,
) -> dict[str, float] | None:
    """GiB at the peak of a step, what for, and of how many; None where that is not known."""
    shape = Shape.of(base)
    if gpu_memory is None or shape is None:
        return None
    if bank is not None:
        needed = bank_memory(bank, sweep, base)
    else:
        trials = [sweep.trial.at({"lora_r": int(r)}) for r in _reachable(sweep, "lora_r")]
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


def _rung_rows(shape: dict[str, Any]) -> str:
    rows = [f"{rung['rows']:,}" for rung in shape["rungs"]]
    return f"{', '.join(rows)} rows" if rows else "its end"


def _reachable(sweep: SweepConfig, name: str) -> list[float]:
    """All values of a field, or the ends of its continuous range."""
    values = field_values(sweep, name)
    if values is not None:
        return values
    space = sweep.search_space[name]
    assert isinstance(space, Uniform)
    return [space.low, space.high]


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


def _drops(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a split's own source that were read, or looked at, and the bad ones by reason."""
    return {"rows": facts.get("sampled", facts.get("read", 0)), "reasons": facts["dropped"]}


def _bad_rows(data: DataConfig, splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning for a split whose source has more bad rows than the sweep would start with."""
    warnings = []
    for split in ("train", "eval"):
        dropped, rows = splits[split]["dropped"], _drops(splits[split])["rows"]
        bad = sum(dropped.values())
        if bad > data.max_bad_fraction * rows:
            warnings.append(
                f"{split} data: {bad:,} of {rows:,} rows are bad ({reasons_text(dropped)}), more "
                f"than data.max_bad_fraction = {data.max_bad_fraction:g}{_WOULD_NOT_START}"
            )
    return warnings
