"""What a sweep writes down: the events of its journal, the metrics of a trial, its outcomes.

Promise: every name stands here once. On the disk an event is one JSON object, read back it is the
same dictionary: names are plain strings then, equal to the members here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, NotRequired, TypedDict, Union

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EventName(StrEnum):
    """What happened."""

    DRIVER_STARTED = "driver_started"
    SWEEP_STARTED = "sweep_started"
    TRIAL_SUGGESTED = "trial_suggested"
    CONFIRMATION = "confirmation"
    ATTEMPT_STARTED = "attempt_started"
    ATTEMPT_ENDED = "attempt_ended"
    RESULT = "result"
    DECISION = "decision"
    TRIAL_ENDED = "trial_ended"
    SPENT = "spent"
    SWEEP_ENDED = "sweep_ended"
    BASE_DOUBTED = "base_doubted"


class Outcome(StrEnum):
    """How a trial ended."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    DATA_ERROR = "data_error"
    PREEMPTED = "preempted"
    FAILED = "failed"


OUTAGE: Final = "outage"
"""What a trial reports instead of an outcome: the sweep stops, and the trial stays unfinished."""
BROKEN_BASE: Final = "broken_base"
"""As OUTAGE, where no attention computes the base."""
UNFIT_TRAINER: Final = "unfit_trainer"
"""As OUTAGE, where the trainer does not compute the base; another takes its place."""
HALTS: Final = (OUTAGE, BROKEN_BASE, UNFIT_TRAINER)
SUSPENDED: Final = "suspended"
"""How an attempt ended that was cut off while its driver, or all that it runs on, was suspended: it
counts for nothing, and another continues."""
CONTINUE: Final = "continue"
STOP: Final = "stop"


Curve = Union[Sequence[Sequence[float]], "NDArray[np.float64]"]
"""Of some steps [step, train_loss, learning_rate, grad_norm]; an array where many are kept."""


LossOf = tuple[str, float, int]
"""A source or a kind of token (`data.chat.token_kinds`), its eval loss, and how many there are."""


class RanWith(TypedDict, total=False):
    """What a trial runs with: in its metrics at step 0, and where it continues."""

    device: str
    attention: str
    attention_because: str
    equality: str
    """How near its attention is to transformers' eager one in float32."""
    isolation_max_change: float
    trained_parameters: int
    activation_checkpointing: bool
    resident_base: bool
    liger: bool
    micro_batch_size: int
    accumulation: int
    bank_slots: int
    out_of_memory: str
    """What it runs with less of, where memory ran out."""
    placement_group: str | None
    startup_seconds: float


class Metrics(RanWith):
    """What a trial reports of an evaluation, at step 0 of the untrained base."""

    step: int
    rows: int
    tokens: int
    supervised_tokens: int
    eval_loss: float
    eval_loss_by_kind: NotRequired[Sequence[LossOf]]
    eval_loss_by_source: NotRequired[Sequence[LossOf]]
    """Of several sources, of whose losses eval_loss is the weighted mean."""
    seconds: float
    """In training steps."""
    gpu_seconds: NotRequired[float]
    energy_wh: NotRequired[float]
    """Of its GPUs, by their own counters; of a bank's GPU its slot's share."""
    epoch: NotRequired[float]
    train_loss: NotRequired[float]
    learning_rate: NotRequired[float]
    grad_norm: NotRequired[float]
    tokens_per_second: NotRequired[float]
    gpu_memory_gb: NotRequired[float]
    data_wait: NotRequired[float]
    curve: NotRequired[Curve]
    """[step, train_loss, learning_rate, grad_norm] of each step since the last evaluation."""
    rung_peers: NotRequired[Sequence[tuple[str, float]]]
    """[trial, loss] of trials that reached the same rung in the same step, as they are judged; the
    metric where that judges."""
    answer_flags: NotRequired[list[list[str]]]
    metric: NotRequired[float]
    """Of its answers then, where they are scored."""
    resumed_from_step: NotRequired[int]


class ReportValues(Metrics):
    """What a trial's client passes to the search: metrics, or only how the trial ended (then there
    is no `step`), or that an attempt was `interrupted` and another continues."""

    outcome: NotRequired[str]
    message: NotRequired[str]
    interrupted: NotRequired[str]
    last_curve: NotRequired[list[list[float]]]


