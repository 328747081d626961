"""The search's state: which trials there are, what they reported, what was decided.

Promise: a pure function of the journal. Everything that happens is written there first and then
applied, by the same code that replays it, so a search built from any prefix of a journal continues
exactly as the one that wrote it. Neither Ray nor torch is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from sftray.config import SweepConfig, TrialConfig
from sftray.config.points import Point
from sftray.errors import JournalError
from sftray.plan.trial_plan import TrialPlan
from sftray.search import decisions
from sftray.search.asha import Decision
from sftray.search.sampler import Sampler
from sftray.search.search_trials import Best, KnownTrial, SearchTrial, Suggestion
from sftray.storage.journal import Event, Journal
from sftray.storage.journal import event_types as events
from sftray.storage.journal.event_types import CONTINUE, HALTS, OUTAGE, STOP, EventName, Outcome


class Search:
    """What to try next, and whether a trial continues."""

    def __init__(
        self,
        sweep: SweepConfig,
        journal: Journal,
        plan: Callable[[TrialConfig], TrialPlan],
        too_large: Callable[[TrialConfig], str | None] = lambda trial: None,
        first: Sequence[Point] = (),
        spent: Callable[[], str] = lambda: "",
        usual_rate: float | None = None,
    ) -> None:
        """`too_large` says why a trial would not fit the memory: it ends before it begins. `first`:
        the points that the search begins with. `spent` says which of the sweep's budgets is
        used up: then no trial continues. `usual_rate`: the rate published for the base's size."""
        self._sweep = sweep
        self._journal = journal
        self._plan = plan
        self._too_large = too_large
        self._spent = spent
        self._usual_rate = usual_rate
        self._sampler = None if sweep.points else Sampler(sweep, first)
        self._trials: dict[str, SearchTrial] = {}
        self.damaged = ""
        """What a trial has said of damaged data, all trials having the same, since this search was
        made; or nothing."""
        self.halted: tuple[str, str] | None = None
        """Which of HALTS a trial has met, and its message."""
        self.doubted = ""
        """Why the base, its template or its attention must be broken; or nothing."""
        self.enough = ""
        """Why the trials that are left are not begun; or nothing."""
        self._total = sweep.total_trials
        self._drawn = 0
        """How many trials are this search's own."""
        self._confirmed: dict[str, list[int]] = {}
        """Trials that are run again, with these seeds."""
        self._rungs: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        """(bracket, rows) → what was judged there, by trial."""
        for event in journal.events():
            self._apply(event)
        self.damaged = ""  # it may have been mended since
        self._finish_what_was_begun()
        self._doubt_base()

    def suggest(self) -> Suggestion | None:
        """The next trial, journalled before it is returned; None when there are enough, or the
        search has stopped."""
        while not self.stopped and (event := self._next()):
            self._record([event])
            state = self._trials[event["trial"]]
            if not self._refused(state):
                return state.suggestion
        return None

    def remaining(self) -> int:
        """How many trials are still to be run, those that have begun among them."""
        points: float = self._left()
        if self._sampler:
            points = min(points, self._sampler.left())
        repeats = sum(len(seeds) for seeds in self._confirmed.values())
        repeated = sum(state.confirms is not None for state in self._trials.values())
        return len(self.unfinished()) + int(max(points, 0)) + repeats - repeated

    def take_over(self, known: Iterable[KnownTrial]) -> None:
        """Journal trials of other sweeps as if they had run in this one. For a search that has not
        begun: the sampler has not drawn them, but gets how they ended."""
        for one in known if not self._trials else ():
            trial = self._next_trial()
            self._record(
                [
                    events.trial_suggested(trial, one.point, folder=one.folder),
                    *(events.result(trial, metrics) for metrics in one.results),
                    events.trial_ended(trial, one.outcome, f"ran in {one.sweep}"),
                ]
            )

    def confirm(self) -> bool:
        """Have the best points run again with new seeds; whether there is anything to run. Those
        that were chosen before stay."""
        seeds = [self._sweep.trial.seed + one for one in range(1, self._sweep.confirm_seeds + 1)]
        chosen = decisions.chosen_points(self._sweep, self._trials.values())
        fresh = [
            events.Confirmation(event=EventName.CONFIRMATION, trial=trial, seeds=seeds)
            for trial in chosen
        ]
        self._record(fresh)
        return self.remaining() > 0

    def searching(self) -> bool:
        """Whether there are trials to be run that are no repetitions."""
        begun = any(s.outcome is None and not s.confirms for s in self._trials.values())
        left = self._sampler.left() if self._sampler else 1
        return begun or (self._left() > 0 and left > 0)

    def unfinished(self) -> list[Suggestion]:
        """The trials that were suggested and have not ended, oldest first."""
        return [trial.suggestion for trial in self._trials.values() if trial.outcome is None]

    def last_step(self, trial: str) -> int | None:
        """The step of a trial's newest evaluation; None before the first."""
        return max(self._trials[trial].losses, default=None)

    def attempt(self, trial: str) -> int:
        """Journal that a trial starts, or starts again; returns the attempt number, from 1."""
        number = self._trials[trial].attempts + 1
        started = events.AttemptStarted(
            event=EventName.ATTEMPT_STARTED, trial=trial, attempt=number
        )
        self._record([started])
        return number

    def attempt_ended(self, trial: str, message: str, what: str = Outcome.FAILED) -> None:
        """Journal that the running attempt of a trial "failed", or was "preempted" or SUSPENDED.
        The trial may be started again."""
        ended: events.AttemptEnded = {
            "event": EventName.ATTEMPT_ENDED,
            "trial": trial,
            "attempt": self._trials[trial].attempts,
            "class": what,
            "message": message,
        }
        self._record([ended])

    def record(
        self,
        trial: str,
        metrics: events.ReportValues,
        outcome: str | None = None,
        message: str = "",
    ) -> str:
        """Take a trial's report; "stop" if the trial has ended by it, else "continue".

        It ends by its own `outcome` if it names one, as diverged by an eval loss that is not
        finite, or pruned by ASHA. A step that was recorded before keeps its record and decision.
        Where the search has stopped, it stops without an end; but where all that it still has to
        say is its outcome, no budget stops it.
        """
        state, step = self._trials[trial], int(metrics["step"])
        if state.outcome is None:
            loss = state.losses.get(step, metrics.get("eval_loss"))
            state.judged_by.setdefault(step, decisions.judged_value(self._sweep, metrics))
            state.peers.setdefault(step, decisions.peers_of(self._sweep, metrics))
            found = decisions.consequences(
                self._sweep, self._rungs, state, step, loss, outcome, message
            )
            for event in found:
                if event["event"] == EventName.TRIAL_ENDED:
                    events.add_last_words(event, metrics)
            known = step in state.losses
            self._record(found if known else [events.result(trial, metrics), *found])
        if state.outcome is not None or self.damaged or self.halted or self.broken:
            return STOP
        return STOP if self._spent() and step < state.plan.steps else CONTINUE

    def end(self, trial: str, outcome: str, message: str = "") -> None:
        """Journal a trial's end; the first outcome of a trial stands. One of HALTS is none."""
        if outcome in HALTS:
            self.halt(trial, message, outcome)
        elif self._trials[trial].outcome is None:
            self._record([events.trial_ended(trial, outcome, message)])

    def returned(self, trial: str) -> None:
        """End a trial that returned without naming its outcome."""
        state = self._trials[trial]
        last = max(state.losses, default=0)
        if last == state.plan.steps:
            self.end(trial, Outcome.COMPLETED)
        else:
            self.end(trial, Outcome.FAILED, f"it returned after step {last} of {state.plan.steps}")

    def gave_up(self, trial: str) -> None:
        """End a trial that is not started again after its last attempt failed."""
        if not self.halted:
            self.end(trial, Outcome.FAILED, self._trials[trial].message)

    def halt(self, trial: str, message: str, what: str = OUTAGE) -> None:
        """Stop: a trial has met what no trial can do about. It stays unfinished."""
        self.attempt_ended(trial, message, what)
        self.halted = self.halted or (what, message)

    def continue_elsewhere(self) -> None:
        """Another trainer has taken the place of one that was unfit."""
        self.halted = None

    @property
    def broken(self) -> str:
        """`doubted`, where that stops the sweep."""
        return self.doubted if self._sweep.on_broken_base == "stop" else ""

    @property
    def stopped(self) -> bool:
        """Whether no trial continues, for a reason that is the same for all."""
        return bool(self.damaged or self.halted or self.broken or self._spent())

    def outcome_of(self, trial: str) -> str | None:
        """A trial's outcome; None while it has none."""
        return self._trials[trial].outcome

    def base_eval_loss(self) -> float | None:
        """The untrained base's, as the first trial has measured it; None before."""
        return next((state.losses[0] for state in self._trials.values() if 0 in state.losses), None)

    def best(self) -> Best | None:
        """The lowest eval loss of any trial so far, ties to the earlier trial."""
        found = [(best, trial) for trial, state in self._trials.items() if (best := state.best())]
        if not found:
            return None
        (loss, step), trial = min(found, key=lambda one: one[0][0])
        return Best(trial, step, loss)

    def _next(self) -> events.TrialSuggested | None:
        """The next point of the search, else the next repetition; None where none is left."""
        trial, point = self._next_trial(), None
        if self._left() > 0:
            point = self._sampler.ask() if self._sampler else self._sweep.points[self._drawn]
        if point is not None:  # None also where all of the space has been tried
            return events.trial_suggested(trial, point)
        return decisions.next_repetition(self._sweep, self._trials, self._confirmed, trial)

    def _left(self) -> int:
        """How many trials are still to be drawn; none once the search has enough."""
        left = self._total - self._drawn
        if reason := decisions.enough(self._sweep, self._trials.values(), left):
            self.enough, self._total, left = reason, self._drawn, 0
        return left

    def _next_trial(self) -> str:
        return f"t{len(self._trials):04d}"

    def _record(self, fresh: Sequence[events.TrialEvent]) -> None:
        for event in self._journal.append_all(fresh):
            self._apply(event)
        if any(event["event"] == EventName.TRIAL_ENDED or _of_base(event) for event in fresh):
            self._doubt_base()

    def _doubt_base(self) -> None:
        if self.doubted:
            return
        base, trials = self.base_eval_loss(), self._trials.values()
        if doubt := decisions.doubt_of_base(self._sweep, trials, base, self._usual_rate):
            event = events.BaseDoubted(event=EventName.BASE_DOUBTED, trial=None, message=doubt)
            for written in self._journal.append_all([event]):
                self._apply(written)

    def _refused(self, state: SearchTrial) -> bool:
        """End a trial that does not fit the memory."""
        reason = self._too_large(self._sweep.trial.at(state.suggestion.point))
        if reason is not None:
            self.end(state.suggestion.trial, Outcome.OUT_OF_MEMORY, reason)
        return reason is not None

    def _finish_what_was_begun(self) -> None:
        """Write what the last report entailed, where the writer died in the middle of it."""
        for state in self._trials.values():
            if state.outcome is None and not self._refused(state) and state.losses:
                step = max(state.losses)
                loss = state.losses[step]
                self._record(decisions.consequences(self._sweep, self._rungs, state, step, loss))

    def _apply(self, event: Event) -> None:
        if event["event"] == EventName.TRIAL_SUGGESTED:
            self._apply_suggested(event)
            return
        if event["event"] == EventName.BASE_DOUBTED:
            self.doubted = event["message"]
        state = self._trials.get(event["trial"]) if event["trial"] else None
        if state is None:
            return
        match event["event"]:
            case EventName.CONFIRMATION:
                self._confirmed[event["trial"]] = event["seeds"]
            case EventName.ATTEMPT_STARTED:
                state.attempts = event["attempt"]
            case EventName.ATTEMPT_ENDED:
                state.message = event["message"]
            case EventName.RESULT:
                metrics = event["metrics"]
                state.losses[event["step"]] = metrics.get("eval_loss")
                state.metric = metrics.get("metric", state.metric)
                state.judged_by[event["step"]] = decisions.judged_value(self._sweep, metrics)
                state.peers[event["step"]] = decisions.peers_of(self._sweep, metrics)
            case EventName.DECISION:
                self._apply_decision(state, event)
            case EventName.TRIAL_ENDED:
                state.outcome = event["outcome"]
                state.metric = event.get("metric", state.metric)
                if state.outcome == Outcome.DATA_ERROR:
                    self.damaged = event["message"]
                state.value = decisions.objective_value(self._sweep, state)

    def _apply_suggested(self, event: events.TrialSuggested) -> None:
        trial, point, confirms = event["trial"], event["point"], event.get("confirms")
        expected = self._next_trial()
        if trial != expected or not (confirms or decisions.can_be(self._sweep, point, self._drawn)):
            raise JournalError(
                f"journal: got {trial} at {point}, which this sweep would not suggest as "
                f"{expected}; it belongs to another sweep, so give this one another --name"
            )
        plan, folder = self._plan(self._sweep.trial.at(point)), event.get("folder")
        state = SearchTrial(Suggestion(trial, point, not confirms), plan, confirms, folder)
        self._trials[trial] = state
        if self._sampler and not confirms:
            self._sampler.add(state)
        self._drawn += confirms is None and folder is None

    def _apply_decision(self, state: SearchTrial, event: events.RungDecision) -> None:
        judged = state.judged_by.get(event["step"])
        if judged is None:
            raise JournalError(
                f"journal: got a decision for {event['trial']} at step {event['step']}, where it "
                "has nothing to be judged by",
                "restore the journal from a copy, or start the sweep afresh under another --name",
            )
        goes_on, cutoff = event["decision"] == CONTINUE, event["cutoff"]
        cutoff = None if cutoff is None else decisions.turned(self._sweep, cutoff)
        state.decisions[event["step"]] = Decision(goes_on, cutoff)
        self._rungs[event["bracket"], event["rung"]][event["trial"]] = judged


def _of_base(event: Event) -> bool:
    """Whether it is a result of the untrained base."""
    return event["event"] == EventName.RESULT and event["step"] == 0
