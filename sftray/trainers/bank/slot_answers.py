"""What slots that are evaluated together answer, and what is reported of it.

Promise: those that are asked the same answer in one batch; whoever the metric scores has room for
its references.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from sftray.config import TrialConfig
from sftray.data.packs.packs import Packs
from sftray.trainers.bank.adapters import Adapters
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.greedy_answers import greedy_answers
from sftray.trainers.bank.slot import Slot
from sftray.trial.base_model import load_tokenizer
from sftray.trial.samples import Sample, judged, prompt_tokens, prompts_at, scored_at, tokens_at
from sftray.trial.trial_report import Answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Answered = Mapping[Slot, tuple[list[Sample], Answers]]
"""Samples to keep, and what is to be reported of them; nothing of a slot that is not asked."""


class SlotAnswers:
    """Asks the adapters of a bank."""

    def __init__(
        self,
        decoder: Decoder,
        adapters: Adapters,
        packs: Packs,
        trial: TrialConfig,
        ends: Collection[int],
    ) -> None:
        self._decoder, self._adapters = decoder, adapters
        self._packs, self._trial, self._ends = packs, trial, ends
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def of(self, places: Mapping[Slot, int]) -> Answered:
        """Of slots at their places."""
        found: dict[Slot, tuple[list[Sample], Answers]] = {}
        for scored in (False, True):
            alike = {
                slot: place
                for slot, place in places.items()
                if scored_at(slot.spec, slot.step) == scored
            }
            found |= self._together(alike)
        return found

    def _together(self, places: Mapping[Slot, int]) -> Answered:
        asked = {slot: prompts_at(slot.spec, self._packs, slot.step) for slot in places}
        if not any(asked.values()):
            return {}
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._trial, self._packs.chat_template)
        first = min(places.values())
        replies = greedy_answers(
            self._decoder,
            # what lies between comes along: no copy
            self._adapters.work[first : max(places.values()) + 1],
            self._tokenizer,
            prompt_tokens(self._packs, next(iter(asked.values()))),  # the sweep's
            self._ends,
            max(tokens_at(slot.spec, self._packs, slot.step) for slot in places),
        )
        return {
            slot: judged(slot.spec, asked[slot], slot.step, replies[place - first])
            for slot, place in places.items()
        }
