"""The `sftray` command, for what a sweep left behind; `launch` is the command line of a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sftray.cli import commands
from sftray.cli.terminal import hook_without_secrets, with_plain_errors
from sftray.winner import DTYPES

_Run = Callable[[argparse.Namespace], int]
_Command = Callable[[_Run, str], argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `sftray` command."""
    options = _parser().parse_args(arguments)
    sys.excepthook = hook_without_secrets
    sys.exit(with_plain_errors(lambda: options.run(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sftray", description="Begin a sweep, and read what it left behind."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: _Run, text: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(run.__name__, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def of_a_folder(run: _Run, text: str) -> argparse.ArgumentParser:
        sub = command(run, text)
        sub.add_argument("dir", help="a sweep's folder or s3://, gs:// URI")
        return sub

    _add_init(command)
    _add_views(of_a_folder)
    _add_winner(of_a_folder)
    inspect = command(commands.inspect, "the packed rows, with the trained tokens marked")
    inspect.add_argument("dir", help="a sweep's folder, or a pack's")
    inspect.add_argument("--rows", type=int, default=2)
    inspect.add_argument("--json", action="store_true")
    doctor = command(
        commands.doctor, "what this machine can do; exit status 1 if that has a problem"
    )
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument("--storage", default=".", help="the local folder for sweeps and packs")
    return parser


def _add_init(command: _Command) -> None:
    add = command(commands.init, "write a first sweep file for a dataset and a base").add_argument
    add("file", type=Path, help="a new file, as my_sweep.py")
    data = "a .jsonl or .parquet path, glob or URI, or a Hub dataset id"
    add("--data", required=True, nargs="+", help=f"{data}; several are mixed")
    add("--model", required=True, help="the base: a folder or a Hub model id")
    add("--split", default="train", help="of a Hub dataset")
    add("--chat-template", help="for a base without one: chatml, gemma, llama3, … or a Jinja file")
    add("--gpus", type=int, help="GPUs of the cluster, 0 for none; by default this machine's")


def _add_views(command: _Command) -> None:
    text = "the leaderboard of a finished or running sweep, and what it learned"
    results = command(commands.results, text)
    form = results.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the leaderboard as JSON")
    form.add_argument("--findings", action="store_true", help="what it learned as JSON")
    results.add_argument("--top", type=int, help="show only the best N")
    text = "each trial's verdict and advice, too"
    results.add_argument("-v", "--verdicts", action="store_true", help=text)
    watch = command(commands.watch, "the live view of a sweep that runs elsewhere, from its folder")
    watch.add_argument("--plain", action="store_true", help="plain lines on a terminal, too")
    text = "ASHA's decisions and TPE's draws made again from the journal; 1 if one differs"
    audit = command(commands.audit, text)
    audit.add_argument("--json", action="store_true")
    command(commands.report, "write report.html of a finished or running sweep into its folder")


def _add_winner(command: _Command) -> None:
    best = command(commands.best, "the best adapter or model and how to load it")
    best.add_argument("--json", action="store_true")
    text = "merge the best adapter into its unquantised base, and check it"
    merge = command(commands.merge, text)
    merge.add_argument("out", help="a new folder")
    merge.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
    merge.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of a weights file")
    merge.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        help="eval losses before and after, and what merging into 4-bit would lose; by default the "
        "last only for a base that was held in 4 bits",
    )
    push = command(commands.push, "upload the winner to the Hugging Face Hub")
    push.add_argument(
        "--repo", required=True, metavar="USER/NAME", help="created if it does not exist"
    )
    push.add_argument("--private", action="store_true", help="if it is created")
    push.add_argument("--merged", action="store_true", help="the model merged with it instead")
    text = "also its answers: text of the dataset"
    push.add_argument("--with-samples", action="store_true", help=text)
    push.add_argument("--yes", action="store_true", help="do not ask")
    text = "answer a prompt with the best of a sweep and with its base"
    generate = command(commands.generate, text)
    generate.add_argument("prompt", nargs="?")
    text = 'many prompts, as JSON lines: conversations, or {"prompt": …}; prints a line for each'
    generate.add_argument("--file", metavar="PROMPTS.jsonl", help=text)
    text = "of the answers to --file, on stderr, as in sftray.metrics:last_number"
    generate.add_argument("--metric", metavar="MODULE:FUNCTION", help=text)
    generate.add_argument("--max-new-tokens", type=int, default=128)
    text = "run the base's own Python code; the sweep's setting does not suffice"
    for loads_the_base in (merge, push, generate):
        loads_the_base.add_argument("--trust-remote-code", action="store_true", help=text)
