"""The command line of every sweep file (`launch`), and `sftray` for what a sweep left behind."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sftray.cli import commands
from sftray.cli.terminal import with_plain_errors
from sftray.winner import DTYPES


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `sftray` command."""
    options = _parser().parse_args(arguments)
    sys.exit(with_plain_errors(lambda: options.run(options)))


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
