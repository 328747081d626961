"""What a sweep has learned, all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sftray.results.findings.comparisons import ComparedTrial, Sweep, read
from sftray.results.findings.edges import Edge, edges
from sftray.results.findings.finding_costs import (
    Alternatives,
    Chosen,
    Cost,
    Moment,
    alternatives,
    chosen_by,
    pareto_front,
    regret,
)
from sftray.results.findings.importance import Importances, importances
from sftray.results.findings.scaling import Scaling, scaling
from sftray.results.findings.share_effects import ShareEffect, share_effects
from sftray.results.findings.stopping import Stopping, stopping
from sftray.results.findings.verdict import noise, verdict
from sftray.results.leaderboard_text import recommended, standing
from sftray.results.tables import Results
from sftray.search.odds import EndedTrial, odds_of_better
from sftray.storage.journal.event_types import Outcome
from sftray.trial.answer_flags import bad_answers

MORE = 8
"""Trials that would be added to a sweep."""


@dataclass(frozen=True)
class Findings:
    """What a sweep has learned; while it runs, so far."""

    sweep: str
    outcomes: dict[str, int]
    """Trials by outcome, those that have not ended under "running", or "unfinished" where the
    sweep's budget is used up."""
    budget_spent: str
    """The budget that ended the sweep before its time, as the field is called; or nothing."""
    verdict: str
    advice: str
    importances: Importances
    edges: tuple[Edge, ...]
    """The best trial's place on each numeric axis."""
    shares: tuple[ShareEffect, ...]
    """How the losses of the sources move with each share that was searched."""
    scaling: Scaling | None
    """None where learning rate and batch size were not both searched."""
    device: str
    """What the trials' seconds were taken on: GPU or CPU."""
    pareto: tuple[Cost, ...]
    """Eval loss against seconds of such a device, the cheapest first."""
    odds: float | None
    """That MORE further trials find an eval loss lower by more than noise; None where too little is
    known, or the objective is another."""
    regret: tuple[Moment, ...]
    anytime: tuple[Chosen, ...]
    """What the sweep would have chosen with a ninth, a third and all of its tokens."""
    alternatives: Alternatives | None
    """What a grid and random searches would have taken with these points; None before any has come
    to its end."""
    stopping: Stopping
    bad_answers: str | None
    """What can be seen to be wrong with the best trial's sample answers, whatever its loss; None
    where nothing can."""
    noise: float | None
    """What other seeds alone make of a final loss (standard deviation); None where no point was
    run twice."""

    def to_json(self) -> dict[str, object]:
        """As plain JSON values."""
        values: dict[str, object] = asdict(self)
        return values


def learn(found: Results) -> Findings:
    """What the sweep in `found` has learned."""
    sweep = read(found)
    trials = sweep.trials
    best = next((trial for trial in trials if trial.name == found.leaderboard["best"]), None)
    counted = importances(sweep)
    ends = edges(sweep, best) if best is not None else ()
    stopped = stopping(trials)
    base = found.leaderboard["base"]["eval_loss"]
    moments = regret(trials, found.record.get("started"))
    reached = next((one.tokens for one in moments if one.regret == 0), 0)
    words = recommended(found.leaderboard)
    judged, advised = verdict(sweep, base, best, words, counted, ends, stopped)
    return Findings(
        sweep=sweep.config.name,
        outcomes=dict(Counter(standing(trial.outcome, found.leaderboard) for trial in trials)),
        budget_spent=found.leaderboard.get("budget_spent", ""),
        verdict=judged,
        advice=advised,
        importances=counted,
        edges=ends,
        shares=share_effects(sweep),
        scaling=scaling(sweep),
        device=_device(trials),
        pareto=pareto_front(
            Cost(trial.name, trial.best, trial.gpu_seconds)
            for trial in trials
            if trial.best is not None
        ),
        odds=_odds(sweep),
        regret=moments,
        anytime=chosen_by(sweep, found.record.get("started")),
        alternatives=alternatives(sweep.searched, reached, sweep.config.reduction_factor),
        stopping=stopped,
        bad_answers=_bad_answers(best),
        noise=noise(trials),
    )


def _odds(sweep: Sweep) -> float | None:
    if sweep.config.objective != "eval_loss" or sweep.config.points:
        return None
    ended = [
        EndedTrial(
            one.record.point,
            one.best if one.outcome == Outcome.COMPLETED else None,
            one.at_rungs,
        )
        for one in sweep.searched
        if one.outcome in (Outcome.COMPLETED, Outcome.PRUNED) and one.best is not None
    ]
    return odds_of_better(sweep.config.search_space, ended, MORE)


def _device(trials: Sequence[ComparedTrial]) -> str:
    told = {result["device"] for t in trials for result in t.record.results if "device" in result}
    return "CPU" if told == {"cpu"} else "GPU"


def _bad_answers(best: ComparedTrial | None) -> str | None:
    if best is None or best.record.best is None:
        return None
    bad = bad_answers(best.record.flags_at(best.record.best["step"]))
    return f"Of the best trial's sample answers {bad}: read them first." if bad else None
