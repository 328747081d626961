"""What the `sftray` commands do, one function each; they import what they need when they run."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sftray.cli.terminal import quiet_libraries, say, wrapped
from sftray.errors import SftrayError
from sftray.storage.paths import BUNDLED, PacksPaths, SweepPaths, resolved, seen_from, with_bundled

SHOWN_TRIALS = 12
"""Of a leaderboard, so that it fits a screen with what stands around it."""

if TYPE_CHECKING:
    from sftray.plan.preview import Preview
    from sftray.results import Results


def list_sweeps(options: argparse.Namespace) -> int:
    from sftray.results.listing import listing

    say(listing(options.storage))
    return 0


def results(options: argparse.Namespace) -> int:
    from sftray.results import compare, load
    from sftray.results.findings import learn, text

    sweeps = [load(folder) for folder in options.dirs]
    if options.optuna:
        from sftray.views.tracking.optuna_study import write_studies

        names = write_studies(sweeps, options.optuna)
        show = shlex.join(["optuna-dashboard", f"sqlite:///{options.optuna}"])
        say(f"wrote {', '.join(names)} into {options.optuna}; to look at it: {show}")
    elif options.csv:
        say(csv_of(sweeps))
    elif options.json:
        values = [learn(one).to_json() if options.findings else one.leaderboard for one in sweeps]
        say(json.dumps(values if len(values) > 1 else values[0], indent=1))
    else:
        for one in sweeps:
            if len(sweeps) > 1:
                say(f"{one.folder}\n")
            if options.findings:
                say(text(learn(one)))
            else:
                say_results(one, top=options.top, verbose=options.verbose)
            if len(sweeps) > 1:
                say("")
        if len(sweeps) > 1:
            say(compare(*sweeps).to_string(index=False))
    return 0


def csv_of(sweeps: Sequence[Results]) -> str:
    """One row a trial, the sweep's name in the first column."""
    import pandas as pd

    tables = [one.trials.assign(sweep=one.config.name) for one in sweeps]
    table = pd.concat(tables)
    return str(table[["sweep", *table.columns.drop("sweep")]].to_csv(index=False)).rstrip("\n")


def say_results(found: Results, *, top: int = SHOWN_TRIALS, verbose: bool = False) -> None:
    """The answer, the leaderboard and one piece of advice; if `verbose` what repetitions say, the
    losses by kind of token, and what is wrong with trials."""
    from sftray.results import leaderboard_text
    from sftray.results.findings import advice, answer, learn
    from sftray.results.loss_by_kind import kinds_text

    board, learned = found.leaderboard, learn(found)
    say(f"{answer(learned)}\n\n{leaderboard_text.table(board, top=top)}")
    energy = leaderboard_text.energy_text(board)
    more = [
        leaderboard_text.confirmed_text(board),
        kinds_text(board),
        energy and f"energy: {energy}",
    ]
    more = [*more, leaderboard_text.verdicts(board, top=top)] if verbose else []
    for part in filter(None, more):
        say(f"\n{part}")
    say(f"\n{advice(learned)}")
    if not verbose:
        name = shlex.quote(found.folder)
        say(f"  more: sftray results {name} -v, or --findings")


def audit(options: argparse.Namespace) -> int:
    """Every decision and draw of the journal, made again; 1 where one differs."""
    from sftray.results.audit import audit as audited

    found = audited(options.dir)
    say(json.dumps(asdict(found), indent=1) if options.json else str(found))
    return int(bool(found.differences))


def watch(options: argparse.Namespace) -> int:
    """The live view of a sweep that runs elsewhere."""
    from sftray.results import load
    from sftray.results.leaderboard_text import table
    from sftray.views.live import watch as watched

    with contextlib.suppress(KeyboardInterrupt):  # the sweep is not ours
        watched(options.dir, plain=options.plain)
    say("\n" + table(load(options.dir).leaderboard, top=20))
    return 0


def report(options: argparse.Namespace) -> int:
    from sftray.views.report.report import write_report

    say(write_report(options.dir))
    return 0


def init(options: argparse.Namespace) -> int:
    """A first sweep file for a dataset and a base."""
    from sftray.cluster.gpus import gpu_memories, gpu_name
    from sftray.config.sweep_file import as_file
    from sftray.plan.preview_text import time_text
    from sftray.plan.proposal import propose

    file: Path = options.file
    if file.exists():
        raise SftrayError(f"{file}: this file exists", "name a new one")
    if not file.absolute().parent.is_dir():
        raise SftrayError(f"{file}: there is no folder {file.parent}", "make it, or name another")
    memories = gpu_memories()
    gpus = len(memories) if options.gpus is None else options.gpus
    if gpus < 0:
        raise SftrayError(f"--gpus: got {gpus}, must be at least 0", "0 is a CPU")
    if file.suffix != ".py":
        got = file.suffix or "no ending"
        raise SftrayError(f"{file}: got {got!r}, must end on .py", f"write {file.stem}.py")
    found = propose(
        file.stem,
        [with_bundled(one) for one in options.data],
        with_bundled(options.model),
        split=options.split,
        chat_template=options.chat_template,
        gpus=gpus,
        gpu_memory=min(memories, default=None),
        gpu_name=gpu_name() if gpus else "",
        minutes=options.minutes,
        price=options.price_per_gpu_hour,
        measure=partial(_measured, options),
    )
    trial = replace(found.sweep.trial, model=seen_from(found.sweep.trial.model, file.parent))
    data = found.sweep.data.with_paths(lambda path: seen_from(path, file.parent))
    sweep = replace(found.sweep, data=data, trial=trial)
    text = as_file(sweep, found.says, found.reasons).replace(with_bundled(BUNDLED), BUNDLED)
    file.write_text(text, encoding="utf-8")
    for warning in found.warnings:
        say(wrapped(f"warning: {warning}"))
    say(wrapped(time_text(found.plan)))
    say(f"wrote {file}; what it would do: {shlex.join(['python', str(file), '--plan'])}")
    return 0


def _measured(options: argparse.Namespace, plan: Preview) -> Preview:
    """With the speed of this machine, where that is asked for, or needed and not in the table."""
    if not (options.probe or (options.minutes and plan.speed is None)):
        return plan
    from sftray.trainers.probe import probed

    quiet_libraries()
    return probed(plan)


def inspect(options: argparse.Namespace) -> int:
    from sftray.results.sweep_folder import read_record
    from sftray.storage import files

    root = options.dir
    if files.exists(SweepPaths(root).sweep):
        root = resolved(root, read_record(SweepPaths(root).sweep)["packs"])
    elif not files.exists(PacksPaths(root).manifest):
        raise SftrayError(
            f"{root}: there is neither sweep.json nor manifest.json",
            "name a sweep's folder (<storage>/<name>) or a pack's (<storage>/packs/<key>)",
        )
    say(inspected(root, rows=options.rows, as_json=options.json), coloured=True)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """What this machine can do; 1 where something is in a sweep's way."""
    from sftray.cli.doctor import as_text, findings

    found = findings(options.storage)
    as_json = [asdict(one) for one in found]
    say(json.dumps(as_json, indent=1) if options.json else as_text(found))
    return int(any(one.level == "problem" for one in found))


def inspected(root: str, *, rows: int, as_json: bool = False) -> str:
    from sftray.data.packs.inspect import inspect_json, inspect_text
    from sftray.data.packs.packs import check_sums, open_packs

    packs = open_packs(root)
    check_sums(packs)
    if as_json:
        return json.dumps(inspect_json(packs), indent=1)
    return inspect_text(packs, rows=rows, color=sys.stdout.isatty())
