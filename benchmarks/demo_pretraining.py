"""What the bundled base is pretrained on: sessions in which somebody says something of the demo's
world and somebody else makes something of it, several times alike, in a form drawn for the session.

Promise: what is made of a text follows from the turns before, never from what is asked: questions
are there as words, and none is answered as the demo's chats answer it. So the base has what the
chats need (copying, picking, counting) and answers nonsense. No name of a held-out question occurs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import demo_chats
from demo_world import (
    HELD_OUT_NAMES,
    HELD_OUT_PLACES,
    PLACES,
    Draw,
    ages,
    appointment,
    guests,
    homes,
    listed,
    order,
    shop,
    some_sum,
    statement,
)

_ONSETS = (
    listed(
        "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p ph pl pr qu r s sch sh sk sl "
        "sn sp st str sw t th tr v w wh x y z"
    )
    + [""] * 8
)
_VOWELS = listed("a a a e e e i i i o o o u u y ai au ea ee ei ia ie io oa oe oo ou")
_CODAS = (
    listed(
        "b ck d dd f ff g h k l ld ll lm m mm n nd ng nn nt p r rd rg rn rt s sk ss st t th tt v "
        "x z"
    )
    + [""] * 30
)
_ENDS = listed("ford ton ley bury bay hill wood field mouth by ham gate lake moor")
_PLACE_WORDS = [word for place in PLACES for word in place.split()]
_KEPT_OUT = {word for place in HELD_OUT_PLACES for word in place.split()} | {*HELD_OUT_NAMES}
_HEADINGS = listed(
    "letter note diary clerk news Emma Noah Clara mother page reader friend he she first "
    "second voice guest home desk"
)
_LABELS = listed(
    "Name With Day Time Item Count Place Who When What Where To From Person Number Of Thing "
    "Hour Town name day time item count place who when what where number"
)

Pair = tuple[str, str]
"""What is said, and what is made of it."""
Form = Callable[[Draw], Pair]


def new_word(rng: random.Random) -> str:
    """A name that nobody has, of one to three syllables; none of a held-out question."""
    while True:
        count = rng.choice([1, 1, 2, 2, 2, 3])
        syllables = [
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)
        ]
        word = "".join(syllables).capitalize()[:9]
        if len(word) > 1 and word not in _KEPT_OUT:
            return word


def new_place(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return new_word(rng)
    if kind < 0.5:
        word = new_word(rng) + rng.choice(_ENDS)
        return new_word(rng) if word in _KEPT_OUT else word
    second = rng.choice(_PLACE_WORDS) if rng.random() < 0.5 else new_word(rng)
    return f"{new_word(rng)} {second}"


def drawing(seed: int) -> Draw:
    return Draw(random.Random(seed), new_word, new_place)


def session(draw: Draw) -> str:
    """A few turns, each with its heading and its end."""
    kind = draw.rng.random()
    if kind < 0.15:
        turns = [(draw.one(_HEADINGS), loose_text(draw)) for _ in range(draw.rng.randint(1, 3))]
    elif kind < 0.4:
        turns = looked_up(draw)
    else:
        form = draw.rng.choice(FORMS)(draw)
        says, makes = draw.rng.sample(_HEADINGS, 2)
        turns = []
        for _ in range(draw.rng.choice([1, 2, 3, 4, 6])):
            said, made = form(draw)
            turns += [(says, said), (makes, made)]
    return "".join(f"<|im_start|>{who}\n{said}<|im_end|>\n" for who, said in turns)


def loose_text(draw: Draw) -> str:
    """Sentences, and questions that nobody answers."""
    kind = draw.rng.randrange(5)
    if kind < 2:
        return "\n".join(_equation(draw) for _ in range(draw.rng.randint(3, 10)))
    if kind == 2:
        names = draw.names(draw.rng.randint(2, 6))
        again = names if draw.rng.random() < 0.7 else names[::-1]
        return f"{', '.join(names)}\n{', '.join(again)}"
    said = [draw.rng.choice(_SAID)(draw) for _ in range(draw.rng.randint(1, 5))]
    return " ".join(said)


def _equation(draw: Draw) -> str:
    first, second = draw.number(1, 60), draw.number(1, 60)
    if draw.rng.random() < 0.6:
        return f"{first} + {second} = {first + second}"
    first, second = max(first, second), min(first, second)
    return f"{first} - {second} = {first - second}"


def _question(draw: Draw) -> str:
    """What a chat asks, by itself."""
    asked = [said for who, said in draw.rng.choice(demo_chats.KINDS)(draw) if who == "user"]
    return draw.one(asked)


_SAID: list[Callable[[Draw], str]] = [
    lambda draw: appointment(draw).text,
    lambda draw: order(draw).text,
    lambda draw: homes(draw)[0],
    lambda draw: statement(draw)[draw.rng.randrange(2)],
    lambda draw: some_sum(draw).text,
    lambda draw: guests(draw)[0],
    lambda draw: ages(draw)[0],
    lambda draw: shop(draw).text,
    _question,
    _question,
]


def _says(draw: Draw, text: str) -> str:
    """A text, at times with words around it that mean nothing."""
    if draw.rng.random() < 0.6:
        return text
    around = draw.one(
        ["Note this:", "Who?", "Say it.", "An order:", "List it.", "Write that down.", "Deny it."]
    )
    return f"{around} {text}" if draw.rng.random() < 0.5 else f"{text} {around}"


# Forms: each draws once how it answers, and does so for a session


def fields_form(draw: Draw) -> Form:
    """Some fields of a note in some order, with labels of the session or without."""
    source = draw.rng.choice([appointment, order])
    size = draw.rng.choice([1, 2, 3, 4, 4, 4])
    places = draw.rng.sample(range(4), size)
    labels = draw.rng.sample(_LABELS, size)
    between, after = draw.one(["\n", "\n", "\n", ", ", "; ", " / "]), draw.one([": ", " ", " = "])
    labelled = draw.rng.random() < 0.8

    def form(draw: Draw) -> Pair:
        text, fields = source(draw)
        values = [list(fields.values())[place] for place in places]
        if labelled:
            values = [f"{one}{after}{value}" for one, value in zip(labels, values, strict=True)]
        return _says(draw, text), between.join(values)

    return form


def picked_form(draw: Draw) -> Form:
    """Of several people in several places one is named, and the rest of that is said; or a place
    is named, and who is there."""
    by_name, whole = draw.rng.random() < 0.5, draw.rng.random() < 0.6
    cue = draw.one(["{}?", "And {}?", "{}!", "and {}", "Tell of {}.", "Where {}?", "Who {}?"])
    begin, end = draw.one(["", "", "So ", "Yes, ", "I say "]), draw.one([".", "", "!"])

    def form(draw: Draw) -> Pair:
        text, verb, pairs = homes(draw)
        name, place = draw.rng.choice(pairs)
        asked = f"{text} {cue.format(name if by_name else place)}"
        made = f"{name} {verb} in {place}" if whole else place if by_name else name
        return asked, begin + made + end

    return form


def turned_form(draw: Draw) -> Form:
    """A statement turned into another, or said again."""
    kind = draw.rng.randrange(5)
    mark = draw.one(["No, ", "Never: ", "Well, ", "It is said that "])

    def form(draw: Draw) -> Pair:
        text, negated = statement(draw)
        if kind == 0:
            return _says(draw, text), mark + negated
        if kind == 1:
            return _says(draw, negated), text
        if kind == 2:
            return _says(draw, text), mark + text
        if kind == 3:
            return _says(draw, text), f"{text} {negated}"
        return _says(draw, text), negated[:-1]

    return form


def sum_form(draw: Draw) -> Form:
    form_of = draw.one(
        [
            "{a} {s} {b} = {r}.", "{a} {s} {b} = {r} {t}", "{r}", "{r} {t}", "So {a} {s} {b} = {r}",
            "{r} = {a} {s} {b}", "{a} {s} {b}", "{t}: {a} {s} {b} = {r}",
        ]
    )  # fmt: skip

    def form(draw: Draw) -> Pair:
        one = some_sum(draw)
        made = form_of.format(t=one.thing, a=one.first, s=one.sign, b=one.second, r=one.result)
        return _says(draw, one.text), made

    return form


def names_form(draw: Draw) -> Form:
    kind, mark = draw.rng.randrange(5), draw.one(["* ", "+ ", "", ". ", "# "])
    between = draw.one(["\n", "\n", "; ", " / "])

    def form(draw: Draw) -> Pair:
        text, names = guests(draw)
        if kind == 0:
            names = names[::-1]
        elif kind == 1:
            names = names[-1:]
        return _says(draw, text), between.join(mark + name for name in names)

    return form


def older_form(draw: Draw) -> Form:
    kind, which = draw.rng.randrange(4), draw.rng.randrange(2)
    cue = draw.one(["", " Who?", " Now?", " Who is it?"])
    word = draw.one(["older", "younger", "first", "it"])

    def form(draw: Draw) -> Pair:
        text, names = ages(draw)
        made = names[which]
        if kind == 0:
            made = f"{names[0]} is older than {names[1]}."
        elif kind == 1:
            made = f"{names[1]} is younger than {names[0]}."
        elif kind == 2:
            made = f"It is {made}, {word}."
        return text + cue, made

    return form


FORMS = [
    *[fields_form] * 3, *[picked_form] * 3, *[sum_form] * 4, turned_form, names_form, older_form
]  # fmt: skip
_WORDS_OF = {
    "place": ["place", "where"], "owner": ["owner", "who"], "opens": ["opens", "open"],
    "closes": ["closes", "close"], "rests": ["rests", "rest", "day"], "Name": ["name", "whom"],
    "With": ["with"], "Day": ["day"], "Time": ["time", "hour", "when"], "Item": ["item", "thing"],
    "Count": ["count", "number", "many"], "Place": ["place", "where", "go"],
}  # fmt: skip
"""Which words stand for a field."""


def looked_up(draw: Draw) -> list[Pair]:
    """A text, at times the note of it, and then single things of it, each named before by a word
    in a frame that means nothing."""
    kind = draw.rng.randrange(4)
    heads = draw.rng.sample(_HEADINGS, 3)
    if kind == 0:
        text, _, pairs = homes(draw)
        fields = dict(pairs)
    else:
        text, fields = draw.rng.choice([shop, shop, appointment, order])(draw)
    turns = [(heads[0], text)]
    if draw.rng.random() < 0.3:
        after = draw.one([": ", " ", " = "])
        names = fields if kind == 0 else [name.lower() for name in fields]
        pairs = list(zip(names, fields.values(), strict=True))
        note = "\n".join(f"{name}{after}{value}" for name, value in pairs)
        turns.append((heads[2], note))
    made = draw.one(["{}", "It is {}.", "{}!", "So {}.", "I say {}."])
    frames = ["{}?", "the {}", "And {}?", "{}:", "When {}?", "Where {}?", "Which {}?", "On {}?"]
    frames += ["When do you {}?", "Who is the {}?", "What is the {}?", "Where does it {}?"]
    for name in draw.rng.sample(list(fields), draw.rng.randint(1, len(fields))):
        cue = draw.one(frames).format(draw.one(_WORDS_OF.get(name, [name])))
        turns += [(heads[1], cue), (heads[2], made.format(fields[name]))]
    return turns


def sessions(seed: int) -> Iterator[str]:
    """Without an end."""
    draw = drawing(seed)
    while True:
        yield session(draw)
