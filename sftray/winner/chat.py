"""A conversation with the winner and its base, each of which continues with its own answers.

Promise: every question is written by the renderer of the training rows, the answers before it among
them, so both are asked as the winner was trained. Price: of a whole model base and winner are in
memory together.
"""

from __future__ import annotations

from dataclasses import replace

from sftray.data.chat.asking import prompt_ids, prompt_text
from sftray.data.source.turns import Message, message
from sftray.trial.base_model import computing_as
from sftray.trial.eval_loss import load_untrained
from sftray.trial.generation import GREEDY, Sampling, base_answers, replies
from sftray.trial.samples import Reply
from sftray.winner.generate import open_winner

BASE = "base"


class Chat:
    """Base and winner of a sweep, each with its turns."""

    def __init__(
        self,
        folder: str,
        *,
        system: str | None = None,
        sampling: Sampling = GREEDY,
        max_new_tokens: int = 128,
        trust_remote_code: bool = False,
    ) -> None:
        """folder: a sweep's or a bundle's. system: a turn before all others."""
        self._winner = open_winner(folder, trust_remote_code)
        facts = self._winner.facts
        own = load_untrained(facts.config) if facts.is_whole else self._winner.model
        self._base, self.kind = own, facts.kind
        self._sampling, self._most = sampling, max_new_tokens
        self._first: list[Message] = []
        if system is not None:
            self._first.append(message({"role": "system", "content": system}))
        self.begin_again()

    def begin_again(self) -> None:
        """Forget all turns but the system one."""
        self._turns = {who: [*self._first] for who in (BASE, self.kind)}

    def ask(self, words: str) -> dict[str, Reply]:
        """The answers of "base" and of "adapter" or "model" to the user's words, after the turns
        before. Raises TemplateError where the template refuses a turn, and leaves the turns as they
        were."""
        asked = {
            who: [*turns, message({"role": "user", "content": words})]
            for who, turns in self._turns.items()
        }
        chat, tokenizer = self._winner.chat, self._winner.tokenizer
        prompts = {who: prompt_ids(chat, prompt_text(chat, turns)) for who, turns in asked.items()}
        number = sum(turn["role"] == "user" for turn in asked[BASE])
        sampling = replace(self._sampling, seed=self._sampling.seed + number - 1)
        end, most = self._winner.facts.end_of_turn, self._most
        with computing_as(self._winner.trial, self._winner.model.device):
            (base,) = base_answers(self._base, tokenizer, end, [prompts[BASE]], most, sampling)
            (winner,) = replies(
                self._winner.model, tokenizer, [prompts[self.kind]], end, most, sampling
            )
        answers = {BASE: base, self.kind: winner}
        for who, (text, _) in answers.items():
            asked[who].append(message({"role": "assistant", "content": text}))
        self._turns = asked
        return answers
