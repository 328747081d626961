"""What a report leads to: a decision at a rung, or an end; and what is run again with new seeds.

Promise: pure functions of what the search knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from sftray.config import SweepConfig
from sftray.config.points import Point, in_space
from sftray.plan.rungs import Rung
from sftray.search.asha import Decision, asha
from sftray.search.odds import BAR, EndedTrial, odds_of_better
from sftray.search.search_trials import SearchTrial
from sftray.storage.journal.event_types import (
    CONTINUE,
    STOP,
    EventName,
    Metrics,
    Outcome,
    RungDecision,
    TrialEvent,
    TrialSuggested,
    trial_ended,
    trial_suggested,
)

Rungs = Mapping[tuple[str, int], Mapping[str, float]]
"""(bracket, rows) → what was judged there, by trial."""


DOUBTED_AFTER = 3
"""Trials that end worse than the base before it is doubted."""


def doubt_of_base(
    sweep: SweepConfig,
    trials: Iterable[SearchTrial],
    base_loss: float | None,
    usual_rate: float | None,
) -> str | None:
    """Why the base, its template or its attention must be broken, not the learning rate: the base's
    eval loss is not finite; or of the trials none has come below it, and DOUBTED_AFTER have ended,
    one of them at or below `usual_rate`. None where there is no such sign."""
    if base_loss is None:
        return None
    if not math.isfinite(base_loss):
        return f"the base's own eval loss is {base_loss}"
    own = [trial for trial in trials if trial.folder is None]
    if any((best := trial.best()) and best[0] <= base_loss for trial in own):
        return None
    ended = [trial for trial in own if trial.outcome in _TRAINED]
    if usual_rate is None or len(ended) < DOUBTED_AFTER:
        return None
    rates = {t.suggestion.trial: sweep.trial.at(t.suggestion.point).learning_rate for t in ended}
    lowest = min(rates, key=rates.__getitem__)
    if rates[lowest] > usual_rate:
        return None
    return (
        f"{len(ended)} trials have ended worse than the base, whose eval loss is {base_loss:.4f}, "
        f"and {lowest} ran at a learning rate of {rates[lowest]:.3g}, at or below the "
        f"{usual_rate:.3g} published for bases of its size: the base, its chat template or its "
        "attention is broken, not the learning rate"
    )


_TRAINED = (Outcome.COMPLETED, Outcome.PRUNED, Outcome.DIVERGED)


def consequences(
    sweep: SweepConfig,
    rungs: Rungs,
    state: SearchTrial,
    step: int,
    loss: float | None,
    outcome: str | None = None,
    message: str = "",
) -> list[TrialEvent]:
    """The events that a result entails and that are not recorded yet. outcome: that the trial
    itself reported with it."""
    trial = state.suggestion.trial
    rung = next((rung for rung in state.rungs if rung.step == step), None)
    events: list[TrialEvent] = []
    if outcome is None and step > 0 and loss is not None and not math.isfinite(loss):
        outcome, message = Outcome.DIVERGED, f"eval_loss is {loss} at step {step}"
    elif outcome is None and rung is not None and (value := state.judged_by.get(step)) is not None:
        decision = state.decisions.get(step)
        if decision is None:
            decision = _judge(sweep, rungs, state, rung, value)
            events.append(_decision(sweep, state, rung, value, decision))
        if not decision.goes_on:
            outcome = Outcome.PRUNED
            message = f"eval_loss {value:.4f} at {rung.rows} rows, above {decision.cutoff:.4f}"
            if sweep.judges_metric:
                own, enough = turned(sweep, value), turned(sweep, decision.cutoff or 0.0)
                message = f"metric {own:.4g} at {rung.rows} rows, worse than {enough:.4g}"
    patience = sweep.early_stopping_patience or math.inf
    if outcome is None and loss is not None and state.since_its_best(step, loss) >= patience:
        outcome = Outcome.COMPLETED
        message = f"stopped at step {step}: {patience} evaluations without improvement"
    return [*events, trial_ended(trial, outcome, message)] if outcome else events


def judged_value(sweep: SweepConfig, metrics: Metrics) -> float | None:
    """What an evaluation is judged by, made small; None where it has nothing."""
    if not sweep.judges_metric:
        return metrics.get("eval_loss")
    return _small(sweep, metrics.get("metric"))


def _small(sweep: SweepConfig, metric: float | None) -> float | None:
    """A metric as what is made small; None where it is no number."""
    if metric is None or not math.isfinite(metric):
        return None
    return -metric if sweep.metric_is_better == "higher" else metric


def peers_of(sweep: SweepConfig, metrics: Metrics) -> dict[str, float]:
    """The same of the trials that came to the same rung at the same moment."""
    peers = dict(metrics.get("rung_peers", ()))
    return {trial: turned(sweep, value) for trial, value in peers.items()}


def turned(sweep: SweepConfig, value: float) -> float:
    """A metric that is to be large as one to be small, and back; a loss is as it is."""
    return -value if sweep.judges_metric and sweep.metric_is_better == "higher" else value


def _judge(
    sweep: SweepConfig, rungs: Rungs, state: SearchTrial, rung: Rung, value: float
) -> Decision:
    # trials that come together are judged together, whoever's report is first
    here = {**rungs.get((state.plan.bracket, rung.rows), {}), **state.peers.get(rung.step, {})}
    return asha(list(here.values()), value, sweep.reduction_factor)


def _decision(
    sweep: SweepConfig, state: SearchTrial, rung: Rung, value: float, decision: Decision
) -> RungDecision:
    cutoff = decision.cutoff
    event = RungDecision(
        event=EventName.DECISION,
        trial=state.suggestion.trial,
        step=rung.step,
        rung=rung.rows,
        decision=CONTINUE if decision.goes_on else STOP,
        bracket=state.plan.bracket,
        cutoff=None if cutoff is None else turned(sweep, cutoff),
    )
    if sweep.judges_metric:
        event["metric"] = turned(sweep, value)
    return event


def objective_value(sweep: SweepConfig, state: SearchTrial) -> float | None:
    """What the sampler makes small, of a trial that has ended; None where it has none."""
    if sweep.objective == "metric":
        return _small(sweep, state.metric)
    if state.outcome == Outcome.DIVERGED:
        return state.worst()
    best = state.best()
    return None if best is None else best[0]


def can_be(sweep: SweepConfig, point: Point, drawn: int) -> bool:
    """Whether the sweep can have suggested a point after `drawn` others."""
    return drawn < len(sweep.points) if sweep.points else in_space(sweep.search_space, point)


def enough(sweep: SweepConfig, trials: Iterable[SearchTrial], left: int) -> str:
    """Why the trials left are not worth beginning, or nothing."""
    limit = sweep.stop_at_odds
    if limit is None or left < 1:
        return ""
    odds = odds_of_more(sweep, trials, left)
    if odds is None or odds >= limit:
        return ""
    return (
        f"{left} trials are not begun: the odds that they find an eval loss lower by {BAR:.1%} are "
        f"{odds:.1%}, below stop_at_odds={limit:g}"
    )


def odds_of_more(sweep: SweepConfig, trials: Iterable[SearchTrial], left: int) -> float | None:
    """That so many more trials find an eval loss lower by more than noise."""
    ended = [
        EndedTrial(
            state.suggestion.point,
            best[0] if state.outcome == Outcome.COMPLETED else None,
            state.at_rungs,
        )
        for state in trials
        if state.outcome in (Outcome.COMPLETED, Outcome.PRUNED)
        and not state.confirms
        and (best := state.best())
    ]
    return odds_of_better(sweep.search_space, ended, left)


def chosen_points(sweep: SweepConfig, trials: Iterable[SearchTrial]) -> list[str]:
    """The trials whose points are run again with new seeds: the best that completed."""
    ended = [
        (best[0], state.suggestion.trial)
        for state in trials
        if state.outcome == Outcome.COMPLETED and not state.confirms and (best := state.best())
    ]
    return [trial for _, trial in sorted(ended)[: sweep.confirm_top]]


def next_repetition(
    sweep: SweepConfig,
    trials: Mapping[str, SearchTrial],
    confirmed: Mapping[str, list[int]],
    trial: str,
) -> TrialSuggested | None:
    """The next repetition of a confirmed point, as `trial`: each point once, then each again."""
    repeated = {
        (state.confirms, state.suggestion.point["seed"])
        for state in trials.values()
        if state.confirms is not None
    }
    for number in range(sweep.confirm_seeds):
        for name, seeds in confirmed.items():
            seed = seeds[number] if number < len(seeds) else None
            if seed is not None and (name, seed) not in repeated:
                point = {**trials[name].suggestion.point, "seed": seed}
                return trial_suggested(trial, point, confirms=name)
    return None
