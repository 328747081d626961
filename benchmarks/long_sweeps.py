"""What it takes to look at a long sweep: seconds of CPU and MB at most of `sftray results` and
`sftray report`, each a process of its own, on folders that tests/fakes/long_sweep.py writes.

    python benchmarks/long_sweeps.py
    python benchmarks/long_sweeps.py --trials 2000 --evaluations 10 100
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from console import argument_parser, say

sys.path.append(str(Path(__file__).parent.parent / "tests" / "fakes"))

from long_sweep import write_sweep  # noqa: E402


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[10, 100], help="a trial")
    parser.add_argument("--commands", nargs="+", default=["results", "report"])
    given = parser.parse_args()
    say("trials  evaluations  journal, MB  command   CPU, s  most, MB")
    for evaluations in given.evaluations:
        with tempfile.TemporaryDirectory() as folder:
            pruned = 0.5 if evaluations == min(given.evaluations) else 0.0
            sweep = write_sweep(Path(folder, "long"), given.trials, evaluations, pruned=pruned)
            journal = (sweep / "journal.jsonl").read_bytes()
            number = journal.count(b'"event": "result"')
            for command in given.commands:
                seconds, most = measure(command, sweep)
                say(
                    f"{given.trials:6} {number:12,} {len(journal) / 1e6:12.1f}  {command:8} "
                    f"{seconds:7.1f} {most:9.0f}"
                )


def measure(command: str, folder: Path) -> tuple[float, float]:
    """Seconds of CPU, and the most memory in MB, of a command on a sweep's folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sftray", command, str(folder)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command}: exit status {process.returncode}"
    return used.ru_utime + used.ru_stime, _megabytes(used)


def _megabytes(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
