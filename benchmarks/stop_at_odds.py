"""When a search may stop: the odds that the trials left are any better (`stop_at_odds`), against
what these then found, replayed on the landscapes of search.py.

    python benchmarks/stop_at_odds.py --seeds 5
    python benchmarks/stop_at_odds.py --grid benchmarks/landscapes/gemma3_270m_gsm8k.json
    python benchmarks/stop_at_odds.py --table FILE.csv --curves FILE.csv

For each limit: in how many replays the search stops, in how many of all it does so falsely (the
rest would have found a loss lower than its best by more than the bar: 0.2 % or two standard
deviations of a run's noise, whichever is more), the share of all trainings that is saved, and what
was missed (mean of those that stop, in percent of the loss). A replay has up to 24 trials.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from console import argument_parser, say
from landscape import Landscape, of_table
from search import WAYS, landscapes_in, replay

from sftray.search.decisions import odds_of_more
from sftray.search.search import Search

LIMITS = (0.3, 0.2, 0.1, 0.05, 0.02)


@dataclass
class Ends:
    """The ends of a replay's trials."""

    landscape: Landscape
    known: list[tuple[float, float, float]] = field(default_factory=list)
    """(trainings until then, lowest loss, odds that the rest is better)."""

    def take(self, search: Search, spent: float, lowest: float) -> None:
        left = search.remaining()  # one trial at a time: none that has begun is among them
        odds = odds_of_more(search._sweep, search._trials.values(), left) if left else None
        self.known.append((spent, lowest, 1.0 if odds is None else odds))

    def stop(self, limit: float) -> tuple[float, float] | None:
        """(trainings saved, what the rest would have found: percent of the loss), if it stops."""
        found = next(((at, low) for at, low, odds in self.known[:-1] if odds < limit), None)
        if found is None:
            return None
        spent, lowest, _ = self.known[-1]
        return spent - found[0], 100 * (found[1] / lowest - 1)

    @property
    def bar(self) -> float:
        return 100 * (self.landscape.bar / self.landscape.best - 1)


def main() -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--grid", type=Path, default=Path(__file__).parent / "grid.json")
    add("--table", type=Path, help="a table of others' sweeps, in the place of our grid")
    add("--curves", type=Path, help="losses on the way, read off, of the table's points")
    add("--seeds", type=int, default=5)
    options = parser.parse_args()
    landscapes = (
        of_table(options.table, options.curves) if options.table else landscapes_in(options.grid)
    )
    for way, settings in WAYS.items():
        if settings["scheduler"] == "asha":
            found = []
            for one in landscapes:
                for seed in range(options.seeds):
                    found.append(Ends(one))
                    replay(one, seed, 1, **settings, most=math.inf, watch=found[-1].take)
            tell(way, found)


def tell(way: str, replays: Sequence[Ends]) -> None:
    spent = sum(one.known[-1][0] for one in replays)
    say(f"{way}: {len(replays)} replays of {spent / len(replays):.1f} trainings")
    for limit in LIMITS:
        stops = [(one, stop) for one in replays if (stop := one.stop(limit)) is not None]
        false = Counter(one.landscape.name for one, (_, missed) in stops if missed > one.bar)
        missed = statistics.fmean([loss for _, (_, loss) in stops]) if stops else math.nan
        say(
            f"  below {limit:4.0%}: stops in {len(stops)}, falsely in "
            f"{sum(false.values()) / len(replays):.1%}; saves "
            f"{sum(saved for _, (saved, _) in stops) / spent:.0%}; misses {missed:.3f} % "
            + ", ".join(f"{name} {number}" for name, number in false.items())
        )


if __name__ == "__main__":
    main()
