"""What a sweep would do, before anything is started: `--plan`.

Promise: no ray and no torch; exact where packs exist, else estimated from a sample and labelled so.
The dataset is opened once, and one sample of it is tokenised once. Price: under 3 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sftray.config import SweepConfig, TrialConfig
from sftray.config.config_json import to_json
from sftray.config.points import Point, reachable
from sftray.config.sweep_config import BUDGETS
from sftray.data.estimate import estimate_packs
from sftray.data.packs.manifest import Counts, Estimate, Overlap, counts_of
from sftray.data.packs.packing import Padding
from sftray.data.packs.packs import Packs
from sftray.data.recipe import find_packs, make_recipe
from sftray.plan.bank_settings import BankSettings, bank_memory, choose_settings
from sftray.plan.base_config import require_attention
from sftray.plan.device_fit import DeviceFit, choose_execution, fit_train
from sftray.plan.disk import Disk, disk_needed
from sftray.plan.memory import GpuMemory, train_memory
from sftray.plan.model_shape import ModelShape
from sftray.plan.preflight import (
    Drops,
    check_batch_sizes,
    check_code,
    check_name,
    check_ranks,
    check_sweep,
    refusals,
    shape_corners,
)
from sftray.plan.prior_points import prior_points
from sftray.plan.rungs import rung_ladder
from sftray.plan.trainer_choice import pick_trainer, without_bank
from sftray.plan.trial_plan import TrialPlan, planner, resolve_batch_sizes
from sftray.storage.model_files import BaseConfig, model_config, require_safetensors

USUAL_GPUS = {"24 GB": 23.6, "48 GB": 44.4, "80 GB": 79.1, "141 GB": 139.8}
"""GiB that cards sold under these names have."""
AT_ONCE = 8
"""Trials at a time where that is up to the cluster."""


@dataclass(frozen=True)
class Preview:
    """Everything that `--plan` shows."""

    sweep: str
    exact: bool
    """The data's numbers are those of packs, not of a sample."""
    sample: Looked | None
    """None where packs exist."""
    packs: str | None
    """Their folder."""
    data: Mapping[str, Counts]
    """By split."""
    dropped: Mapping[str, Drops]
    """By split."""
    overlap: Overlap | None
    padding: Padding
    """Of the training data."""
    trials: int
    confirm: Confirm
    trainer: str
    why_trainer: str
    bank: BankSettings | None
    memory: GpuMemory | None
    """None on CPUs, or where it is not known."""
    gpus: Sequence[str]
    """How trials would run on GPUs of usual sizes."""
    first: Sequence[Point]
    """Where the search begins."""
    rungs: Sequence[int]
    """Rows."""
    scheduler: str
    reduction_factor: int | None
    """None without rungs."""
    shapes: Sequence[TrialShape]
    """Trials of each batch size and number of epochs."""
    tokens: TokenRange
    budgets: Mapping[str, float | None]
    disk: Disk
    warnings: Sequence[str]
    starts: bool
    """Whether the sweep would start on these data."""
    config: SweepConfig
    """With the batch sizes that are searched."""

    def to_json(self) -> dict[str, object]:
        """What `--plan --json` prints."""
        disk = {**asdict(self.disk), "total": self.disk.total}
        return {**asdict(self), "disk": disk, "config": to_json(self.config)}


@dataclass(frozen=True)
class Looked:
    """Rows of the training data that were sampled, of all that would be read."""

    sampled: int
    read: int


@dataclass(frozen=True)
class Confirm:
    """How many of the best points are run again, with how many new seeds each."""

    top: int
    seeds: int


@dataclass(frozen=True)
class TokenRange:
    """Tokens that all trials train on."""

    most: int
    """None is stopped."""
    least: int
    """All are stopped at the first rung."""


@dataclass(frozen=True)
class RungPlace:
    """A rung, and the step of a trial at it."""

    rows: int
    step: int


@dataclass(frozen=True)
class TrialShape:
    """What trials of one batch size and number of epochs do."""

    effective_batch_size: int
    micro_batch_size: int
    accumulation: int
    num_workers: int
    num_train_epochs: float
    steps: int
    warmup_steps: int
    rows: int
    rows_dropped: int
    tokens: int
    tokens_to_first_rung: int
    rungs: tuple[RungPlace, ...]
    evaluations: int

    @classmethod
    def of(cls, trial: TrialConfig, plan: TrialPlan, tokens_per_row: float) -> TrialShape:
        first = plan.rungs[0].rows if plan.rungs else plan.rows
        return cls(
            effective_batch_size=trial.effective_batch_size,
            micro_batch_size=plan.micro_batch_size,
            accumulation=plan.accumulation,
            num_workers=trial.num_workers,
            num_train_epochs=trial.num_train_epochs,
            steps=plan.steps,
            warmup_steps=plan.warmup_steps,
            rows=plan.rows,
            rows_dropped=plan.rows_dropped,
            tokens=round(plan.rows * tokens_per_row),
            tokens_to_first_rung=round(first * tokens_per_row),
            rungs=tuple(RungPlace(rung.rows, rung.step) for rung in plan.rungs),
            evaluations=len(plan.eval_steps),
        )


