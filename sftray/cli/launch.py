"""`launch(sweep)`, the last line of every sweep file: its command line, and its run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sftray.cli.commands import inspected, say_results
from sftray.cli.terminal import (
    Stop,
    agreed,
    hook_without_secrets,
    quiet_libraries,
    say,
    say_mistakes_plainly,
    with_plain_errors,
    wrapped,
)
from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.config.checks import require
from sftray.config.overrides import override, read_points
from sftray.config.sweep_config import TRAINERS, WANDB_MODES
from sftray.errors import SftrayError
from sftray.storage.paths import BUNDLED, SweepPaths, beside

if TYPE_CHECKING:
    from sftray.plan.preview import Preview

say_mistakes_plainly()  # who imports `launch` is a sweep file


def launch(sweep: SweepConfig, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `sweep` as the command line says; what every sweep file calls last.

    Exit status: 0 when the sweep ended, 1 when no trial finished, 2 for a request that cannot work,
    or where a disk is full or storage away, 130 after Ctrl-C, 143 after SIGTERM; the same command
    continues.
    """
    require(isinstance(sweep, SweepConfig), "launch", repr(sweep), "a SweepConfig(…)")
    options = _sweep_parser(sweep).parse_args(arguments)
    sys.excepthook = hook_without_secrets
    sys.exit(with_plain_errors(lambda: _launch(sweep, options)))


def demo(options: argparse.Namespace) -> NoReturn:
    """The sweep of `make demo`, from any folder."""
    from sftray.demo import SPACES

    axes = ("learning_rate", "effective_batch_size")
    sweep = SweepConfig(
        "lr_batch",
        DataConfig(f"{BUNDLED}/chats.jsonl"),
        TrialConfig(BUNDLED),
        search_space={name: SPACES[name] for name in axes},
        confirm_top=2,
    )
    launch(sweep, ["--demo", *options.rest])


def train(options: argparse.Namespace) -> NoReturn:
    """The recommended point of a sweep, trained on all its data."""
    from sftray.sweep.last_training import last_training

    sweep = last_training(
        options.dir,
        epochs=options.epochs,
        hold_out=not options.with_held_out,
        trust_remote_code=options.trust_remote_code,
    )
    launch(sweep, options.rest)


def _launch(sweep: SweepConfig, options: argparse.Namespace) -> int:
    sweep = _overridden(_beside_its_file(sweep), options)
    if options.address:
        os.environ["RAY_ADDRESS"] = options.address
    if options.plan:
        return _say_plan(sweep, options)
    # read when ray is imported; each trial is half a dozen processes, and Ray wonders at them
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started")
    from sftray.cluster import ray_watch
    from sftray.results import load
    from sftray.results.leaderboard_text import table
    from sftray.views.live import shown

    paths = SweepPaths.of(sweep.storage, sweep.name)
    folder = paths.root
    if options.fresh and not options.yes:
        _agree_to_delete(paths)

    def last_words() -> None:
        with contextlib.suppress(SftrayError):  # it may not have begun
            say("\n" + table(load(folder).leaderboard, top=20))

    stop = Stop(last_words)
    ray_watch.ask_at_the_end(stop.finish_if_terminated)
    try:
        # a debugger and a view do not share a terminal
        with shown(sweep, plain=options.plain or options.local) as log:
            from sftray.sweep.run import run_sweep

            found = run_sweep(sweep, local=options.local, fresh=options.fresh, log=log)
    except KeyboardInterrupt:
        return stop.finish()
    say("")
    say_results(found)
    kind = "model" if sweep.trial.finetune == "full" else "adapter"
    command = shlex.join(["sftray", "best", found.folder])
    say(f"\nbest {kind}: {SweepPaths(found.folder).best}   (`{command}`)")
    if options.demo and not (options.data or options.model):
        from sftray.cli.demo_answers import say_answers

        say("")
        say_answers(found.folder)
    return 0


def _say_plan(sweep: SweepConfig, options: argparse.Namespace) -> int:
    from sftray.plan.preview_text import plan_text

    plan = _plan(sweep)
    if options.probe:
        from sftray.trainers.probe import probed

        quiet_libraries()
        plan = probed(plan)
    if plan.packs and not options.json:
        say(inspected(plan.packs, rows=1) + "\n", coloured=True)
    say(json.dumps(plan.to_json(), indent=1) if options.json else wrapped(plan_text(plan)))
    return 0 if plan.starts else 2


