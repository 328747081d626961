"""The whole sweep in one sentence, and what to do next in another."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from sftray.config import Space, loguniform
from sftray.config.config_json import to_json
from sftray.config.points import short
from sftray.results.diagnosis.trial_curves import still_falling
from sftray.results.findings.comparisons import ComparedTrial, Sweep
from sftray.results.findings.edges import Edge
from sftray.results.findings.importance import MIN_TRIALS, SAFE_TRIALS, Axis, Importances
from sftray.results.findings.stopping import Stopping
from sftray.storage.journal.event_types import Outcome

SPANS = 4
"""Standard deviations between the best and the worst of trials that differ by chance alone: 3 of 10
normal values, 4 of 30."""


def verdict(
    sweep: Sweep,
    base: float | None,
    best: ComparedTrial | None,
    recommended: str,
    importances: Importances,
    edges: Sequence[Edge],
    stopping: Stopping,
) -> tuple[str, str]:
    """Verdict and advice. recommended: the words of `leaderboard_text.recommended` for the best."""
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
            "Set later rungs, under another --name, to see more trials to their end.",
        )
    if flat := _flat(trials, importances.axes):
        return flat, f"Take {recommended}; or search other fields, wider ranges."
    said = _who_decides(recommended, importances, edges)
    return said, _next(sweep, best, importances, edges, stopping)


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


def _flat(trials: Sequence[ComparedTrial], axes: Sequence[Axis]) -> str | None:
    """That nothing makes a difference beyond what seeds make, where it is so; None where that is
    not known, and where weak trials were stopped, since those that are left lie close together."""
    final = [trial.final for trial in trials if trial.final is not None]
    stopped = any(trial.outcome in (Outcome.PRUNED, Outcome.DIVERGED) for trial in trials)
    chance = noise(trials)
    if len(final) < 3 or chance is None or stopped or any(axis.decides for axis in axes):
        return None
    span = max(final) - min(final)
    if span > SPANS * chance:
        return None
    return (
        f"No difference beyond noise: {len(final)} completed trials end within {span:.4f} of each "
        f"other, and other seeds alone make {chance:.4f}."
    )


def _who_decides(recommended: str, importances: Importances, edges: Sequence[Edge]) -> str:
    deciding = [axis for axis in importances.axes if axis.decides]
    if deciding:
        first = deciding[0]
        at = "".join(f", best at {_place(edge)}" for edge in edges if edge.name == first.name)
        decides = f"{first.name} decides (importance {first.importance:.2f}){at}"
        return f"{decides}. The best is {recommended}."
    if importances.axes:
        return (
            f"No hyper-parameter distinguishes the best of {importances.trials} trials from the "
            f"others beyond chance. The best is {recommended}."
        )
    at = "".join(f"; {edge.name} is at {_place(edge)}" for edge in edges if edge.widen_to)
    return f"The best is {recommended}; {importances.missing}{at}."


def _place(edge: Edge) -> str:
    place = "within" if edge.at is None else f"the {edge.at} edge of"
    return f"{short(edge.best)}, {place} its range"


def _next(
    sweep: Sweep,
    best: ComparedTrial,
    importances: Importances,
    edges: Sequence[Edge],
    stopping: Stopping,
) -> str:
    """Widen what decides, then distinguish more, then doubt the stopping."""
    deciding = {axis.name for axis in importances.axes if axis.decides}
    open_ends = [
        edge
        for edge in edges
        if edge.widen_to is not None and (edge.name in deciding or not importances.axes)
    ]
    more = max(8, MIN_TRIALS - importances.trials)
    if not open_ends and (longer := _longer(sweep, best)):
        return longer
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
            f"{len(stopping.within_spread)} stopped trials might have won: set later rungs, "
            "under another --name."
        )
    if noise(sweep.trials) is None:
        return f"Take {best.name}; confirm_top=3 runs the best points with other seeds."
    return f"Take {best.name}."


def _longer(sweep: Sweep, best: ComparedTrial) -> str:
    """That all want more epochs, where most of the completed trials do, the best among them: more
    trials of the same length would be no better."""
    completed = [trial for trial in sweep.searched if trial.outcome == Outcome.COMPLETED]
    losses = {t.name: [float(one["eval_loss"]) for one in t.record.trained] for t in completed}
    falling = [trial for trial in completed if still_falling(losses[trial.name])]
    if best not in falling or 2 * len(falling) <= len(completed):
        return ""
    return (
        f"Train for longer than {best.config.num_train_epochs:g} epochs before more trials: "
        f"{len(falling)} of {len(completed)} completed trials, {best.name} among them, were still "
        "falling at their end. A longer sweep wants another --name."
    )


def _towards(edge: Edge) -> str:
    return f"{edge.name} {'down' if edge.at == 'lower' else 'up'} to {short(edge.widen_to)}"


def _named(trial: ComparedTrial) -> str:
    return f"{trial.name} ({trial.best:.4f})"


def _flag(name: str, space: Space) -> str:
    """A space as --set takes it; without spaces, so that no line is broken inside."""
    return f"--set 'search_space.{name}={space.as_code().replace(', ', ',')}'"
