"""What is said of a trial: a kind, and two sentences."""

from __future__ import annotations

from dataclasses import dataclass

from sftray.config import TrialConfig

NOTHING_WRONG = ("healthy", "pruned", "too_early")
"""The kinds that ask for nothing; a pruned trial in which something looked wrong has that kind."""

NO_CHANGE = 0.01
"""A loss that moves by less than this share has not moved: some hundred steps usually halve train
loss, and 12 steps at a hundredth of a good rate have moved eval loss by 0.2 %."""


@dataclass(frozen=True)
class Diagnosis:
    """What became of a trial."""

    kind: str
    """A symptom, or the outcome where that is the whole story, or healthy, pruned, too_early."""
    verdict: str
    """One sentence: what happened, with its numbers."""
    advice: str
    """One sentence: what to do."""

    @property
    def wrong(self) -> bool:
        """Whether it asks for something to be done."""
        return self.kind not in NOTHING_WRONG


def lower_rate(config: TrialConfig, divisor: int) -> str:
    """The advice, without its full stop."""
    rate = config.learning_rate
    return f"Lower the learning rate from {rate:.3g} to about {rate / divisor:.1g}"
