"""How often repetitions tell two points apart that differ, and how often two that do not: intervals
that overlap against differences in pairs of one seed (`results/paired_seeds`), on simulated sweeps
of three points. The spreads are those of four real sweeps: what a seed does to all points alike,
and what it does to each on its own.

python benchmarks/pairing.py            # the table of docs/findings.md, 15 s
"""

from __future__ import annotations

import math

import numpy as np
from console import argument_parser, say

from sftray.results.paired_seeds import compare, critical_value

SPREADS = ((0.033, 0.005), (0.020, 0.005), (0.0019, 0.0013), (0.022, 0.023))
POINTS = 3
HEAD = (
    "| common / own spread | seeds | equal: overlap, pairs | half a spread: overlap, pairs "
    "| a spread: overlap, pairs |\n|---|---|---|---|---|"
)


def told_apart(
    common: float, own: float, *, difference: float, seeds: int, sweeps: int
) -> tuple[float, float]:
    """In which share of simulated sweeps a point is called worse than the lowest mean, by intervals
    that do not overlap and by pairs. The first point is lower than the others by `difference`."""
    rng = np.random.default_rng(0)
    overlap = pairs = 0
    for _ in range(sweeps):
        losses = rng.normal(0, own, (POINTS, seeds)) + rng.normal(0, common, seeds)
        losses[1:] += difference
        means = losses.mean(axis=1)
        best = int(means.argmin())
        freedom = POINTS * (seeds - 1)
        half = critical_value(2, freedom) * math.sqrt(losses.var(axis=1, ddof=1).mean() / seeds)
        overlap += bool((means > means[best] + 2 * half).any())
        by_seed = {str(point): dict(enumerate(row)) for point, row in enumerate(losses.tolist())}
        found = compare(by_seed, str(best))
        pairs += found is not None and any(one.worse for one in found.differences.values())
    return overlap / sweeps, pairs / sweeps


def main(sweeps: int) -> None:
    lines = [HEAD]
    for common, own in SPREADS:
        spread = math.hypot(common, own)
        for seeds in (3, 5):
            cells = []
            for difference in (0.0, spread / 2, spread):
                shares = told_apart(common, own, difference=difference, seeds=seeds, sweeps=sweeps)
                cells.append(", ".join(f"{share:.0%}" for share in shares))
            lines.append(f"| {common} / {own} | {seeds} | {' | '.join(cells)} |")
    say("\n".join(lines))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--sweeps", type=int, default=2000)
    main(parser.parse_args().sweeps)
