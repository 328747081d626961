"""Writes the demo's chat data: 2,400 short English conversations composed from our own pools.

`python -m sftray.demo.make_chats [OUT]` writes one JSON object a line,
`{"messages": [{"role": ..., "content": ...}, ...]}`, to OUT (`chats.jsonl` beside this file).
The same bytes come out of every call: all choices are drawn from one seed. No first user turn
occurs twice; figures, dates and units are computed, not written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from sftray.demo import _dialogues, _facts, _household, _numbers, _texts, _writing
from sftray.demo._english import Answer, Talk, bullets, numbered
from sftray.demo._pools import NAMES

SEED = 20_240_611
OUT = Path(__file__).with_name("chats.jsonl")

Family = Callable[[Random], Talk]
FAMILIES: tuple[tuple[Family, int], ...] = (
    (_facts.reasons, 180),
    (_facts.definitions, 105),
    (_facts.comparisons, 80),
    (_facts.yes_or_no, 65),
    (_facts.quizzes, 20),
    (_facts.riddles, 30),
    (_facts.opposites, 25),
    (_numbers.units, 65),
    (_numbers.measures, 55),
    (_numbers.sums, 60),
    (_numbers.stories, 75),
    (_numbers.percents, 45),
    (_numbers.purse, 35),
    (_numbers.calendar, 45),
    (_numbers.clock, 45),
    (_numbers.rows_of_numbers, 30),
    (_texts.sorting, 45),
    (_texts.kinds, 35),
    (_texts.extraction, 45),
    (_texts.sentiment, 50),
    (_texts.topics, 45),
    (_texts.forms, 40),
    (_texts.plurals, 20),
    (_texts.tone, 40),
    (_texts.summary, 60),
    (_texts.correction, 40),
    (_writing.rhymes, 25),
    (_writing.verses, 50),
    (_writing.tales, 85),
    (_writing.letters, 85),
    (_texts.steps_in_order, 20),
    (_household.recipes, 100),
    (_household.swaps, 20),
    (_household.packing, 45),
    (_household.plants, 50),
    (_household.devices, 55),
    (_household.how_to, 70),
    (_household.travels, 35),
    (_household.gifts, 30),
    (_dialogues.shop, 60),
    (_dialogues.opening_hours, 30),
    (_dialogues.appointment, 40),
    (_dialogues.table, 30),
    (_dialogues.menu, 25),
    (_dialogues.clarifying, 40),
    (_dialogues.declining, 45),
    (_dialogues.small_talk, 40),
    (_dialogues.remembering, 20),
    (_dialogues.plans, 20),
)
"""Each family with its number of conversations."""

SYSTEM_SHARE = 0.24  # of the conversations whose answers can take another form
GREETED_SHARE = 0.12  # of the first turns
JOINED_SHARE = 0.3  # of the conversations of several turns, which go on to a second subject
LONGEST = 5  # exchanges
TRIES = 400  # draws for a first turn that is new, before a family counts as used up


def main(argv: Sequence[str]) -> None:
    out = Path(argv[0]) if argv else OUT
    rows = conversations(SEED)
    out.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="ascii")
    sys.stdout.write(f"{len(rows)} conversations => {out}\n")


def conversations(seed: int) -> list[list[dict[str, str]]]:
    """All conversations as lists of messages, shuffled.

    Raises RuntimeError when a family's pools are too small for its number.
    """
    rng = Random(seed)
    seen: set[str] = set()
    rows = [
        _messages(_joined(_new_talk(family, seen, rng), rng), rng)
        for family, wanted in FAMILIES
        for _ in range(wanted)
    ]
    rng.shuffle(rows)
    return rows


def _new_talk(family: Family, seen: set[str], rng: Random) -> Talk:
    for _ in range(TRIES):
        talk = family(rng)
        opening = talk.exchanges[0][0]
        if opening not in seen:
            seen.add(opening)
            return talk
    raise RuntimeError(
        f"FAMILIES: {family.__name__} has no new first turn after {TRIES} draws; "
        "lower its number or widen its pools"
    )


def _joined(talk: Talk, rng: Random) -> Talk:
    """Now and then, `talk` with one of another family after it."""
    if len(talk.exchanges) == 1 or talk.system or rng.random() >= JOINED_SHARE:
        return talk
    second = rng.choice(FAMILIES)[0](rng)
    if second.system or len(talk.exchanges) + len(second.exchanges) > LONGEST:
        return talk
    (said, told), *rest = second.exchanges
    if said.startswith((*_GREETED, "My name", "I am")):
        return talk
    return Talk((*talk.exchanges, (f"{rng.choice(_BRIDGES)} {said}", told), *rest))


def _messages(talk: Talk, rng: Random) -> list[dict[str, str]]:
    system = talk.system
    form: Callable[[Answer], str] = _plain
    if not system and rng.random() < SYSTEM_SHARE and _can_take_form(talk):
        system, form = _form(rng)
    messages = [{"role": "system", "content": system}] if system else []
    for place, (said, told) in enumerate(talk.exchanges):
        if place == 0 and rng.random() < GREETED_SHARE and not said.startswith(_GREETED):
            said = f"{rng.choice(_GREETINGS)} {said}"
        answer = told if isinstance(told, str) else form(told)
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
    return messages


def _can_take_form(talk: Talk) -> bool:
    """True when every answer is given by its sentences, one of them at least by two."""
    answers = [told for _, told in talk.exchanges if isinstance(told, Answer)]
    longest = max((len(answer.sentences()) for answer in answers), default=0)
    return len(answers) == len(talk.exchanges) and longest > 1


def _form(rng: Random) -> tuple[str, Callable[[Answer], str]]:
    """A system prompt, and the form of answer that it asks for."""
    prompts, form = rng.choice(_FORMS)
    name = rng.choice(NAMES)
    return rng.choice(prompts).format(name=name), lambda answer: form(answer).format(name=name)


def _plain(answer: Answer) -> str:
    return " ".join(answer.sentences())


def _lead(answer: Answer) -> str:
    return answer.lead


def _list(answer: Answer) -> str:
    return bullets(answer.sentences())


def _numbered(answer: Answer) -> str:
    return numbered(answer.sentences())


_FORMS: tuple[tuple[tuple[str, ...], Callable[[Answer], str]], ...] = (
    (
        (
            "Answer in one short sentence.",
            "Be brief: one sentence.",
            "Give only the result.",
            "Keep every answer to a single sentence.",
        ),
        _lead,
    ),
    (
        ("Reply as a list.", "Answer with a list of points.", "Use a dash before each sentence."),
        _list,
    ),
    (("Number the sentences of your answer.", "Answer in numbered points."), _numbered),
    (
        ("You are an old sailor and begin with Ahoy.", "Talk like a sailor. Start with Ahoy."),
        lambda answer: f"Ahoy! {_plain(answer)} Fair winds to you!",
    ),
    (
        ("You are a butler. Call the user madam.", "Answer like a polite butler to a lady."),
        lambda answer: f"Certainly, madam. {_plain(answer)}",
    ),
    (
        (
            "You are a kind teacher. End with a word of praise.",
            "Praise the question after each answer.",
        ),
        lambda answer: f"{_plain(answer)} That was a good question!",
    ),
    (
        (
            "Sign every answer with the name {name}.",
            "You are {name}. Put your name under each answer.",
        ),
        lambda answer: f"{_plain(answer)}\n{{name}}",
    ),
    (
        (
            "The user is called {name}. Use the name.",
            "You speak with {name}. Address {name} by name.",
        ),
        lambda answer: f"{{name}}, here is the answer. {_plain(answer)}",
    ),
    (
        ("Begin each answer with the word Answer and a colon.", "Start with 'Answer:' every time."),
        lambda answer: f"Answer: {_plain(answer)}",
    ),
    (
        ("Ask at the end whether all is clear.", "End every answer with: Is that clear?"),
        lambda answer: f"{_plain(answer)} Is that clear?",
    ),
)
_GREETINGS = (
    "Hello!", "Hi.", "Good morning.", "Good evening.", "Hi there!", "A question:", "Hey!",
    "Excuse me.", "Good day.", "Please help me.",
)  # fmt: skip
_BRIDGES = (
    "Now something else.", "Another question.", "And one more thing.", "Next.",
    "I have another one.", "Thanks. Now this:", "Good. Then this:", "By the way:",
)  # fmt: skip
_GREETED = (
    "Hello", "Hi", "Hey", "Good", "Please", "Help", "Excuse", "Guess", "Oh", "Quick", "Just",
    "Riddle", "For a quiz", "Crossword",
)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
