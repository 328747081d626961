"""What the view shows, as one plain value computed from a sweep's records.

Promise: a function of the records and the time alone. What is not known yet is None, what is
estimated is said to be: the time left is the tokens still expected over the tokens a second that
the sweep has had so far, evaluations and starts included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sftray.config import SweepConfig
from sftray.config.config_json import sweep_from_json
from sftray.config.sweep_config import BUDGETS
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import TrialPlan, planner
from sftray.results.leaderboard import leaderboard
from sftray.results.leaderboard_text import recommended
from sftray.results.records import Records, TrialRecord
from sftray.results.spending import Spent
from sftray.results.sweep_folder import SweepRecord

RUNNING, STARTING, UNFINISHED = "running", "starting", "unfinished"
"""What stands for the outcome of a trial that has none: evaluated, or waiting for its base, or cut
off with the sweep's budget."""


_CHANGEABLE = ("num_trials", "trainings", "stop_at_odds", "confirm_top", "confirm_seeds", *BUDGETS)
"""Fields that the sweep may have otherwise than when it was begun."""


@dataclass(frozen=True)
class TrialLine:
    """A trial."""

    trial: str
    point: Mapping[str, object]
    step: int
    steps: int
    rows: int
    tokens: int
    rung: int
    """Rungs that it has been judged at."""
    rungs: int
    """Rungs on its way."""
    train_loss: float | None
    eval_loss: float | None
    """The newest of a trial that runs, the best of one that has ended."""
    losses: tuple[float, ...]
    """Its eval losses after the start, oldest first; not finite where it diverged."""
    tokens_per_second: float | None
    outcome: str


@dataclass(frozen=True)
class State:
    """A sweep at a moment."""

    sweep: str
    doing: str
    elapsed: float
    """Seconds, pauses of the driver left out."""
    left: float | None = None
    """Seconds, estimated."""
    total: int = 0
    """Trials of the whole sweep, the repetitions of its best points among them."""
    tokens: int = 0
    tokens_expected: float | None = None
    """Of the whole sweep, estimated by how far its trials have come."""
    tokens_per_second: float | None = None
    """Of all running trials together."""
    device: str = ""
    busy: float | None = None
    """Devices that were training, on average since the first trial began."""
    memory_gb: float = 0.0
    """Of the fullest GPU."""
    data_wait: float = 0.0
    """Share of its time that a trial waited for rows; the largest."""
    quiet: float = 0.0
    """Seconds since the last event."""
    spent: Spent | None = None
    budgets: Mapping[str, float] = field(default_factory=dict)
    """Fields of the sweep that limit it, and its price; those that it has."""
    base: float | None = None
    best: TrialLine | None = None
    says: str = ""
    """What is recommended, in the words of the leaderboard."""
    running: tuple[TrialLine, ...] = ()
    finished: tuple[TrialLine, ...] = ()
    """Best first."""
    lines: tuple[str, ...] = ()
    """What was logged last, oldest first."""


@dataclass(frozen=True)
class Clock:
    """The times of a journal, in seconds since the epoch."""

    now: float
    first: float
    """The first event."""
    last: float
    """The newest."""
    pauses: tuple[tuple[float, float], ...]
    """From when to when no driver ran."""
    spent: Spent | None = None
    """By the newest event of it."""
    used_up: str = ""
    """The budget that is used up, as the field is called."""

    def between(self, start: float, end: float) -> float:
        """Seconds without pauses."""
        paused = sum(min(b, end) - a for a, b in self.pauses if start <= a < end)
        return max(0.0, end - start - paused)


class Plans:
    """The plans of a sweep's trials, each made once."""

    def __init__(self, record: SweepRecord, current: SweepConfig | None = None) -> None:
        """record: sweep.json. current: the sweep as it was called now, which may have other
        numbers of trials and other budgets."""
        fitted = {**record["config"], "search_space": record["search_space"]}
        self.sweep = sweep_from_json(fitted)
        if current is not None:
            numbers = {name: getattr(current, name) for name in _CHANGEABLE}
            self.sweep = replace(self.sweep, **numbers)
        train = record["data"]["train"]
        self.tokens_per_row = train["tokens"] / train["rows"]
        self._plan = planner(self.sweep, train["rows"], execution=ONE_ROW)
        self._plans: dict[str, TrialPlan] = {}

    def of(self, trial: TrialRecord) -> TrialPlan:
        """The plan of a trial."""
        if trial.trial not in self._plans:
            self._plans[trial.trial] = self._plan(self.sweep.trial.at(trial.point))
        return self._plans[trial.trial]