def _beside_its_file(sweep: SweepConfig) -> SweepConfig:
    """The sweep with relative paths of its file, which hold from every folder."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        return sweep
    folder = Path(file).absolute().parent
    trial = dataclasses.replace(sweep.trial, model=beside(sweep.trial.model, folder))
    data = sweep.data.with_paths(lambda path: beside(path, folder))
    return dataclasses.replace(sweep, data=data, trial=trial)


def _agree_to_delete(paths: SweepPaths) -> None:
    """Ask where finished trials would be lost. Raises SftrayError where the answer is no."""
    from sftray.sweep.fresh import finished_trials

    lost = finished_trials(paths)
    if lost == 0:
        return
    what = "an unreadable journal" if lost is None else f"{lost} finished trial{'s' * (lost > 1)}"
    if not sys.stdin.isatty():
        raise SftrayError(f"--fresh: {paths.root} has {what}", "pass --yes to delete them")
    if not agreed(f"delete {paths.root}, with {what}?"):
        raise SftrayError(f"--fresh: {paths.root} stays", "use --name for a new sweep beside it")


def _overridden(sweep: SweepConfig, options: argparse.Namespace) -> SweepConfig:
    if options.demo:
        from sftray.demo import demo

        sweep = demo(sweep)
    changes = {
        name: value
        for name in ("name", "storage", "num_trials", "trainings", "trainer", "wandb")
        if (value := getattr(options, name)) is not None
    }
    if options.num_trials is not None:
        changes["trainings"] = None
    if options.data:
        # another dataset has other splits
        changes["data"] = dataclasses.replace(
            sweep.data,
            source=options.data,
            sources=(),
            split="train",
            revision=None,
            eval_split=None,
            test_split=None,
        )
    if options.model:
        changes["trial"] = dataclasses.replace(
            sweep.trial, model=options.model, model_revision=None
        )
    if options.points:
        changes["points"] = read_points(options.points)
    sweep = dataclasses.replace(sweep, **changes)
    for assignment in options.set:
        sweep = override(sweep, assignment)
    return sweep


def _sweep_parser(sweep: SweepConfig) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Run the sweep {sweep.name!r}, or continue it where it stopped."
    )
    add = parser.add_argument
    add("--plan", action="store_true", help="start nothing: show steps, tokens, rungs, disk")
    add("--probe", action="store_true", help="with --plan: train for ten seconds to say how long")
    add("--json", action="store_true", help="with --plan: as JSON")
    add("--demo", action="store_true", help="the bundled base and data; a CPU is enough")
    add("--local", action="store_true", help="one trial at a time, here; a debugger works")
    add("--data", help="a .jsonl or .parquet path, glob or URI, or a Hub dataset id")
    add("--model", help="the base: a folder or a Hub model id")
    add("--storage", help="folder or s3://, gs:// URI for sweeps and packs")
    add("--name", help="the sweep's folder under --storage")
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--num-trials", type=int)
    number.add_argument(
        "--trainings", type=float, help="as many trials as cost this many full trainings"
    )
    add("--trainer", choices=TRAINERS)
    add("--wandb", choices=WANDB_MODES)
    add("--plain", action="store_true", help="plain lines on a terminal, too, not the live view")
    add("--points", type=Path, help="run exactly the points in this JSON-lines file")
    add("--address", help="the Ray cluster to join: host:port of its head (or set RAY_ADDRESS)")
    add("--fresh", action="store_true", help="delete the sweep of this name and begin again")
    add("--yes", action="store_true", help="with --fresh: delete without asking")
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any config field: data.max_length=512, trial.lora_r=8, "
        "'search_space.learning_rate=loguniform(1e-5, 1e-3)'",
    )
    return parser


def _plan(sweep: SweepConfig) -> Preview:
    """For this machine's GPUs; for one of 80 GB where the GPUs are elsewhere."""
    from sftray.cluster import gpus
    from sftray.plan.preview import make_plan

    memories = [] if sweep.use_gpu is False else gpus.gpu_memories()
    if memories:
        return make_plan(
            sweep,
            gpu_memory=min(memories),
            capability=gpus.compute_capability(),
            gpu_name=gpus.gpu_name(),
            gpus=len(memories),
        )
    if sweep.use_gpu or (sweep.use_gpu is None and "RAY_ADDRESS" in os.environ):
        return make_plan(sweep, gpu_memory=80e9, gpu_name="H100 (assumed)")
    return make_plan(sweep, gpu_memory=None)