def make_plan(
    asked: SweepConfig, *, gpu_memory: float | None, estimate: Estimate | None = None
) -> Preview:
    """What the sweep would do on GPUs of so many bytes; None for CPUs. `estimate`: of the sweep's
    data, from whoever has looked at them.

    Raises ConfigError where a point of the search could not run.
    """
    source = estimate or _packs_or_estimate(asked)
    packs = source if isinstance(source, Packs) else None
    manifest = source.manifest if isinstance(source, Packs) else source
    train, evaluation = manifest["splits"]["train"], manifest["splits"]["eval"]
    sweep = resolve_batch_sizes(asked, train["rows"])
    base = model_config(sweep.trial.model, sweep.trial.model_revision)
    require_safetensors(sweep.trial.model, sweep.trial.model_revision)
    require_attention(sweep, base)
    trainer, why, bank = _trainer(sweep, base, gpu_memory)
    fit = DeviceFit(bank.execution) if bank else fit_train(sweep, base, gpu_memory)
    plan = planner(sweep, train["rows"], execution=fit.execution)
    per_row = train["tokens"] / max(train["rows"], 1)
    shapes = [TrialShape.of(trial, plan(trial), per_row) for trial in shape_corners(sweep)]
    counts, refused = counts_of(manifest), refusals(sweep.data, manifest)
    warnings = [*check_code(sweep.trial), *refused]
    warnings += check_sweep(sweep, manifest, base, plan, gpus=gpu_memory is not None)
    warnings += [*check_ranks(sweep, fit), *check_batch_sizes(asked, sweep), *check_name(asked)]
    ladder = rung_ladder(sweep, train["rows"])
    return Preview(
        sweep=sweep.name,
        exact=packs is not None,
        sample=None if isinstance(source, Packs) else Looked(source["sampled"], source["read"]),
        packs=packs.root if packs else None,
        data=counts,
        dropped={"train": Drops.of(train), "eval": Drops.of(evaluation)},
        overlap=Overlap.of(manifest),
        padding=Padding(
            waste=train["waste"],
            waste_padded=train["waste_padded"],
            waste_longest=train["waste_longest"],
        ),
        trials=sweep.total_trials,
        confirm=Confirm(sweep.confirm_top, sweep.confirm_seeds),
        trainer=trainer,
        why_trainer=why,
        bank=bank,
        memory=_memory(sweep, base, bank, fit, gpu_memory),
        gpus=_usual_gpus(sweep, base, trainer),
        first=prior_points(sweep, base),
        rungs=ladder,
        scheduler=sweep.scheduler,
        reduction_factor=sweep.reduction_factor if ladder else None,
        shapes=shapes,
        tokens=_tokens(sweep, shapes),
        budgets={name: getattr(sweep, name) for name in BUDGETS},
        disk=disk_needed(sweep, base, counts, at_once=bank.slots if bank else AT_ONCE),
        warnings=warnings,
        starts=not refused,
        config=sweep,
    )


def _packs_or_estimate(sweep: SweepConfig) -> Packs | Estimate:
    trial = sweep.trial
    recipe = make_recipe(
        sweep.data,
        trial.model,
        revision=trial.model_revision,
        trust_remote_code=trial.trust_remote_code,
    )
    return find_packs(recipe, storage=sweep.storage) or estimate_packs(recipe)


def _trainer(
    sweep: SweepConfig, base: BaseConfig, memory: float | None
) -> tuple[str, str, BankSettings | None]:
    """The trainer, why, and what a bank is built for."""
    trainer, why = pick_trainer(sweep, base)
    bank = choose_settings(sweep, base, memory=memory) if trainer == "bank" else None
    if trainer == "bank" and bank is None:
        trainer, why = without_bank(sweep)
    return trainer, why, bank


def _tokens(sweep: SweepConfig, shapes: Sequence[TrialShape]) -> TokenRange:
    """Points that are run again are not stopped."""
    again = sweep.confirm_top * sweep.confirm_seeds
    whole = [shape.tokens for shape in shapes]
    first = min(shape.tokens_to_first_rung for shape in shapes)
    return TokenRange(
        most=(sweep.total_trials + again) * max(whole),
        least=sweep.total_trials * first + again * min(whole),
    )


def _memory(
    sweep: SweepConfig,
    base: BaseConfig,
    bank: BankSettings | None,
    fit: DeviceFit,
    gpu_memory: float | None,
) -> GpuMemory | None:
    """Of the largest trial that can run, or of a bank."""
    shape = ModelShape.of(base)
    if gpu_memory is None or shape is None:
        return None
    if bank is not None:
        return GpuMemory.of(bank_memory(bank, sweep, base), gpu_memory)
    trials = [sweep.trial.at({"lora_r": int(r)}) for r in reachable(sweep, "lora_r")]
    trial = [trial for trial in trials if not fit.too_large(trial)][-1]
    needed = train_memory(shape, trial, sweep.data.max_length, fit.execution)
    return GpuMemory.of(needed, gpu_memory)


def _usual_gpus(sweep: SweepConfig, base: BaseConfig, trainer: str) -> list[str]:
    """How the sweep's trials would run on GPUs of usual sizes."""
    texts = []
    for name, gib in USUAL_GPUS.items():
        memory = gib * 2**30
        bank = choose_settings(sweep, base, memory=memory) if trainer == "bank" else None
        execution = bank.execution if bank else choose_execution(sweep, base, memory=memory)
        if execution is None:
            texts.append(f"{name} does not fit")
            continue
        rows = f"{execution.micro_batch_size} row{'s' * (execution.micro_batch_size > 1)}"
        slots = f"{bank.slots} slots × " if bank else ""
        again = ", checkpointing" if execution.activation_checkpointing else ""
        texts.append(f"{name} {slots}{rows}{again}")
    return texts
