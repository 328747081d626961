"""Our search behind Ray Tune's two interfaces; the only file of this room that imports Ray.

Promise: neither adapter decides or remembers anything that the journal does not hold. Tune pickles
both into its experiment folder; there they are empty shells, for nothing of Tune's is ever read
back. A restart is a new Tuner fed by the replayed journal.

Tune calls, in one process and one thread: `suggest`, `on_trial_add` (also before each retry),
`on_trial_result` a report, `on_trial_error` a failed attempt, and at the end of a trial either
`on_trial_complete` of both or, when no retry is left, `on_trial_complete(error=True)` of the
searcher alone. Trials that are cut off with the sweep itself (Ctrl-C, a stopper) get no call and
stay unfinished in the journal, to be resumed.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ray import cloudpickle
from ray.tune.experiment import Trial
from ray.tune.result import (
    AUTO_RESULT_KEYS,
    DONE,
    EXPERIMENT_TAG,
    RESULT_DUPLICATE,
    SHOULD_CHECKPOINT,
    TRIAL_ID,
)
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sftray.cluster.ray_errors import plain
from sftray.errors import OutageError, last_line
from sftray.search.search import Search
from sftray.storage.journal.event_types import STOP, ReportValues

if TYPE_CHECKING:
    from sftray.cluster.ray_private import TuneController

_TUNES_OWN = {
    *AUTO_RESULT_KEYS,
    DONE,
    EXPERIMENT_TAG,
    RESULT_DUPLICATE,
    SHOULD_CHECKPOINT,
    TRIAL_ID,
}


class SftraySearcher(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Hands out unfinished trials first, then new points.

    A trial's Tune config is {"trial": id, "point": {…}, "judged": …, "base_eval_loss": …, **extra}.
    """

    def __init__(self, search: Search, extra: Mapping[str, object] | None = None) -> None:
        super().__init__()  # without a metric, which Tune would then demand of every result
        self._search = search
        self._extra = dict(extra or {})
        self._unfinished = deque(search.unfinished())
        self._trials: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, object] | str:
        if self._search.stopped:
            return str(Searcher.FINISHED)
        suggestion = self._unfinished.popleft() if self._unfinished else self._search.suggest()
        if suggestion is None:
            return str(Searcher.FINISHED)
        self._trials[trial_id] = suggestion.trial
        return {
            "trial": suggestion.trial,
            "point": suggestion.point,
            "judged": suggestion.judged,
            "base_eval_loss": self._search.base_eval_loss(),
            **self._extra,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, object] | None = None, error: bool = False
    ) -> None:
        if error:
            self._search.gave_up(self._trials[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal has it."""

    def __getstate__(self) -> dict[str, object]:
        return {}


class SftrayScheduler(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in order, passes their reports on, and stops those that the search stops.

    The last report of a trial carries "outcome" and, where there is something to say, "message".
    """

    _supports_buffered_results = False

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        self._search.attempt(_name(trial))

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        error = plain(_error_of(trial), tempfile.gettempdir())
        if isinstance(error, OutageError):
            self._search.halt(_name(trial), str(error))
        else:
            self._search.attempt_ended(_name(trial), _failure_of(trial))

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> str:
        metrics = cast(ReportValues, {key: value for key, value in result.items() if _is_ours(key)})
        outcome, message = metrics.pop("outcome", None), metrics.pop("message", "")
        if "interrupted" in metrics:  # and another attempt goes on, unseen by Tune
            self._search.attempt_ended(_name(trial), message, metrics["interrupted"])
            self._search.attempt(_name(trial))
        if "step" not in metrics:
            if outcome is not None:
                self._search.end(_name(trial), outcome, message)
            return str(TrialScheduler.CONTINUE)
        decision = self._search.record(_name(trial), metrics, outcome, message)
        if decision == STOP and outcome is None:
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)  # it named its outcome and is about to return

    def on_trial_complete(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> None:
        if self._search.outcome_of(_name(trial)) is None and not self._search.stopped:
            self._search.returned(_name(trial))

    def debug_string(self) -> str:
        best = self._search.best()
        return f"best: {best.trial} at {best.eval_loss:.4f}" if best else "no evaluation yet"

    def __getstate__(self) -> dict[str, object]:
        return {}


def _name(trial: Trial) -> str:
    return str(trial.config["trial"])


def _error_of(trial: Trial) -> Exception:
    """What Tune keeps of a failure."""
    file = trial.pickled_error_file
    error = cloudpickle.loads(Path(file).read_bytes()) if file and Path(file).exists() else None
    return error if isinstance(error, Exception) else RuntimeError("it died without a message")


def _failure_of(trial: Trial) -> str:
    """What Ray wrote of it, its innermost exception."""
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    return last_line(text) or "it died without a message"


def _is_ours(key: str) -> bool:
    return key not in _TUNES_OWN and not key.startswith("config/")
