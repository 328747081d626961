"""The whole sweep in one sentence, and what to do next in another."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from sftray.config import Space, loguniform
from sftray.config.config_json import to_json
from sftray.config.points import short
from sftray.results.confirmation import Confirmation, confirmation
from sftray.results.findings.comparisons import ComparedTrial, Sweep
from sftray.results.findings.edges import Edge
from sftray.results.findings.importance import MIN_TRIALS, SAFE_TRIALS, Axis, Importances
from sftray.results.findings.stopping import Stopping
from sftray.storage.journal.event_types import Outcome

FLAT = 0.02
"""Final losses within this share of what the best has gained on the base hardly differ."""
SPANS = 4
"""Standard deviations between the best and the worst of trials that differ by chance alone: 3 of 10
normal values, 4 of 30."""


def verdict(
    sweep: Sweep,
    base: float | None,
    best: ComparedTrial | None,
    importances: Importances,
    edges: Sequence[Edge],
    stopping: Stopping,
) -> tuple[str, str]:
    """Verdict and advice."""
    trials = sweep.trials
    if best is None or best.best is None:
        return _nothing(sweep)
    if base is not None and best.best >= base:
        return (
            f"No trial is better than the base: {best.name} has {best.best:.4f}, the base "
            f"{base:.4f}.",
            f"Lower learning_rate below {short(min(t.config.learning_rate for t in trials))} or "
            "train for fewer epochs, and read the rows with `sftray inspect`.",
        )
    outcomes = Counter(trial.outcome for trial in trials)
    if len(trials) > 2 and outcomes == {Outcome.COMPLETED: 1, Outcome.PRUNED: len(trials) - 1}:
        return (
            f"All trials but {_named(best)} were stopped early, so its final loss has nothing to "
            "be compared with.",
            "Set more grace_rows, under another --name, to see more trials to their end.",
        )
    if flat := _flat(trials, base, best.best, importances.axes):
        return flat, _without_difference(trials)
    said = _who_decides(best, base, importances, edges, confirmation([t.record for t in trials]))
    return said, _next(sweep, importances, edges, stopping)


def noise(trials: Sequence[ComparedTrial]) -> float | None:
    """The standard deviation of final losses of trials that differ in nothing but their seed;
    None where no point was run twice."""
    repeated: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.final is not None:
            same = to_json(trial.config) | {"seed": None}
            repeated[repr(sorted(same.items()))].append(trial.final)
    groups = [losses for losses in repeated.values() if len(losses) > 1]
    if not groups:
        return None
    squares = sum(statistics.variance(losses) * (len(losses) - 1) for losses in groups)
    return float((squares / sum(len(losses) - 1 for losses in groups)) ** 0.5)


def _nothing(sweep: Sweep) -> tuple[str, str]:
    trials, outcomes = sweep.trials, Counter(trial.outcome for trial in sweep.trials)
    if not trials or outcomes[None]:
        return "No trial has been evaluated yet.", "Ask again when one has."
    if outcomes[Outcome.DIVERGED] == len(trials):
        lowest = min(trial.config.learning_rate for trial in trials)
        below = loguniform(*(float(short(rate)) for rate in (lowest / 100, lowest)))
        return (
            f"All {len(trials)} trials diverged.",
            f"Search learning rates below {short(lowest)}, the lowest that was tried: "
            f"{_flag('learning_rate', below)}.",
        )
    ended = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    return (
        f"No trial has an eval loss: {ended}.",
        f"See what the first says: {trials[0].record.message or 'nothing'}.",
    )


def _flat(
    trials: Sequence[ComparedTrial], base: float | None, best: float, axes: Sequence[Axis]
) -> str | None:
    """That nothing makes a difference, where it is so; None where weak trials were stopped, since
    those that are left lie close together."""
    final = [trial.final for trial in trials if trial.final is not None]
    stopped = any(trial.outcome in (Outcome.PRUNED, Outcome.DIVERGED) for trial in trials)
    if len(final) < 3 or stopped or any(axis.decides for axis in axes):
        return None
    span, chance = max(final) - min(final), noise(trials)
    ends = f"{len(final)} completed trials end within {span:.4f} of each other"
    if chance is not None and span <= SPANS * chance:
        return f"No difference beyond noise: {ends}, and other seeds alone make {chance:.4f}."
    if base is not None and span <= FLAT * (base - best):
        part = 100 * span / (base - best)
        return f"Hardly a difference: {ends}, {part:.1f} % of what the best gained on the base."
    return None


def _without_difference(trials: Sequence[ComparedTrial]) -> str:
    completed = [trial for trial in trials if trial.final is not None]
    cheapest = min(completed, key=lambda trial: trial.gpu_seconds)
    seed = "" if noise(trials) is not None else ", run a point with another seed"
    return f"Take what is cheapest ({cheapest.name}){seed}, or search other fields, wider ranges."


def _who_decides(
    best: ComparedTrial,
    base: float | None,
    importances: Importances,
    edges: Sequence[Edge],
    confirmed: Confirmation | None,
) -> str:
    below = "" if base is None or best.best is None else f", {base - best.best:.4f} below the base"
    deciding = [axis for axis in importances.axes if axis.decides]
    if deciding:
        first = deciding[0]
        at = "".join(f", at {_place(edge)}" for edge in edges if edge.name == first.name)
        told = f"{first.name} decides (importance {first.importance:.2f})"
        return f"{told}: {_named(best)} is the best{below}{at}."
    if importances.axes and confirmed is not None and confirmed["winner"] is not None:
        return (
            f"{_named(best)} is the best{below}; {_confirmed(confirmed)}. No single "
            f"hyper-parameter tells the best of {importances.trials} trials beyond chance."
        )
    if importances.axes:
        return (
            f"No difference beyond chance: no hyper-parameter tells the best of "
            f"{importances.trials} trials from the others, so {_named(best)}{below}, may be the "
            "best by luck."
        )
    at = "".join(f"; {edge.name} is at {_place(edge)}" for edge in edges if edge.at)
    return (
        f"{_named(best)} is the best{below}; what decides cannot be told "
        f"({importances.missing}){at}."
    )


def _confirmed(confirmed: Confirmation) -> str:
    """What other seeds said."""
    points, winner = confirmed["points"], confirmed["winner"]
    first = next(one for one in points if one["trial"] == winner)
    runs = f"mean {first['mean']:.4f} of {len(first['eval_losses'])} other seeds"
    if others := [name for name in confirmed["tied"] if name != winner]:
        return f"the answer, {winner} ({runs}), cannot be told from {', '.join(others)}"
    if len(points) == 1:
        return f"{winner} has a {runs}"
    return f"other seeds confirm its point, {winner} ({runs})"


def _place(edge: Edge) -> str:
    place = "within" if edge.at is None else f"the {edge.at} edge of"
    return f"{short(edge.best)}, {place} its range"


def _next(sweep: Sweep, importances: Importances, edges: Sequence[Edge], stopping: Stopping) -> str:
    """Widen what decides, then tell more apart, then doubt the stopping."""
    deciding = {axis.name for axis in importances.axes if axis.decides}
    open_ends = [
        edge
        for edge in edges
        if edge.widen_to is not None and (edge.name in deciding or not importances.axes)
    ]
    more = max(8, MIN_TRIALS - importances.trials)
    if sweep.config.points and (open_ends or not importances.axes):
        at = f", with {_towards(open_ends[0])} as well" if open_ends else ""
        return f"Run {more} more points{at}, under another --name."
    if open_ends:
        edge = open_ends[0]
        end = edge.widen_to
        assert end is not None
        wider = sweep.spaces[edge.name].widened(end, upper=edge.at == "upper")
        return (
            f"Widen {_towards(edge)} and run {more} more trials, under "
            f"another --name with {_flag(edge.name, wider)}."
        )
    if not importances.axes:
        return f"Run {more} more trials (--num-trials {len(sweep.searched) + more})."
    if not deciding and importances.trials < SAFE_TRIALS:
        more = SAFE_TRIALS - importances.trials
        return (
            f"Run {more} more trials (--num-trials {len(sweep.searched) + more}): with "
            f"{SAFE_TRIALS} a hyper-parameter that decides is mostly found."
        )
    if len(stopping.within_spread) > stopping.stopped / 4:
        return (
            f"{len(stopping.within_spread)} stopped trials might have won: set more grace_rows, "
            "under another --name."
        )
    if noise(sweep.trials) is None:
        return "Take the best; confirm_top=3 runs the best points with other seeds."
    return "Take the best."


def _towards(edge: Edge) -> str:
    return f"{edge.name} {'down' if edge.at == 'lower' else 'up'} to {short(edge.widen_to)}"


def _named(trial: ComparedTrial) -> str:
    return f"{trial.name} ({trial.best:.4f})"


def _flag(name: str, space: Space) -> str:
    """A space as --set takes it; without spaces, so that no line is broken inside."""
    return f"--set 'search_space.{name}={space.as_code().replace(', ', ',')}'"
