"""False and missed alarms: every verdict of a trial and every warning of a sweep, on recorded
trials, healthy ones and ones that were broken on purpose (by tests/record_alarms.py).

    python benchmarks/alarms.py            # the table of docs/diagnosis.md
    python benchmarks/alarms.py --list     # each trial that is judged wrongly
"""

from __future__ import annotations

import json
import lzma
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from console import argument_parser, say

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.data.packs.manifest import overlap_refusals
from sftray.plan.preflight import template_warning
from sftray.plan.trial_plan import plan_trial
from sftray.results.diagnosis.broken_base import base_warning
from sftray.results.diagnosis.diagnosis import diagnose
from sftray.results.diagnosis.neighbours import after_strange_batch, neighbours_of
from sftray.results.diagnosis.one_diagnosis import Diagnosis
from sftray.results.records import TrialRecord
from sftray.search.decisions import doubt_of_base
from sftray.search.search_trials import SearchTrial, Suggestion
from sftray.storage.journal.event_types import Metrics, Outcome

RECORDED = Path(__file__).parent.parent / "tests" / "recorded" / "alarms"
WITHIN = 1.10
"""A healthy trial ends within this of the lowest loss of its sweep at its batch."""
HEALTHY = "healthy"
STRANGE_BATCH = Diagnosis("strange_batch", "A strange batch.", "Look at the rows; no more.")
DAMAGES = (0.02, 0.03, 0.05)
"""Of a loss, planted in healthy trials."""
USUAL_RATE = 5e-4 * (2000 / 48) ** 0.781
"""Published for bases of 48 hidden units, as `plan.prior_points` has it."""


@dataclass(frozen=True)
class Judged:
    """A recorded trial, and what is said of it."""

    sweep: str
    what: str
    """What is wrong with it, or HEALTHY."""
    diagnosis: Diagnosis
    warning: str
    """Of its sweep, before its first step; or nothing."""

    @property
    def alarm(self) -> str:
        """The kind of alarm; nothing where there is none."""
        return "warning" if self.warning else self.diagnosis.kind if self.diagnosis.wrong else ""


def judged() -> list[Judged]:
    """All recorded trials that are either healthy or broken on purpose."""
    return [one for path in sorted(RECORDED.glob("*.jsonl.xz")) for one in _of(path)]


def _of(path: Path) -> Iterator[Judged]:
    sweep, what = path.name.removesuffix(".jsonl.xz").split(".")
    facts, *trials = _lines(path)
    lowest = {}
    for trial in trials:
        batch, best = trial["point"].get("effective_batch_size"), _best(trial)
        lowest[batch] = min(best, lowest.get(batch, math.inf))
    for number, trial in enumerate(trials):
        near = _best(trial) <= WITHIN * lowest[trial["point"].get("effective_batch_size")]
        if what == HEALTHY and not (near and trial.get("outcome") == Outcome.COMPLETED):
            continue
        base = float(trial["results"][0]["eval_loss"])
        record = _record(number, trial)
        config = TrialConfig("none").at(trial["point"])
        warnings = (
            base_warning(base, facts["entropy"]),
            *overlap_refusals({"eval": facts["overlap"]} if facts["overlap"] else {}),
            *template_warning(facts["template"], facts["own_template"]),
        )
        warning = next(filter(None, warnings), "")
        yield Judged(sweep, what, diagnose(record, config, base_loss=base), warning)


def _lines(path: Path) -> list[Any]:
    """What a file says of its sweep, and its trials."""
    return [*map(json.loads, lzma.decompress(path.read_bytes()).decode().splitlines())]


def _record(number: int, trial: dict[str, Any]) -> TrialRecord:
    return TrialRecord(f"t{number:04d}", trial["point"], trial["results"],
                       outcome=trial.get("outcome"), message=trial.get("message", ""),
                       last_curve=trial.get("last_curve", []))  # fmt: skip


def beside_neighbours(damage: float) -> list[bool]:
    """Of each healthy trial that has two neighbours, whether a strange batch would be called
    harmful where its loss at the end is raised by this share."""
    found = []
    for path in sorted(RECORDED.glob(f"*.{HEALTHY}.jsonl.xz")):
        _, *trials = _lines(path)
        records = [_record(number, trial) for number, trial in enumerate(trials)]
        for one in records:
            last = one.results[-1]
            raised: Metrics = {**last, "eval_loss": last["eval_loss"] * (1 + damage)}
            own = replace(one, results=[*one.results[:-1], raised])
            others = [other for other in records if other is not one]
            if len(neighbours_of(own, others, _config)) == 2:
                said = after_strange_batch(STRANGE_BATCH, own, others, _config)
                found.append(said.kind == "loss_spikes")
    return found


def _config(trial: TrialRecord) -> TrialConfig:
    return TrialConfig("none").at(trial.point)


def _best(trial: dict[str, Any]) -> float:
    losses = [float(one["eval_loss"]) for one in trial["results"] if one["step"] > 0]
    return min(filter(math.isfinite, losses), default=math.inf)


def doubted() -> dict[str, str]:
    """Sweeps whose base is doubted, by name, and why."""
    found = {}
    for path in sorted(RECORDED.glob("*.jsonl.xz")):
        _, *trials = _lines(path)
        tried = [_searched(number, trial) for number, trial in enumerate(trials)]
        sweep = SweepConfig("x", DataConfig("x.jsonl"), TrialConfig("none"), points=({"seed": 0},))
        base = float(trials[0]["results"][0]["eval_loss"])
        if doubt := doubt_of_base(sweep, tried, base, USUAL_RATE):
            found[path.name.removesuffix(".jsonl.xz")] = doubt
    return found


def _searched(number: int, trial: dict[str, Any]) -> SearchTrial:
    config = TrialConfig("none").at(trial["point"])
    plan = plan_trial(config, 1000, ladder=(), evals_per_trial=6)
    losses = {one["step"]: float(one["eval_loss"]) for one in trial["results"]}
    suggestion = Suggestion(f"t{number:04d}", trial["point"])
    return SearchTrial(suggestion, plan, None, None, losses, outcome=trial.get("outcome"))


def table(trials: list[Judged]) -> str:
    lines = ["| trials | number | alarms | by |", "|---|---|---|---|"]
    for what in dict.fromkeys([HEALTHY, *(one.what for one in trials)]):
        some = [one for one in trials if one.what == what]
        kinds = Counter(one.alarm for one in some if one.alarm)
        by = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
        lines.append(f"| {what.replace('_', ' ')} | {len(some)} | {kinds.total()} | {by} |")
    false, missed = rates(trials)
    return "\n".join([*lines, "", f"false alarms {false:.1%}, missed {missed:.1%}"])


def rates(trials: list[Judged]) -> tuple[float, float]:
    """The share of healthy trials with an alarm, and of broken ones without."""
    healthy = [bool(one.alarm) for one in trials if one.what == HEALTHY]
    broken = [bool(one.alarm) for one in trials if one.what != HEALTHY]
    return sum(healthy) / len(healthy), 1 - sum(broken) / len(broken)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    found = judged()
    for one in found if given.list else ():
        if bool(one.alarm) == (one.what == HEALTHY):
            say(f"{one.sweep} {one.what}: {one.diagnosis.kind}: {one.diagnosis.verdict}")
    say(table(found))
    number = len(list(RECORDED.glob("*.jsonl.xz")))
    for share in (0.0, *DAMAGES):
        said = beside_neighbours(share)
        say(f"raised by {share:.0%}: {sum(said)} of {len(said)} strange batches called harmful")
    say(f"the base is doubted in {len(doubted())} of {number} sweeps: {', '.join(doubted())}")
