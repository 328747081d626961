"""How fast this machine trains a sweep's trials, measured for ten seconds: `--probe`.

Promise: the trainer that the sweep takes, with the slots and micro-batch of its plan, on rows of
its data; nothing is written but to a temporary folder. Price: imports and the base's loading come
on top.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from sftray.config import SweepConfig
from sftray.data.packs.packs import Packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe
from sftray.errors import ConfigError
from sftray.plan.effective_batch import Execution
from sftray.plan.gpu_speed import Speed
from sftray.plan.preview import Preview
from sftray.plan.trial_plan import plan_trial
from sftray.trial.progress import StoppedError
from sftray.trial.trial_spec import TrialSpec

if TYPE_CHECKING:
    import torch

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

PROBE_SECONDS, WINDOW_SECONDS = 10.0, 1.0
CONVERSATIONS = 400
"""Of each source, packed for the probe where the sweep has no packs yet."""
STEPS = 20_000
"""More than fit the time."""
SLOWER, FASTER = 0.75, 1.1
"""Of the slower and the faster half of the windows: a sweep shares its machine with Ray."""


def probed(plan: Preview, clock: Callable[[], float] = time.perf_counter) -> Preview:
    """The plan with the speed of this machine. `clock` in seconds. Raises ConfigError where this
    machine is not one that the sweep trains on."""
    sweep, device = plan.sweep, _device(plan)
    if sweep.trial.num_workers > 1:
        must = "must be 1: --probe measures one GPU"
        raise ConfigError(f"trial.num_workers: got {sweep.trial.num_workers}, {must}")
    began = clock()
    with TemporaryDirectory(prefix="sftray-probe-") as folder:
        packs = plan.data if isinstance(plan.data, Packs) else _few_packs(sweep, folder)
        marks = (_bank_marks if plan.bank else _train_marks)(plan, packs, device, folder, clock)
    return replace(plan, speed=speed_of(marks, began))


def speed_of(marks: Sequence[tuple[float, int]], began: float) -> Speed:
    """The speed by what had been trained when: (seconds, positions), the first after what a first
    step takes; it began to load at `began`."""
    rates, (start, before) = [], marks[0]
    for now, positions in marks[1:]:
        if now - start >= WINDOW_SECONDS or now == marks[-1][0]:
            rates.append((positions - before) / (now - start))
            start, before = now, positions
    seconds = marks[-1][0] - marks[0][0]
    rates.sort()
    half = (len(rates) + 1) // 2
    return Speed(
        SLOWER * fmean(rates[:half]),
        FASTER * fmean(rates[-half:]),
        f"measured here in {seconds:.0f} seconds",
        loading=marks[0][0] - began,
    )


def _device(plan: Preview) -> torch.device:
    from sftray.trial.eval_loss import default_device

    device = default_device()
    if plan.gpu_memory is None:
        import torch

        return torch.device("cpu")
    if device.type == "cpu":
        raise ConfigError(
            "--probe: the sweep trains on GPUs, and this machine has none that PyTorch can use",
            "probe on a machine that has one, or leave --probe out",
        )
    return device


def _few_packs(sweep: SweepConfig, folder: str) -> Packs:
    """A few conversations of the sweep's training data, packed in this process."""
    data = replace(
        sweep.data,
        max_conversations=min(CONVERSATIONS, sweep.data.max_conversations or CONVERSATIONS),
        eval_source=None,
        eval_split=None,
        eval_fraction=0.1,
        test_source=None,
        test_split=None,
        test_fraction=0.0,
        max_bad_fraction=1.0,
    )
    trial = sweep.trial
    recipe = make_recipe(
        data,
        trial.model,
        revision=trial.model_revision,
        trust_remote_code=trial.trust_remote_code,
    )
    return packs_from(recipe, storage=folder, each=_here)


def _here(task: Callable[[_Item], _Answer], items: Sequence[_Item]) -> list[_Answer]:
    return [task(item) for item in items]


def _spec(plan: Preview, packs: Packs, folder: str, execution: Execution, number: int) -> TrialSpec:
    """A trial of the sweep's smallest batch that does not end within the time."""
    trial = min((shape.trial for shape in plan.shapes), key=lambda one: one.effective_batch_size)
    rows = packs.rows("train")
    epochs = STEPS * trial.effective_batch_size / rows
    trial = replace(trial, num_train_epochs=epochs, seed=number)
    return TrialSpec(
        trial=f"probe{number}",
        config=trial,
        plan=plan_trial(trial, rows, ladder=(), evals_per_trial=1, execution=execution),
        packs=packs.root,
        folder=str(Path(folder, f"probe{number}")),
        num_samples_generated=0,
    )


def _bank_marks(
    plan: Preview, packs: Packs, device: torch.device, folder: str, clock: Callable[[], float]
) -> list[tuple[float, int]]:
    import torch

    from sftray.trainers.bank.engine import Engine
    from sftray.trainers.bank.frozen_base import load_model

    settings, sweep = plan.bank, plan.sweep
    assert settings is not None
    engine = Engine(load_model(sweep.trial, device), sweep.trial, packs, settings, device)
    for number in range(settings.slots):
        spec = _spec(plan, packs, folder, settings.execution, number)
        engine.admit(engine.prepare(spec, lambda report: None))
    each = settings.slots * settings.micro_batch_size * packs.max_length

    def mark() -> tuple[float, int]:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock(), engine.usage.micro_steps * each

    engine.advance()
    marks = [mark()]
    while marks[-1][0] - marks[0][0] < PROBE_SECONDS:
        until = clock() + WINDOW_SECONDS
        engine.advance()
        while clock() < until:
            engine.advance()
        marks.append(mark())
    return marks


def _train_marks(
    plan: Preview, packs: Packs, device: torch.device, folder: str, clock: Callable[[], float]
) -> list[tuple[float, int]]:
    from sftray.trainers.ray_train.attempts import run_trial

    spec = _spec(plan, packs, folder, plan.shapes[0].plan.execution, 0)
    marks: list[tuple[float, int]] = []
    each = spec.config.effective_batch_size * packs.max_length

    def stepped() -> bool:
        marks.append((clock(), len(marks) * each))
        if len(marks) > 1 and marks[-1][0] - marks[0][0] >= PROBE_SECONDS:
            raise StoppedError
        return False

    with contextlib.suppress(StoppedError):
        run_trial(spec, lambda report: None, device, stepped=stepped)
    return marks