def state_of(
    plans: Plans, records: Records, clock: Clock, lines: Sequence[str], *, ended: bool
) -> State:
    """The state of a sweep whose sweep.json is there. ended: its journal says that it has."""
    sweep, board, used_up = plans.sweep, leaderboard(plans.sweep, records), clock.used_up
    here = [trial for trial in records.trials if trial.folder is None]
    running = [trial for trial in here if trial.outcome is None]
    rows = {trial.trial: _row(trial, plans, cut_off=bool(used_up)) for trial in records.trials}
    last = [trial.last for trial in running if trial.results]
    over = ended and not running
    to_come = _to_come(sweep, here, over=over)
    tokens = sum(trial.last["tokens"] for trial in here)
    expected = _tokens_expected(here, to_come, plans)
    training = _training_seconds(here, clock)
    left = None
    if tokens and training and expected is not None and not used_up:
        left = max(0.0, expected - tokens) * training / tokens
    return State(
        sweep=sweep.name,
        doing=f"{used_up} is used up" if used_up and not over else _doing(here, ended=ended),
        elapsed=clock.between(clock.first, clock.now),
        left=left,
        total=len(here) + sum(to_come),
        tokens=tokens,
        tokens_expected=expected,
        tokens_per_second=_rate(running) or (tokens / training if training else None),
        device=next((r["device"] for t in here for r in t.results[:1] if "device" in r), ""),
        busy=_busy(here, training),
        memory_gb=max((one.get("gpu_memory_gb") or 0.0 for one in last), default=0.0),
        data_wait=max((one.get("data_wait") or 0.0 for one in last), default=0.0),
        quiet=max(0.0, clock.now - clock.last),
        spent=clock.spent,
        budgets={name: value for name in BUDGETS if (value := getattr(sweep, name)) is not None},
        base=board["base"]["eval_loss"],
        best=rows.get(board["best"] or ""),
        says=recommended(board),
        running=tuple(rows[trial.trial] for trial in running),
        finished=tuple(rows[one["trial"]] for one in board["trials"] if one["outcome"]),
        lines=tuple(lines),
    )


def _to_come(sweep: SweepConfig, trials: Sequence[TrialRecord], *, over: bool) -> tuple[int, int]:
    """Trials that have not begun: of the search, and the best points with other seeds."""
    if over:  # a search may have tried all that there is
        return 0, 0
    repeated = sum(trial.confirms is not None for trial in trials)
    searched = 0 if repeated else max(0, sweep.total_trials - len(trials))
    return searched, max(0, sweep.confirm_top * sweep.confirm_seeds - repeated)


def _doing(trials: Sequence[TrialRecord], *, ended: bool) -> str:
    running = [trial for trial in trials if trial.outcome is None]
    if ended and not running:
        return "ended"
    if not any(trial.results for trial in trials):
        return "starting…"
    if any(trial.confirms for trial in running):
        return "confirming"
    return "training"


def _row(trial: TrialRecord, plans: Plans, *, cut_off: bool) -> TrialLine:
    running = UNFINISHED if cut_off else RUNNING if trial.results else STARTING
    plan, last, best = plans.of(trial), trial.last, trial.best
    shown = best if trial.outcome is not None and best is not None else last
    trained = [one for one in trial.results if one["step"] > 0]
    return TrialLine(
        trial=trial.trial,
        point=trial.point,
        step=last["step"],
        steps=plan.steps,
        rows=last["rows"],
        tokens=last["tokens"],
        rung=len(trial.decisions),
        rungs=0 if trial.confirms else len(plan.rungs),
        train_loss=last.get("train_loss"),
        eval_loss=shown.get("eval_loss") if trained else None,
        losses=tuple(float(one["eval_loss"]) for one in trained),
        tokens_per_second=last.get("tokens_per_second"),
        outcome=trial.outcome or running,
    )


def _tokens_expected(
    trials: Sequence[TrialRecord], to_come: tuple[int, int], plans: Plans
) -> float | None:
    """Of all trials, those to come included: they get as far as the others on average. A trial that
    runs gets as far as those did on average that survived as many rungs and came further; where
    there are none, and if it is a repetition, to its end."""
    if not any(trial.last["tokens"] for trial in trials):
        return None
    searched = [trial for trial in trials if not trial.confirms]
    ended = [trial for trial in searched if trial.outcome is not None]
    whole = {trial.trial: plans.of(trial).rows * plans.tokens_per_row for trial in trials}

    def expected(trial: TrialRecord) -> float:
        if trial.outcome is not None:
            return float(trial.last["tokens"])
        share, survived = _share(trial, plans), _survived(trial)
        others = [_share(one, plans) for one in ended if _survived(one) >= survived]
        further = [other for other in others if other > share and not trial.confirms] or [1.0]
        return float(whole[trial.trial] * sum(further) / len(further))

    later = to_come[0] * sum(map(expected, searched)) / max(len(searched), 1)
    later += to_come[1] * sum(whole.values()) / len(whole)
    return float(sum(map(expected, trials)) + later)


def _share(trial: TrialRecord, plans: Plans) -> float:
    """How far it has come, of its whole."""
    return float(trial.last["step"]) / plans.of(trial).steps


def _survived(trial: TrialRecord) -> int:
    return sum(event["decision"] == "continue" for event in trial.decisions)


def _training_seconds(trials: Sequence[TrialRecord], clock: Clock) -> float | None:
    """From the first trial's first report to the newest report, pauses left out."""
    times = [time for trial in trials for time in trial.times if time is not None]
    return (clock.between(min(times), max(times)) if times else 0.0) or None


def _rate(running: Sequence[TrialRecord]) -> float | None:
    """Tokens a second of the running trials together, each since the report before its newest."""
    rates: list[float] = []
    for trial in running:
        if len(trial.results) > 1:
            (before, then), (newest, now) = zip(trial.results[-2:], trial.times[-2:], strict=True)
            if then is not None and now is not None and now > then:
                rates.append((newest["tokens"] - before["tokens"]) / (now - then))
    return sum(rates) or None


def _busy(trials: Sequence[TrialRecord], training: float | None) -> float | None:
    spent = [trial.last.get("gpu_seconds") for trial in trials if trial.results]
    known = [seconds for seconds in spent if seconds is not None]
    return sum(known) / training if training and len(known) == len(spent) else None
