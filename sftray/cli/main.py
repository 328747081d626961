"""The `sftray` command, for what a sweep left behind; `launch` is the command line of a sweep."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sftray.cli import commands, launch, winner_commands
from sftray.cli.terminal import hook_without_secrets, with_plain_errors
from sftray.config import SweepConfig
from sftray.winner import DTYPES

_STORAGE = SweepConfig.storage
_DIR = f"a sweep's folder or s3://, gs:// URI; or its name in {_STORAGE}/"
_Run = Callable[[argparse.Namespace], int]
_Command = Callable[[_Run, str], argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `sftray` command."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run not in (launch.demo, launch.train):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    sys.excepthook = hook_without_secrets
    sys.exit(with_plain_errors(lambda: options.run(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sftray", description="Begin a sweep, and read what it left behind."
    )
    parser.add_argument("--version", action="version", version=f"sftray {_version()}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: _Run, text: str) -> argparse.ArgumentParser:
        name = run.__name__.partition("_")[0]
        # what follows `demo` is for the sweep, --help as well
        sub = subparsers.add_parser(name, help=text, description=text, add_help=name != "demo")
        sub.set_defaults(run=run)
        return sub

    def of_a_folder(run: _Run, text: str) -> argparse.ArgumentParser:
        sub = command(run, text)
        sub.add_argument("dir", type=_folder, help=_DIR)
        return sub

    command(launch.demo, "a sweep on the bundled base and chats, in minutes on a CPU")
    _add_init(command)
    sweeps = command(commands.list_sweeps, "the sweeps of a folder")
    sweeps.add_argument("storage", nargs="?", default=_STORAGE, help=f"by default {_STORAGE}")
    _add_results(command)
    _add_views(of_a_folder)
    _add_winner(of_a_folder)
    inspect = command(commands.inspect, "the packed rows, with the trained tokens marked")
    inspect.add_argument("dir", type=_folder, help="a sweep's folder, or a pack's")
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
    add("--minutes", type=float, help="propose what takes at most so long here; probes a CPU")
    add("--probe", action="store_true", help="train for ten seconds to say how long it takes here")
    add("--price-per-gpu-hour", type=float, help="in any currency, to say what the sweep costs")
    add("--gpus", type=int, help="GPUs of the cluster, 0 for none; by default this machine's")


def _add_results(command: _Command) -> None:
    text = "the answer and the leaderboard of a finished or running sweep"
    results = command(commands.results, text)
    results.add_argument("dirs", type=_folder, nargs="+", metavar="DIR", help=_DIR)
    results.add_argument("--csv", action="store_true", help="a line a trial")
    results.add_argument("--json", action="store_true", help="leaderboard or findings as JSON")
    results.add_argument("--findings", action="store_true", help="all that the sweep has learned")
    text = "write the trials as an Optuna study into a new SQLite file, for Optuna Dashboard"
    results.add_argument("--optuna", metavar="FILE", help=text)
    number = f"show the best N, by default {commands.SHOWN_TRIALS}"
    results.add_argument("--top", type=int, metavar="N", default=commands.SHOWN_TRIALS, help=number)
    text = "also the repetitions, losses by kind of token, and what is wrong with trials"
    results.add_argument("-v", "--verbose", action="store_true", help=text)


def _folder(text: str) -> str:
    """A sweep's folder, by its name where that is in the usual storage."""
    there = Path(_STORAGE, text)
    return str(there) if not Path(text).exists() and there.is_dir() else text


def _version() -> str:
    try:
        return importlib.metadata.version("sftray")
    except importlib.metadata.PackageNotFoundError:
        return "of a folder that is not installed"


def _add_views(command: _Command) -> None:
    watch = command(commands.watch, "the live view of a sweep that runs elsewhere, from its folder")
    watch.add_argument("--plain", action="store_true", help="plain lines on a terminal, too")
    text = "ASHA's decisions and TPE's draws made again from the journal; 1 if one differs"
    audit = command(commands.audit, text)
    audit.add_argument("--json", action="store_true")
    command(commands.report, "write report.html of a finished or running sweep into its folder")


def _add_winner(command: _Command) -> None:
    best = command(winner_commands.best, "the best adapter or model and how to load it")
    best.add_argument("--json", action="store_true")
    text = "merge the best adapter into its unquantised base, and check it"
    merge = command(winner_commands.merge, text)
    merge.add_argument("out", help="a new folder")
    merge.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
    merge.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of a weights file")
    merge.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        help="eval losses before and after, and what merging into 4-bit would lose; by default the "
        "last only for a base that was held in 4 bits",
    )
    text = "train the best point on all the data, into a sweep of its own"
    train = command(launch.train, f"{text}; takes the flags of a sweep file as well")
    train.add_argument("--epochs", type=float, help="by default those of the point")
    text = "also on the conversations that the sweep held out: there is no eval loss then"
    train.add_argument("--with-held-out", action="store_true", help=text)
    push = command(winner_commands.push, "upload the winner to the Hugging Face Hub")
    push.add_argument(
        "--repo", required=True, metavar="USER/NAME", help="created if it does not exist"
    )
    push.add_argument("--private", action="store_true", help="if it is created")
    push.add_argument("--merged", action="store_true", help="the model merged with it instead")
    text = "also its answers: text of the dataset"
    push.add_argument("--with-samples", action="store_true", help=text)
    push.add_argument("--yes", action="store_true", help="do not ask")
    text = "answer a prompt with the best of a sweep and with its base"
    generate = command(winner_commands.generate, text)
    generate.add_argument("prompt", nargs="?")
    text = 'many prompts, as JSON lines: conversations, or {"prompt": …}; prints a line for each'
    generate.add_argument("--file", metavar="PROMPTS.jsonl", help=text)
    text = "of the answers to --file, on stderr, as in sftray.metrics:last_number"
    generate.add_argument("--metric", metavar="MODULE:FUNCTION", help=text)
    text = "a conversation with the best of a sweep and with its base"
    chat = command(winner_commands.chat, text)
    chat.add_argument("--system", metavar="TEXT", help="a system turn before all others")
    text = "sample at this temperature; by default the likeliest tokens are taken"
    chat.add_argument("--temperature", type=float, default=0.0, metavar="T", help=text)
    text = "sample among the likeliest tokens that have this probability together"
    chat.add_argument("--top-p", type=float, default=1.0, metavar="P", help=text)
    chat.add_argument("--seed", type=int, default=0, help="of the sampling")
    for answering in (generate, chat):
        answering.add_argument("--max-new-tokens", type=int, default=128)
    text = "run the base's own Python code; the sweep's setting does not suffice"
    for loads_the_base in (train, merge, push, generate, chat):
        loads_the_base.add_argument("--trust-remote-code", action="store_true", help=text)
