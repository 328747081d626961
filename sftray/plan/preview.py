"""What a sweep would do, before anything is started: `--plan`.

Promise: no ray and no torch; exact where packs exist, else estimated from a sample and labelled so.
The dataset is opened once, and one sample of it is tokenised once. Price: under 3 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from sftray.config import SweepConfig
from sftray.config.config_json import to_json
from sftray.config.points import Point, reachable
from sftray.config.shares import at_shares, source_of
from sftray.config.sweep_config import BUDGETS
from sftray.data.estimate import estimate_packs
from sftray.data.packs.manifest import Drawn, Estimate, Manifest, counts_of, drawn_from
from sftray.data.packs.packs import Packs
from sftray.data.recipe import Recipe, find_packs, make_recipe
from sftray.plan import preflight
from sftray.plan.bank_settings import BankSettings, bank_memory, choose_settings
from sftray.plan.device_fit import DeviceFit, choose_execution, fit_train
from sftray.plan.disk import Disk, disk_needed, require_space
from sftray.plan.duration import Devices, Duration
from sftray.plan.experts_text import experts_text
from sftray.plan.gpu_speed import Speed, gpu_speed
from sftray.plan.identities import identities
from sftray.plan.memory import Memory, train_memory
from sftray.plan.model_shape import ModelShape
from sftray.plan.precision_advice import advice_text, advised_precision
from sftray.plan.prior_points import prior_points
from sftray.plan.rungs import Ladders, rung_ladders
from sftray.plan.trainer_choice import pick_trainer, without_bank
from sftray.plan.trial_plan import planner, resolve_batch_sizes
from sftray.plan.trial_shape import TrialShape
from sftray.storage.model_files import BaseConfig
from sftray.storage.paths import SweepPaths

USUAL_GPUS = {"24 GB": 23.6, "48 GB": 44.4, "80 GB": 79.1, "141 GB": 139.8}
"""GiB that cards sold under these names have."""
NO_FIT = "does not fit"
AT_ONCE = 8
"""Trials at a time where that is up to the cluster."""


@dataclass(frozen=True)
class Preview:
    """Everything that `--plan` shows."""

    sweep: SweepConfig
    """With the batch sizes that are searched."""
    data: Packs | Estimate
    """An estimate where there are no packs."""
    trainer: str
    why_trainer: str
    bank: BankSettings | None
    gpu_memory: float | None
    """Bytes that a GPU has; None on CPUs."""
    precision: str | None
    """What the base is held in, and what is advised; None where the GPU is not known."""
    experts: str | None
    """How they are held and what is adapted; None of a dense base."""
    memory: Memory | None
    """At the peak of a step; None on CPUs, or where it is not known."""
    gpus: Mapping[str, str]
    """How trials would run on GPUs of usual sizes."""
    first: Sequence[Point]
    """Where the search begins."""
    rungs: Ladders
    """In rows."""
    shapes: Sequence[TrialShape]
    gpu_name: str
    """As its driver calls it; empty on CPUs, and where it is not known."""
    devices: Devices
    speed: Speed | None
    """Of each device; None where nothing is known of it."""
    disk: Disk
    warnings: Sequence[str]
    refusals: Sequence[str]
    """Why the sweep would not start."""

    @property
    def starts(self) -> bool:
        return not self.refusals

    @property
    def packs(self) -> str | None:
        """Their folder, where they exist."""
        return self.data.root if isinstance(self.data, Packs) else None

    @property
    def manifest(self) -> Manifest | Estimate:
        return self.data.manifest if isinstance(self.data, Packs) else self.data

    def tokens(self) -> tuple[int, int]:
        """Tokens that all trials train on if all stop at the first rung, and if none does; points
        that are run again do not stop."""
        again = self.sweep.confirm_top * self.sweep.confirm_seeds
        whole = [shape.tokens for shape in self.shapes]
        first = min(shape.tokens_to_first_rung for shape in self.shapes)
        trials = self.sweep.total_trials
        return trials * first + again * min(whole), (trials + again) * max(whole)

    def drawn(self, point: Point) -> list[Drawn]:
        """What a trial at a point takes of each of several sources."""
        mixture = at_shares(self.sweep.data.mixture, self.sweep.trial.at(point).mixture)
        return drawn_from(self.manifest["splits"]["train"], mixture)

    def share_ends(self) -> dict[str, tuple[Point, Point]]:
        """The axes that are a source's share, with its least and its greatest."""
        axes = {*self.sweep.search_space, *(name for point in self.sweep.points for name in point)}
        shares = {name: reachable(self.sweep, name) for name in sorted(axes) if source_of(name)}
        return {name: ({name: min(of)}, {name: max(of)}) for name, of in shares.items()}

    @property
    def duration(self) -> Duration | None:
        """None where the speed is not known."""
        if self.speed is None:
            return None
        rows = self.manifest["splits"]["eval"]["rows"]
        return Duration.of(self.sweep, self.shapes, rows, self.devices, self.speed)

    @property
    def cost(self) -> tuple[float, float] | None:
        """The least and the most; None without a duration, a price or GPUs."""
        price, duration = self.sweep.price_per_gpu_hour, self.duration
        if price is None or duration is None or self.gpu_memory is None:
            return None
        return duration.cost(self.devices.number * self.sweep.trial.num_workers, price)

    def to_json(self) -> dict[str, object]:
        """What `--plan --json` prints."""
        sweep, splits, memory = self.sweep, self.manifest["splits"], self.memory
        sample = None
        if not isinstance(self.data, Packs):
            sample = {"sampled": self.data["sampled"], "read": self.data["read"]}
        parts = {**asdict(memory), "total": memory.total, "gpu": self.gpu_memory} if memory else {}
        least, most = self.tokens()
        return {
            "sweep": sweep.name,
            "exact": sample is None,
            "sample": sample,
            "packs": self.packs,
            "data": counts_of(self.manifest),
            "dropped": {
                split: {
                    "rows": of["read"],
                    "reasons": of["dropped"],
                    "examples": of["examples"],
                    "unread": of["unread"],
                    "spelled": of["spelled"],
                    "thoughts": of["thoughts"],
                }
                for split, of in splits.items()
            },
            "overlaps": self.manifest["overlaps"],
            "sources": self.drawn({}),
            "shares": {name: [*map(self.drawn, ends)] for name, ends in self.share_ends().items()},
            "padding": {name: size for name, size in splits["train"].items() if "waste" in name},
            "trials": sweep.total_trials,
            "confirm": {"top": sweep.confirm_top, "seeds": sweep.confirm_seeds},
            "trainer": self.trainer,
            "why_trainer": self.why_trainer,
            "bank": asdict(self.bank) if self.bank else None,
            "precision": self.precision,
            "experts": self.experts,
            "memory": {name: size / 2**30 for name, size in parts.items()} or None,
            "gpus": self.gpus,
            "first": self.first,
            "rungs": {f"{epochs:g} epochs": rows for epochs, rows in self.rungs.items()},
            "scheduler": sweep.scheduler,
            "reduction_factor": sweep.reduction_factor if self.rungs else None,
            "shapes": [shape.to_json() for shape in self.shapes],
            "tokens": {"most": most, "least": least},
            "seconds": asdict(self.duration) if self.duration else None,
            "cost": dict(zip(("least", "most"), self.cost, strict=True)) if self.cost else None,
            "speed": asdict(self.speed) if self.speed else None,
            "gpu": {"name": self.gpu_name, "number": self.devices.number},
            "budgets": {name: getattr(sweep, name) for name in BUDGETS},
            "disk": {**asdict(self.disk), "total": self.disk.total},
            "warnings": self.warnings,
            "refusals": self.refusals,
            "starts": self.starts,
            "config": to_json(sweep),
        }


