"""The winner loaded to be asked, and its answers and its base's, for `sftray generate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftray.data.chat.asking import asked_of, prompt_ids, prompt_text
from sftray.data.chat.chat_format import ChatFormat
from sftray.data.source.conversations import conversation, spelling_of
from sftray.data.source.row_keys import BadRowError
from sftray.data.source.turns import Message, message
from sftray.errors import DataError, SftrayError
from sftray.storage import files
from sftray.winner.bundle import BundleFacts, open_bundle

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftray.config import TrialConfig


@dataclass(frozen=True)
class Question:
    """What is asked."""

    turns: list[Message]
    reference: str | None = None
    """The right answer, where it is known."""
    prompt: str | None = None
    """The turns as text, where the renderer of rows has written it already."""


@dataclass(frozen=True)
class AnswerPair:
    """What base and winner say to a question, and whether each came to its end."""

    question: Question
    base: str
    winner: str
    base_ended: bool
    winner_ended: bool


@dataclass(frozen=True)
class Winner:
    """What a bundle holds, loaded."""

    facts: BundleFacts
    trial: TrialConfig
    chat: ChatFormat
    """What writes its prompts: the renderer of its training rows."""
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    """The adapter on its base, or the whole model."""


def open_winner(folder: str, trust_remote_code: bool) -> Winner:
    """Load the winner of a sweep's or a bundle's folder."""
    local, facts = open_bundle(folder)
    trial = facts.as_trained(folder, trust_remote_code)
    from sftray.trial.base_model import saved_tokenizer
    from sftray.trial.eval_loss import load_trained

    tokenizer = saved_tokenizer(local, trial)
    chat = ChatFormat.from_json(facts.chat_format, tokenizer.backend_tokenizer.to_str())
    model, _ = load_trained(local, trial, facts.data.max_length)
    return Winner(facts, trial, chat, tokenizer, model)


def answer(
    folder: str, prompt: str, max_new_tokens: int, *, trust_remote_code: bool = False
) -> dict[str, str]:
    """Greedy answers of the untrained base and of the adapter, or of the trained model, to one user
    turn."""
    asked = [Question([{"role": "user", "content": prompt}])]
    facts, (pair,) = answer_all(folder, asked, max_new_tokens, trust_remote_code=trust_remote_code)
    return {"base": pair.base, facts.kind: pair.winner}


def answer_all(
    folder: str,
    questions: Sequence[Question] | str,
    max_new_tokens: int,
    *,
    trust_remote_code: bool = False,
) -> tuple[BundleFacts, list[AnswerPair]]:
    """The same to many, several at once; `questions` may be the path of a file of them."""
    winner = open_winner(folder, trust_remote_code)
    facts, trial, chat, tokenizer = winner.facts, winner.trial, winner.chat, winner.tokenizer
    from sftray.trial.base_model import computing_as
    from sftray.trial.eval_loss import load_untrained
    from sftray.trial.generation import base_answers, replies

    if isinstance(questions, str):
        questions = read_questions(questions, chat, facts.data.columns)
    asked = [prompt_ids(chat, one.prompt or prompt_text(chat, one.turns)) for one in questions]
    end = facts.end_of_turn
    model = winner.model
    with computing_as(trial, model.device):
        trained = replies(model, tokenizer, asked, end, max_new_tokens)
        if facts.is_whole:
            del model, winner  # there may be no room for both
            model = load_untrained(trial)
        base = base_answers(model, tokenizer, end, asked, max_new_tokens)
    return facts, [
        AnswerPair(one, *theirs[:1], *ours[:1], *theirs[1:], *ours[1:])
        for one, theirs, ours in zip(questions, base, trained, strict=True)
    ]


def read_questions(
    path: str, chat: ChatFormat, columns: str | Mapping[str, str] = "auto"
) -> list[Question]:
    """The questions in a file of JSON lines: conversations as training data has them, whose last
    answer is the reference; turns that end on the user's; {"prompt": …}; or a text. Raises
    DataError for another line, with its number."""
    names = {} if isinstance(columns, str) else dict(columns)
    found: list[Question] = []
    for number, line in enumerate(files.read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(_question(chat, json.loads(line), names))
        except (ValueError, BadRowError) as error:
            raise DataError(
                f"{path}:{number}: got {line[:80].decode(errors='replace')!r} ({error}), must be a "
                'conversation, {"prompt": "…"}, or a text, as JSON'
            ) from error
    if not found:
        raise SftrayError(f"{path}: got no line, must have one question at least")
    return found


def _question(chat: ChatFormat, row: object, names: Mapping[str, str]) -> Question:
    if isinstance(row, str):
        return Question([{"role": "user", "content": row}])
    if not isinstance(row, dict):
        raise BadRowError("no object and no text")
    row = {names.get(name, name): value for name, value in row.items()}
    turns = row.get("messages", row.get("prompt"))
    if isinstance(turns, str) and "completion" not in row:
        return Question([{"role": "user", "content": turns}])
    if isinstance(turns, list) and "completion" not in row and turns:
        last = message(turns[-1])
        if last["role"] == "user":
            return Question([message(turn) for turn in turns])
    spelling = spelling_of(row)
    if spelling is None:
        raise BadRowError("no conversation")
    talk, _ = conversation(row, spelling)
    if not (asked := asked_of(chat, [talk])):
        raise BadRowError("refused by the chat template")
    return Question(asked[0].turns, asked[0].reference, asked[0].prompt)
