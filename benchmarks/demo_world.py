"""The demo's world: names, places and numbers, and what can be said of them, in chats and in the
pretraining of the bundled base. The same seed says the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


def listed(text: str) -> list[str]:
    """Its words, or what stands between its commas."""
    return text.split(", ") if "," in text else text.split()


DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
WHOM = listed("dentist doctor lawyer barber vet tailor plumber baker gardener optician")
THINGS = listed(
    "pears lamps chairs books eggs plates coats boxes stamps coins roses apples cups ropes "
    "bricks pens shirts candles shells kites"
)
STATES = listed("tired hungry late happy ready angry busy alone awake ill kind strong")
SKILLS = listed("swim sing drive dance cook ski paint read sew whistle")
PLANS = listed(
    "sell the house, paint the fence, call the doctor, buy a lamp, wash the car, open the "
    "shop, cook the soup, write a letter, clean the kitchen, visit the museum, learn to ski, "
    "feed the cat"
)
SHOPS = listed("bakery bookshop library museum pharmacy florist garage cinema")
NAMES = listed(
    "Emma Noah Clara Ravi Mei Tom Lena Omar Edith George Anna Paul Nina Hugo Ivy Leo Mara "
    "Felix Ruth Sam Tess Ivan Lucy Amir Zoe Carl Dora Finn Greta Hans Iris Jack Kara Liam "
    "Mona Nils Olga Peter Rosa Simon Tara Victor Wanda Yusuf Alma Boris Celia David Elsa "
    "Frank Gina Henry Ines Jonas Kim Laura Marco Nora Otto Petra Quinn Rita Stefan Tina Uma "
    "Vera Walter Yara Zeno Agnes Bruno Chloe Dennis Esther Fiona Gustav Helga Igor Julia "
    "Kevin Linda Martin Nadia Oscar Paula Robert Sofia Thomas Ursula Vincent Wilma Xenia "
    "Arthur Bella Conrad Daisy Edgar Flora Gerald"
)
PLACES = listed(
    "Brimford, Ashton, Marlow, Kelby, Norwick, Tilbury, Holt, Farleigh, Wexley, Dunmore, "
    "Stone Bay, Green Hill, Long Meadow, Old Bridge, Silver Lake, White Cliff, North Gate, "
    "Sand Point, Mill Lane, Oak Grove, Red Rock, Fern Valley, Low Moor, Black Wood, Crown "
    "Street, Salt Marsh, Swan Pond, High Tower, Copper Ridge, Elm Court"
)
HELD_OUT_NAMES = listed(
    "Priya Tobias Ingrid Kwame Beatrix Dmitri Lucinda Magnus Ophelia Rufus Selma Thea Ulrich "
    "Viola Winston Yolanda Zachary Adela Basil Cyrus Delia Enzo Freya Gideon Hazel Isidor "
    "Jasper Kirsten Lorenz Mabel Nestor Odette Percy Rowena Silas Tabitha Umberto Vikram "
    "Wendel Ximena"
)
HELD_OUT_PLACES = listed(
    "Grimsby, Lanvale, Pellworth, Orkney, Tamsin, Quarley, Bexhill, Corfu, Hazelmere, Velden, "
    "Amber Falls, Raven Hollow, Iron Quay, Misty Glen, Cedar Heights, Pearl Harbour"
)


class Fields(NamedTuple):
    """What a text says that can be noted down."""

    text: str
    fields: dict[str, str]


@dataclass
class Draw:
    """One source of names, places and numbers, and of every choice."""

    rng: random.Random
    new_name: Callable[[random.Random], str]
    new_place: Callable[[random.Random], str]
    allowed: Callable[[int], bool] = lambda number: True
    """Which numbers it has."""

    def one(self, choices: list[str]) -> str:
        return self.rng.choice(choices)

    def name(self) -> str:
        return self.new_name(self.rng)

    def names(self, number: int) -> list[str]:
        found: list[str] = []
        while len(found) < number:
            if (name := self.name()) not in found:
                found.append(name)
        return found

    def places(self, number: int) -> list[str]:
        found: list[str] = []
        while len(found) < number:
            if (place := self.new_place(self.rng)) not in found:
                found.append(place)
        return found

    def number(self, low: int, high: int) -> int:
        while not self.allowed(number := self.rng.randint(low, high)):
            pass
        return number

    def time(self) -> str:
        minutes = [minute for minute in range(0, 60, 5) if self.allowed(minute)]
        return f"{self.number(7, 20)}:{self.rng.choice(minutes):02}"


def for_training(seed: int) -> Draw:
    rng = random.Random(seed)
    return Draw(rng, lambda r: r.choice(NAMES), lambda r: r.choice(PLACES), lambda n: n % 3 != 0)


def held_out(seed: int) -> Draw:
    rng = random.Random(seed)
    names, places = HELD_OUT_NAMES, HELD_OUT_PLACES
    return Draw(rng, lambda r: r.choice(names), lambda r: r.choice(places), lambda n: n % 3 == 0)


# What is said: the same sentences in chats and in the pretraining


def appointment(draw: Draw) -> Fields:
    name, day, time, who = draw.name(), draw.one(DAYS), draw.time(), draw.one(WHOM)
    form = draw.one(
        [
            "This is {n}. Can I see the {w} on {d} at {t}?",
            "{n} here, I would like the {w} on {d}, {t}.",
            "Please book the {w} for {n}, {d} at {t}.",
            "Is the {w} free at {t} on {d}? My name is {n}.",
            "{n} has to see the {w} at {t} on {d}.",
            "On {d} at {t} the {w} comes to {n}.",
        ]
    )
    text = form.format(n=name, w=who, d=day, t=time)
    return Fields(text, {"Name": name, "With": who, "Day": day, "Time": time})


def order(draw: Draw) -> Fields:
    name, place, thing = draw.name(), draw.places(1)[0], draw.one(THINGS)
    count = str(draw.number(4, 99))
    form = draw.one(
        [
            "{n} from {p} wants {k} {t}.",
            "Please send {k} {t} to {n} in {p}.",
            "{k} {t} for {n}, {p}.",
            "I am {n} and I need {k} {t} here in {p}.",
            "To {p}: {k} {t}. The name is {n}.",
        ]
    )
    text = form.format(n=name, p=place, k=count, t=thing)
    return Fields(text, {"Item": thing, "Count": count, "Name": name, "Place": place})


VERBS = {"lives": "live", "works": "work", "stays": "stay", "sleeps": "sleep"}


def homes(draw: Draw) -> tuple[str, str, list[tuple[str, str]]]:
    """A text, its verb, and who is where."""
    number = draw.rng.choice([2, 2, 3])
    pairs = list(zip(draw.names(number), draw.places(number), strict=True))
    verb = draw.one(list(VERBS))
    said = [f"{name} {verb} in {place}" for name, place in pairs]
    text = f"{', '.join(said[:-1])} and {said[-1]}." if draw.rng.random() < 0.5 else ""
    return text or " ".join(f"{one}." for one in said), verb, pairs


def statement(draw: Draw) -> tuple[str, str]:
    """A sentence and its negation."""
    name = draw.name()
    kind = draw.rng.randrange(4)
    if kind == 0:
        state = draw.one(STATES)
        return f"{name} is {state}.", f"{name} is not {state}."
    if kind == 1:
        skill = draw.one(SKILLS)
        return f"{name} can {skill}.", f"{name} cannot {skill}."
    if kind == 2:
        verb, place = draw.one(list(VERBS)), draw.places(1)[0]
        return f"{name} {verb} in {place}.", f"{name} does not {VERBS[verb]} in {place}."
    plan = draw.one(PLANS)
    return f"{name} will {plan}.", f"{name} will not {plan}."


class Sum(NamedTuple):
    text: str
    thing: str
    first: int
    sign: str
    second: int
    result: int


def some_sum(draw: Draw) -> Sum:
    name, other = draw.names(2)
    thing, plus = draw.one(THINGS), draw.rng.random() < 0.6
    while True:
        first, second = draw.number(4, 49), draw.number(2, 49)
        result = first + second if plus else first - second
        if result > 0 and draw.allowed(result):
            break
    forms = [
        "{n} has {a} {t} and gives {b} to {o}.",
        "There are {a} {t}. {n} takes {b}.",
        "{n} had {a} {t} and sold {b}.",
    ]
    if plus:
        forms = [
            "{n} has {a} {t} and buys {b} more.",
            "{n} has {a} {t} and {o} has {b}.",
            "{n} finds {a} {t}, then {b} more.",
        ]
    text = draw.one(forms).format(n=name, o=other, t=thing, a=first, b=second)
    return Sum(text, thing, first, "+" if plus else "-", second, result)


def guests(draw: Draw) -> tuple[str, list[str]]:
    """A sentence and the names in it."""
    names = draw.names(draw.rng.choice([2, 3, 3, 4]))
    some = f"{', '.join(names[:-1])} and {names[-1]}"
    form = draw.one(
        [
            "{s} come to dinner.",
            "On {d} we meet {s}.",
            "The guests are {s}.",
            "{s} took the train on {d}.",
        ]
    )
    return form.format(s=some, d=draw.one(DAYS)), names


def ages(draw: Draw) -> tuple[str, list[str]]:
    """A sentence, and its names from the older one on."""
    first, second = draw.names(2)
    while True:
        one, other = draw.number(7, 89), draw.number(7, 89)
        if abs(one - other) > 1:
            break
    form = draw.one(["{n} is {a} and {m} is {b}.", "{n} is {a} years old, {m} is {b} years old."])
    text = form.format(n=first, m=second, a=one, b=other)
    return text, [first, second] if one > other else [second, first]


def shop(draw: Draw) -> Fields:
    kind, place, name, day = draw.one(SHOPS), draw.places(1)[0], draw.name(), draw.one(DAYS)
    opens, closes = draw.number(5, 10), draw.number(15, 22)
    text = (
        f"You answer for the {kind} in {place}. It belongs to {name}, opens at {opens}, "
        f"closes at {closes} and rests on {day}."
    )
    fields = {"place": place, "owner": name, "opens": str(opens), "closes": str(closes)}
    return Fields(text, {**fields, "rests": day})
