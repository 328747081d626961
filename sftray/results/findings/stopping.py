"""What early stopping saved, and what it may have missed.

Saved: what a stopped trial would have taken to the end of its budget, from what it had taken when
it was stopped, in proportion to rows; trials that diverged or failed would not have come there.

Missed: nobody knows how a stopped trial would have ended, but its bracket has trials that were let
continue from the same rung. How much these gained from there to their end is the spread of what a
trial may gain: a stopped trial that would be the best of the sweep with the largest of these gains
is within the spread. And the rank agreement of losses at a rung with final losses (Spearman) says
how well the rung foretold the end; it is of survivors, which lie closer together than all did, so
it errs to the low side; where nothing was stopped, it is of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftray.results.findings.comparisons import ComparedTrial, in_bracket
from sftray.storage.journal.event_types import Outcome

MIN_SURVIVORS = 5
"""Trials for a rank agreement: of four, one order in 24 agrees fully by chance."""
MIN_GAINS = 3
"""Survivors whose gains are a spread."""


@dataclass(frozen=True)
class Agreement:
    """How well a rung foretold the end."""

    bracket: str
    rows: int
    trials: int
    """Completed ones that were evaluated at this rung."""
    spearman: float | None
    """Between losses there and final losses; None with fewer than MIN_SURVIVORS trials."""


@dataclass(frozen=True)
class Stopping:
    """The account of early stopping."""

    stopped: int
    """Trials that were pruned."""
    trials: int
    tokens: int
    """Trained by all trials."""
    tokens_saved: int
    gpu_seconds: float
    """Of all trials; see `cost`."""
    gpu_seconds_saved: float
    agreement: tuple[Agreement, ...]
    within_spread: tuple[str, ...]
    """Stopped trials that would be the best with the largest gain of those that continued."""
    unknown: int
    """Stopped trials with fewer than MIN_GAINS completed ones from their rung."""
    says: str


def stopping(trials: Sequence[ComparedTrial]) -> Stopping:
    """The account of a sweep; zeros where nothing was stopped."""
    stopped = [trial for trial in trials if trial.outcome == Outcome.PRUNED]
    best = min((trial.best for trial in trials if trial.best is not None), default=None)
    gains = _gains(trials)
    spread = {trial.name: gains.get(_last_rung(trial), []) for trial in stopped}
    unknown = sum(len(found) < MIN_GAINS for found in spread.values())
    within = tuple(
        trial.name
        for trial in stopped
        if len(found := spread[trial.name]) >= MIN_GAINS
        and best is not None
        and trial.at_rungs[max(trial.at_rungs)] - max(found) < best
    )
    agreement = _agreement(trials)
    return Stopping(
        stopped=len(stopped),
        trials=len(trials),
        tokens=sum(trial.record.last["tokens"] for trial in trials),
        tokens_saved=round(
            sum(trial.record.last["tokens"] * (trial.budget_ratio - 1) for trial in stopped)
        ),
        gpu_seconds=sum(trial.gpu_seconds for trial in trials),
        gpu_seconds_saved=sum(trial.gpu_seconds * (trial.budget_ratio - 1) for trial in stopped),
        agreement=agreement,
        within_spread=within,
        unknown=unknown,
        says=_says(len(stopped), within, unknown, agreement),
    )


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where one side is all ties."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - counts / 2)[places], dtype=float)


_Rung = tuple[str, int]
"""A bracket, and rows."""


def _gains(trials: Sequence[ComparedTrial]) -> dict[_Rung, list[float]]:
    """By rung what each completed trial gained from there."""
    gains: dict[_Rung, list[float]] = defaultdict(list)
    for trial in trials:
        if (final := trial.final) is not None:
            for rows, loss in trial.at_rungs.items():
                gains[trial.plan.bracket, rows].append(loss - final)
    return gains


def _last_rung(trial: ComparedTrial) -> _Rung:
    """The rung that a trial was stopped at."""
    return trial.plan.bracket, max(trial.at_rungs, default=0)


def _agreement(trials: Sequence[ComparedTrial]) -> tuple[Agreement, ...]:
    found = []
    for bracket in sorted({trial.plan.bracket for trial in trials}):
        completed = [t for t in in_bracket(trials, bracket) if t.final is not None]
        for rows in sorted({rows for trial in completed for rows in trial.at_rungs}):
            pairs = [
                (trial.at_rungs[rows], trial.final)
                for trial in completed
                if rows in trial.at_rungs and trial.final is not None
            ]
            enough = len(pairs) >= MIN_SURVIVORS
            rho = spearman([a for a, _ in pairs], [b for _, b in pairs]) if enough else None
            found.append(Agreement(bracket, rows, len(pairs), rho))
    return tuple(found)


def _says(stopped: int, within: Sequence[str], unknown: int, agreement: Sequence[Agreement]) -> str:
    known = [one for one in agreement if one.spearman is not None]
    foretold = (
        f"losses at {known[0].rows:,} rows and at the end have rank agreement "
        f"{known[0].spearman:.2f} ({known[0].trials} completed trials)"
        if known
        else "too few completed to say how well a rung foretells the end"
    )
    if not stopped:
        return f"no trial was stopped; {foretold}" if known else "no trial was stopped"
    if unknown == stopped:
        return (
            f"too few to estimate what it missed: fewer than {MIN_GAINS} trials continued from "
            f"{'its rung' if stopped == 1 else 'their rungs'} to the end"
        )
    named = f" ({', '.join(within)})" if 0 < len(within) <= 4 else ""
    told = (
        f"{len(within)} of {stopped - unknown} stopped trials{named} would be the best with the "
        "largest gain of those that continued"
    )
    if unknown:
        told += f"; of {unknown} more there is too little to say"
    return f"{told}; {foretold}"
