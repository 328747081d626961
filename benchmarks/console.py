"""The command line of a benchmark."""

from __future__ import annotations

import argparse
import sys


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the benchmark's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def say(line: str) -> None:
    """Print a line now, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
