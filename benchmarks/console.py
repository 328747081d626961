"""The command line of a benchmark."""

from __future__ import annotations

import argparse
import sys
import tempfile


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the benchmark's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_rows(parser: argparse.ArgumentParser) -> None:
    """The options of benchmarks on packed rows: what they are packed from, and where they are
    kept."""
    parser.add_argument("--data", required=True, help="conversations, a .jsonl file")
    parser.add_argument(
        "--storage",
        default=f"{tempfile.gettempdir()}/sftray-benchmarks",
        help="folder of the packed rows, built when first needed",
    )


def say(line: str) -> None:
    """Print a line now, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
