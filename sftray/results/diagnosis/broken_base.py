"""Signs that the base, its chat template or its attention is broken, and not the learning rate."""

from __future__ import annotations

import math
from dataclasses import replace

from sftray.results.diagnosis.one_diagnosis import Diagnosis
from sftray.results.records import Records, TrialRecord


def base_warning(base_loss: float, entropy: float) -> str | None:
    """A line where the base knows less of the answers than how frequent their tokens are; entropy:
    of those frequencies, in nats."""
    if base_loss <= entropy or math.isinf(entropy):
        return None
    return (
        f"warning: the base's eval loss is {base_loss:.4f}; guessing by how frequent tokens are "
        f"gives {entropy:.4f}. A pretrained base is far below that: check the base, its chat "
        "template and `sftray inspect`"
    )


def without_rates(diagnosis: Diagnosis, trial: TrialRecord, records: Records) -> Diagnosis:
    """The diagnosis of a trial, whose advice is not about rates where the base is doubted and the
    trial has not come below it."""
    base, best = records.base_eval_loss(), trial.best
    if not records.base_doubted or (best and base is not None and best["eval_loss"] <= base):
        return diagnosis
    advice = "Check the base, its chat template and `sftray inspect`: no rate helps here."
    return replace(diagnosis, advice=advice)