def make_plan(
    asked: SweepConfig,
    *,
    gpu_memory: float | None,
    capability: float | None = None,
    gpu_name: str = "",
    gpus: int = 1,
    estimate: Estimate | None = None,
) -> Preview:
    """What the sweep would do on so many GPUs of so many bytes; None for CPUs. `capability`: their
    compute capability, `gpu_name`: as their driver calls them, where these are known. `estimate`:
    of the sweep's data, from whoever has looked at them.

    Raises ConfigError where a point of the search could not run.
    """
    asked = preflight.absolute(asked)
    refusals = [*preflight.refused(partial(preflight.require_place, asked))]
    base = preflight.checked_base(asked)
    data, differs = _look(asked) if estimate is None else (estimate, [])
    refusals += differs
    manifest = data.manifest if isinstance(data, Packs) else data
    train = manifest["splits"]["train"]
    sweep = resolve_batch_sizes(asked, train["rows"])
    trainer, why, bank = _trainer(sweep, base, gpu_memory, gpus)
    fit = (
        DeviceFit(bank.execution, at_once=bank.slots)
        if bank
        else fit_train(sweep, base, gpu_memory)
    )
    plan = planner(sweep, train["rows"], execution=fit.execution)
    per_row = train["tokens"] / max(train["rows"], 1)
    disk_of = partial(disk_needed, sweep, base, counts_of(manifest))
    folder = SweepPaths.of(sweep.storage, sweep.name).root
    refusals += preflight.refusals(sweep.data, manifest)
    least = disk_of(at_once=fit.at_once)
    refusals += preflight.refused(partial(require_space, sweep, least, folder))
    warnings = [*preflight.check_code(sweep.trial)]
    warnings += preflight.check_sweep(sweep, manifest, base, plan, gpus=gpu_memory is not None)
    warnings += [*preflight.check_ranks(sweep, fit), *preflight.check_batch_sizes(asked, sweep)]
    return Preview(
        sweep=sweep,
        data=data,
        trainer=trainer,
        why_trainer=why,
        bank=bank,
        gpu_memory=gpu_memory,
        precision=_precision(sweep, base, gpu_memory, capability),
        experts=experts_text(base, sweep.trial),
        memory=_memory(sweep, base, bank, fit, gpu_memory),
        gpus=_usual_gpus(sweep, base, trainer),
        first=prior_points(sweep, base),
        rungs=rung_ladders(sweep, train["rows"]),
        shapes=[TrialShape(one, plan(one), per_row) for one in preflight.shape_corners(sweep)],
        gpu_name=gpu_name,
        devices=Devices(max(1, gpus // sweep.trial.num_workers), bank.slots if bank else 1),
        speed=gpu_speed(ModelShape.of(base), sweep.trial, fit.execution, gpu_name, bank=bool(bank)),
        disk=disk_of(at_once=bank.slots if bank else AT_ONCE),
        warnings=warnings,
        refusals=refusals,
    )


def _look(sweep: SweepConfig) -> tuple[Packs | Estimate, list[str]]:
    """The packs or an estimate of them, and whether they are another start's."""
    recipe = _recipe(sweep)
    data = find_packs(recipe, storage=sweep.storage) or estimate_packs(recipe)
    same = partial(preflight.require_same, sweep, lambda: identities(recipe))
    return data, [*preflight.refused(same)]


def _recipe(sweep: SweepConfig) -> Recipe:
    trial = sweep.trial
    return make_recipe(
        sweep.data,
        trial.model,
        revision=trial.model_revision,
        trust_remote_code=trial.trust_remote_code,
    )


def _trainer(
    sweep: SweepConfig, base: BaseConfig, memory: float | None, gpus: int
) -> tuple[str, str, BankSettings | None]:
    """The trainer, why, and what a bank is built for."""
    trainer, why = pick_trainer(sweep, base)
    bank = None
    if trainer == "bank":
        bank = choose_settings(sweep, base, memory=memory, banks=gpus)
    if trainer == "bank" and bank is None:
        trainer, why = without_bank(sweep)
    return trainer, why, bank


def _memory(
    sweep: SweepConfig,
    base: BaseConfig,
    bank: BankSettings | None,
    fit: DeviceFit,
    gpu_memory: float | None,
) -> Memory | None:
    """Of the largest trial that can run, or of a bank."""
    shape = ModelShape.of(base)
    if gpu_memory is None or shape is None:
        return None
    if bank is not None:
        return bank_memory(bank, sweep, base)
    trials = [sweep.trial.at({"lora_r": int(r)}) for r in reachable(sweep, "lora_r")]
    trial = [trial for trial in trials if not fit.too_large(trial)][-1]
    return train_memory(shape, trial, sweep.data.max_length, fit.execution)


def _precision(
    sweep: SweepConfig, base: BaseConfig, memory: float | None, capability: float | None
) -> str | None:
    if memory is None or capability is None:
        return None
    advised = advised_precision(sweep, base, memory=memory, capability=capability)
    return advice_text(sweep, advised)


def _usual_gpus(sweep: SweepConfig, base: BaseConfig, trainer: str) -> dict[str, str]:
    """How the sweep's trials would run on GPUs of usual sizes."""
    texts = {}
    for name, gib in USUAL_GPUS.items():
        memory = gib * 2**30
        bank = choose_settings(sweep, base, memory=memory) if trainer == "bank" else None
        execution = bank.execution if bank else choose_execution(sweep, base, memory=memory)
        if execution is None:
            texts[name] = NO_FIT
            continue
        rows = f"{execution.micro_batch_size} row{'s' * (execution.micro_batch_size > 1)}"
        slots = f"{bank.slots} slots × " if bank else ""
        again = ", checkpointing" if execution.activation_checkpointing else ""
        texts[name] = f"{slots}{rows}{again}"
    return texts