class _OfSweep(TypedDict):
    trial: None
    time: NotRequired[float]
    """Seconds since the epoch, of an event that was journalled."""


class _OfTrial(TypedDict):
    trial: str
    time: NotRequired[float]


class DriverStarted(_OfSweep):
    """On a URI: `attempt` is the epoch of the lease."""

    event: Literal[EventName.DRIVER_STARTED]
    attempt: int
    owner: str
    lease: str


class SweepStarted(_OfSweep):
    event: Literal[EventName.SWEEP_STARTED]
    uid: str
    first: NotRequired[list[dict[str, Any]]]
    """The points that the search begins with."""


class TrialSuggested(_OfTrial):
    event: Literal[EventName.TRIAL_SUGGESTED]
    point: dict[str, Any]
    confirms: NotRequired[str]
    """The trial that it repeats with another seed."""
    folder: NotRequired[str]
    """Where it ran, if that was another sweep."""


class Confirmation(_OfTrial):
    event: Literal[EventName.CONFIRMATION]
    seeds: list[int]


class AttemptStarted(_OfTrial):
    event: Literal[EventName.ATTEMPT_STARTED]
    attempt: int


AttemptEnded = TypedDict(
    "AttemptEnded",
    {
        "event": Literal[EventName.ATTEMPT_ENDED],
        "trial": str,
        "time": NotRequired[float],
        "attempt": int,
        "class": str,
        "message": str,
    },
)
"""`class` is "failed", "preempted", SUSPENDED or one of HALTS."""


class Result(_OfTrial):
    event: Literal[EventName.RESULT]
    step: int
    metrics: Metrics


class RungDecision(_OfTrial):
    event: Literal[EventName.DECISION]
    step: int
    rung: int
    """In rows."""
    decision: Literal["continue", "stop"]
    bracket: str
    cutoff: float | None
    """The loss, or metric, that was good enough."""
    metric: NotRequired[float]
    """That it was judged by, where that is no loss."""


class TrialEnded(_OfTrial):
    event: Literal[EventName.TRIAL_ENDED]
    outcome: str
    message: str
    metric: NotRequired[float]
    answer_flags: NotRequired[list[list[str]]]
    last_curve: NotRequired[list[list[float]]]
    """The `curve` after the last evaluation, of a trial that diverged."""


class SpentSoFar(_OfSweep):
    """Over all starts, which `attempt` counts."""

    event: Literal[EventName.SPENT]
    attempt: int
    wall_seconds: float
    gpu_seconds: float
    budget: str
    """The budget that has ended the sweep, as the field is called; or nothing."""


class BaseDoubted(_OfSweep):
    """The base, its template or its attention is broken, as far as the trials show."""

    event: Literal[EventName.BASE_DOUBTED]
    message: str


class SweepEnded(_OfSweep):
    event: Literal[EventName.SWEEP_ENDED]


TrialEvent = (
    TrialSuggested | Confirmation | AttemptStarted | AttemptEnded | Result | RungDecision
    | TrialEnded
)  # fmt: skip
Event = DriverStarted | SweepStarted | TrialEvent | SpentSoFar | BaseDoubted | SweepEnded


def trial_suggested(
    trial: str, point: Mapping[str, Any], *, confirms: str | None = None, folder: str | None = None
) -> TrialSuggested:
    event = TrialSuggested(event=EventName.TRIAL_SUGGESTED, trial=trial, point=dict(point))
    if confirms is not None:
        event["confirms"] = confirms
    if folder is not None:
        event["folder"] = folder
    return event


def result(trial: str, metrics: Metrics) -> Result:
    return Result(event=EventName.RESULT, trial=trial, step=metrics["step"], metrics=metrics)


def trial_ended(trial: str, outcome: str, message: str = "") -> TrialEnded:
    """Raises ValueError where `outcome` is none."""
    if outcome not in list(Outcome):
        raise ValueError(f"outcome: got {outcome!r}, must be one of {', '.join(Outcome)}")
    return TrialEnded(event=EventName.TRIAL_ENDED, trial=trial, outcome=outcome, message=message)


def add_last_words(event: TrialEnded, report: ReportValues) -> None:
    """Put what a trial's last report has besides its outcome into the event of its end."""
    if "metric" in report:
        event["metric"] = report["metric"]
    if "answer_flags" in report:
        event["answer_flags"] = report["answer_flags"]
    if "last_curve" in report:
        event["last_curve"] = report["last_curve"]
