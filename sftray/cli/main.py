"""The command line of every sweep file (`launch`), and `sftray` for what a sweep left behind."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from sftray.cli import commands
from sftray.cli.commands import inspected, say
from sftray.config import SweepConfig
from sftray.config.overrides import override, read_points
from sftray.config.sweep_config import TRAINERS, WANDB_MODES
from sftray.errors import SftrayError, SweepFailedError
from sftray.storage.paths import SweepPaths
from sftray.storage.redact import redact
from sftray.winner import DTYPES


def launch(sweep: SweepConfig, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `sweep` as the command line says; what every sweep file calls last.

    Exit status: 0 when the sweep ended, 1 when no trial finished, 2 for a request that cannot work,
    or where a disk is full or storage away (the same command goes on then), 130 when interrupted
    (it does, too).
    """
    options = _sweep_parser(sweep).parse_args(arguments)
    sys.excepthook = _hook_without_secrets
    sys.exit(_with_plain_errors(lambda: _launch(sweep, options)))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `sftray` command."""
    options = _parser().parse_args(arguments)
    sys.exit(_with_plain_errors(lambda: options.run(options)))


def _launch(sweep: SweepConfig, options: argparse.Namespace) -> int:
    sweep = _overridden(sweep, options)
    if options.plan:
        from sftray.plan.preview import make_plan
        from sftray.plan.preview_text import plan_text

        plan = make_plan(sweep, gpu_memory=_gpu_memory(sweep))
        if plan["packs"] and not options.json:
            say(inspected(plan["packs"], rows=1) + "\n")
        say(json.dumps(plan, indent=1) if options.json else plan_text(plan))
        return 0 if plan["starts"] else 2
    from sftray.storage import files

    # read when ray is imported; each trial is half a dozen processes, and Ray wonders at them
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started")
    from sftray.results import load
    from sftray.results.findings import learn, text
    from sftray.results.leaderboard_text import confirmed_text, table
    from sftray.views.live import shown

    folder = SweepPaths.of(sweep.storage, sweep.name).root
    if options.fresh:
        files.remove_folder(folder)

    try:
        # a debugger and a view do not share a terminal
        with shown(sweep, plain=options.plain or options.local) as log:
            from sftray.sweep.run import run_sweep

            found = run_sweep(sweep, local=options.local, log=log)
    except KeyboardInterrupt:
        with contextlib.suppress(SftrayError):  # it may not have begun
            say("\n" + table(load(folder).leaderboard, top=20))
        raise
    say("\n" + table(found.leaderboard, top=20))
    if confirmed := confirmed_text(found.leaderboard):
        say("\n" + confirmed)
    say("\n" + text(learn(found)))
    kind = "model" if sweep.trial.finetune == "full" else "adapter"
    say(f"\nbest {kind}: {SweepPaths(found.folder).best}   (`sftray best {found.folder}`)")
    return 0


def _overridden(sweep: SweepConfig, options: argparse.Namespace) -> SweepConfig:
    if options.demo:
        from sftray.demo import demo

        sweep = demo(sweep)
    changes: dict[str, Any] = {
        name: value
        for name in ("name", "storage", "num_trials", "trainer", "wandb")
        if (value := getattr(options, name)) is not None
    }
    if options.data:
        # another dataset has other splits
        changes["data"] = dataclasses.replace(
            sweep.data, source=options.data, split="train", revision=None, eval_split=None
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
        description=f"Run the sweep {sweep.name!r}, or go on with it where it stopped."
    )
    add = parser.add_argument
    add(
        "--plan", action="store_true", help="start nothing: show trials, steps, tokens, rungs, disk"
    )
    add("--json", action="store_true", help="with --plan: as JSON")
    add("--demo", action="store_true", help="the bundled base and data; a CPU is enough")
    add(
        "--local", action="store_true", help="one trial at a time in this process; a debugger works"
    )
    add("--data", help="a .jsonl or .parquet path, glob or URI, or a Hub dataset id")
    add("--model", help="the base: a folder or a Hub model id")
    add("--storage", help="folder or s3://, gs:// URI for sweeps and packs")
    add("--name", help="the sweep's folder under --storage")
    add("--num-trials", type=int)
    add("--trainer", choices=TRAINERS)
    add("--wandb", choices=WANDB_MODES)
    add("--plain", action="store_true", help="plain lines on a terminal, too, not the live view")
    add("--points", type=Path, help="run exactly the points in this JSON-lines file")
    add("--fresh", action="store_true", help="delete the sweep of this name first")
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any config field: data.max_length=512, trial.lora_r=8, "
        "'search_space.learning_rate=loguniform(1e-5, 1e-3)'",
    )
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sftray", description="Begin a sweep, and read what it left behind."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        sub = subparsers.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    init = command("init", commands.init, "write a first sweep file for a dataset and a base")
    init.add_argument("file", type=Path, help="a new file, as my_sweep.py")
    init.add_argument(
        "--data", required=True, help="a .jsonl or .parquet path, glob or URI, or a Hub dataset id"
    )
    init.add_argument("--model", required=True, help="the base: a folder or a Hub model id")
    init.add_argument("--split", default="train", help="of a Hub dataset")
    init.add_argument("--gpus", type=int, help="of the cluster, 0: a CPU; else what is here")
    results = command(
        "results",
        commands.results,
        "the leaderboard of a finished or running sweep, and what it learned",
    )
    results.add_argument("dir")
    form = results.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the leaderboard as JSON")
    form.add_argument("--findings", action="store_true", help="what it learned as JSON")
    results.add_argument("--top", type=int, help="show only the best N")
    results.add_argument(
        "-v", "--verdicts", action="store_true", help="also what became of each, and what to do"
    )
    watch = command(
        "watch", commands.watch, "the live view of a sweep that runs elsewhere, from its folder"
    )
    watch.add_argument("dir", help="a sweep's folder or s3://, gs:// URI")
    watch.add_argument("--plain", action="store_true", help="plain lines on a terminal, too")
    report = command(
        "report",
        commands.report,
        "write report.html of a finished or running sweep into its folder",
    )
    report.add_argument("dir")
    best = command("best", commands.best, "the best adapter or model and how to load it")
    best.add_argument("dir")
    best.add_argument("--json", action="store_true")
    merge = command(
        "merge", commands.merge, "merge the best adapter into its unquantised base, and check it"
    )
    merge.add_argument("dir")
    merge.add_argument("out", help="a new folder")
    merge.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
    merge.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of a weights file")
    merge.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        help="eval losses before and after, and what merging into 4-bit would lose; by default the "
        "last only for a base that was held in 4 bits",
    )
    push = command("push", commands.push, "upload the winner to the Hugging Face Hub")
    push.add_argument("dir")
    push.add_argument("--repo", required=True, metavar="USER/NAME", help="made if it is not there")
    push.add_argument("--private", action="store_true", help="if it is made")
    push.add_argument("--merged", action="store_true", help="the model merged with it instead")
    push.add_argument(
        "--with-samples", action="store_true", help="also its answers: text of the dataset"
    )
    push.add_argument("--yes", action="store_true", help="do not ask")
    generate = command(
        "generate", commands.generate, "answer a prompt with the best of a sweep and with its base"
    )
    generate.add_argument("dir")
    generate.add_argument("prompt")
    generate.add_argument("--max-new-tokens", type=int, default=128)
    for loads_the_base in (merge, push, generate):
        loads_the_base.add_argument(
            "--trust-remote-code",
            action="store_true",
            help="run the Python code that the base's repository brings; its sweep's word for it "
            "is not enough",
        )
    inspect = command(
        "inspect", commands.inspect, "the packed rows, with the trained tokens marked"
    )
    inspect.add_argument("dir", help="a sweep's folder, or a pack's")
    inspect.add_argument("--rows", type=int, default=2)
    inspect.add_argument("--json", action="store_true")
    doctor = command(
        "doctor", commands.doctor, "what this machine can do; exit status 1 if that has a problem"
    )
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument("--storage", default=".", help="the local folder for sweeps and packs")
    return parser


def _with_plain_errors(run: Callable[[], int]) -> int:
    """Turn our own errors into a message and an exit status; all others keep their traceback."""
    try:
        return run()
    except SweepFailedError as error:
        sys.stderr.write(redact(f"{error}\n"))
        return 1
    except SftrayError as error:
        sys.stderr.write(redact(f"error: {error}\n"))
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from here\n")
        return 130


def _hook_without_secrets(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A traceback as Python prints it, but for the secrets that libraries put into messages."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _gpu_memory(sweep: SweepConfig) -> float | None:
    """Bytes of this machine's smallest GPU; of an 80 GB one where the GPUs are elsewhere."""
    from sftray.cluster.gpus import smallest_gpu

    if sweep.use_gpu is False:
        return None
    elsewhere = sweep.use_gpu or "RAY_ADDRESS" in os.environ
    return smallest_gpu() or (80e9 if elsewhere else None)
