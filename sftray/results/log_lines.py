"""What happens in a sweep as plain lines: the driver's log, and the same made from its journal."""

from __future__ import annotations

from sftray.config.points import Point, point_text
from sftray.results.records import Records, by_source
from sftray.storage.journal import Event
from sftray.storage.journal.event_types import SUSPENDED, AttemptEnded, EventName, Metrics


def line(event: Event, records: Records) -> str | None:
    """The line of an event that the records have; None of one that the log leaves out."""
    if event["trial"] is not None and event["trial"] not in records:
        return None
    match event["event"]:
        case EventName.RESULT if event["step"] == 0:
            trial = event["trial"]
            return begun(trial, records[trial].point, event["metrics"])
        case EventName.RESULT:
            return progress(event["trial"], event["metrics"])
        case EventName.ATTEMPT_ENDED:
            return recovers(event)
        case EventName.TRIAL_ENDED:
            return ended(event["trial"], event["outcome"], event["message"])
        case EventName.SWEEP_ENDED:
            return "the sweep has ended"
    return None


def begun(trial: str, point: Point, metrics: Metrics) -> str:
    """Of a trial's first report: its point and what it runs on."""
    return f"{trial}  started: {point_text(point)}  [{where(metrics)}]"


def progress(trial: str, metrics: Metrics) -> str:
    """Of an evaluation."""
    memory, speed = metrics.get("gpu_memory_gb"), metrics.get("tokens_per_second")
    words = [
        f"{trial}  step {metrics['step']:>5}  rows {metrics['rows']:>6}",
        *(
            f"{name} {value:{form}}"
            for name, value, form in (
                ("train", metrics.get("train_loss"), ".4f"),
                ("eval", metrics["eval_loss"], ".4f"),
                ("lr", metrics.get("learning_rate"), ".2e"),
                ("|g|", metrics.get("grad_norm"), ".2f"),
            )
            if value is not None
        ),
        *(f"{name} {loss:.4f}" for name, loss in by_source(metrics).items()),
        "" if speed is None else f"{speed:,.0f} tok/s",
        f"{memory:.1f} GB" if memory else "",
    ]
    return "  ".join(filter(None, words))


def recovers(ended: AttemptEnded) -> str:
    """Of an attempt that died, or was cut off without a fault of its own."""
    words = f" ({ended['message']})" if ended["message"] else ""
    what = "its attempt was cut off" if ended["class"] == SUSPENDED else "its attempt died"
    return f"{ended['trial']}  {what}{words}; it starts again from its last checkpoint"


def ended(trial: str, outcome: str, message: str) -> str:
    """Of a trial's end."""
    return f"{trial}  {outcome}" + (f" ({message})" if message else "")


def where(metrics: Metrics) -> str:
    """What a trial runs on."""
    attention = metrics.get("attention")
    on = (metrics.get("device") or "", f"attention {attention}")
    return ", ".join(on if attention else on[:1])


def proof(metrics: Metrics) -> str:
    """What is proved of a trial's attention, and which were passed over and why; empty where that
    is not known."""
    reason, equality = metrics.get("attention_because"), metrics.get("equality")
    passed_over = f"; passed over: {reason}" if reason else ""
    return f"attention {metrics.get('attention')}: {equality}{passed_over}" if equality else ""
