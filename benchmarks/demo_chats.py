"""The demo's chats, and the questions held out from them.

    python benchmarks/demo_chats.py    # writes sftray/demo/chats.jsonl and questions.jsonl

Promise: no name or place of a held-out question occurs in a training row, and no number: those of
questions are multiples of three, and no number of a training row is. The same seed writes the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from demo_world import (
    VERBS,
    Draw,
    appointment,
    for_training,
    guests,
    held_out,
    homes,
    order,
    some_sum,
    statement,
)

from sftray.demo import FOLDER

CHATS, QUESTIONS = 2400, 100

Turn = tuple[str, str]
"""A role and what it says."""


def noted(fields: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in fields.items())


def _asked(draw: Draw, text: str, before: list[str], after: list[str]) -> str:
    """A text with what is asked of it before or after it."""
    if draw.rng.random() < 0.5:
        return f"{draw.one(before)} {text}"
    return f"{text} {draw.one(after)}"


def chat_note(draw: Draw) -> list[Turn]:
    text, fields = appointment(draw)
    asked = _asked(draw, text, ["Note this:", "Write it down:"], ["Note that.", "Write that down."])
    turns = [("user", asked), ("assistant", noted(fields))]
    if draw.rng.random() < 0.3:
        field, question = draw.rng.choice(
            [("Time", "At what time?"), ("Day", "On which day?"), ("Name", "For whom?")]
        )
        turns += [("user", question), ("assistant", f"{fields[field]}.")]
    return turns


def chat_order(draw: Draw) -> list[Turn]:
    text, fields = order(draw)
    asked = _asked(
        draw, text, ["An order:", "Fill in the order:"], ["Fill in the order.", "Take the order."]
    )
    turns = [("user", asked), ("assistant", noted(fields))]
    if draw.rng.random() < 0.2:
        turns += [("user", "Where does it go?"), ("assistant", f"To {fields['Place']}.")]
    return turns


def chat_where(draw: Draw) -> list[Turn]:
    text, verb, pairs = homes(draw)
    name, place = draw.rng.choice(pairs)
    turns = [("user", f"{text} Where does {name} {VERBS[verb]}?")]
    turns.append(("assistant", f"{name} {verb} in {place}."))
    if draw.rng.random() < 0.3:
        name, place = draw.rng.choice([pair for pair in pairs if pair[0] != name])
        turns += [("user", f"And {name}?"), ("assistant", f"{name} {verb} in {place}.")]
    return turns


def chat_who(draw: Draw) -> list[Turn]:
    text, verb, pairs = homes(draw)
    name, place = draw.rng.choice(pairs)
    return [("user", f"{text} Who {verb} in {place}?"), ("assistant", f"{name} {verb} in {place}.")]


def chat_opposite(draw: Draw) -> list[Turn]:
    text, negated = statement(draw)
    asked = _asked(draw, text, ["Say the opposite:", "Deny it:"], ["Say the opposite.", "Deny it."])
    return [("user", asked), ("assistant", negated)]


def chat_sum(draw: Draw) -> list[Turn]:
    found = some_sum(draw)
    asked = "there in all" if found.sign == "+" else "left"
    answer = f"{found.first} {found.sign} {found.second} = {found.result}"
    return [
        ("user", f"{found.text} How many {found.thing} are {asked}?"),
        ("assistant", answer),
    ]


def chat_list(draw: Draw) -> list[Turn]:
    text, names = guests(draw)
    asked = _asked(draw, text, ["List the names:", "Who is in it?"], ["List the names.", "Who?"])
    return [("user", asked), ("assistant", "\n".join(f"* {name}" for name in names))]


KINDS = (chat_note, chat_opposite, chat_sum, chat_order, chat_where, chat_who, chat_list)
"""What a base of 2.1M parameters learns from 33,000 tokens: at least 8 of 10 held-out questions of
each kind right. Who of two is older it answers by chance, of a shop's hours 4 of 10."""


def chats(draw: Draw, number: int) -> list[list[Turn]]:
    """So many chats, no two alike, each kind in turn."""
    found: dict[str, list[Turn]] = {}
    while len(found) < number:
        turns = KINDS[len(found) % len(KINDS)](draw)
        found.setdefault(json.dumps(turns), turns)
    return list(found.values())


def write(folder: Path) -> None:
    """Both files, into a folder."""
    for name, some in (
        ("chats", chats(for_training(1), CHATS)),
        ("questions", chats(held_out(2), QUESTIONS)),
    ):
        rows = [{"messages": [{"role": who, "content": said} for who, said in one]} for one in some]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(FOLDER)
