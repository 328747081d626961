"""The shapes of a demo conversation, and the agreement in English that its parts need."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class Answer(NamedTuple):
    """An answer by its sentences, so that a system prompt can ask for another form of it."""

    lead: str
    """The whole answer in one sentence."""
    steps: tuple[str, ...] = ()
    """Sentences on the way to `lead`."""
    more: tuple[str, ...] = ()
    """Sentences that add to `lead`."""

    def sentences(self) -> tuple[str, ...]:
        return (*self.steps, self.lead, *self.more)


Exchange = tuple[str, Answer | str]
"""What the user says, and the answer; a `str` is final and takes no other form."""


class Talk(NamedTuple):
    """One conversation."""

    exchanges: tuple[Exchange, ...]
    system: str = ""


SPELLED = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def single(question: str, answer: Answer | str, system: str = "") -> Talk:
    return Talk(((question, answer),), system)


def article(noun: str) -> str:
    """`noun` with "a" or "an" before it."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith(("uni", "use", "one"))
    return f"{'an' if vowel or noun.startswith(('hour', 'honest')) else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a noun or of a phrase: "key rings", "parts of the body"."""
    head, of, rest = noun.partition(" of ")
    *before, last = head.split(" ")
    return " ".join([*before, _plural_word(last)]) + of + rest


def count(number_of: int | Fraction, noun: str) -> str:
    """`3, "box"` as "3 boxes"."""
    return f"{number(number_of)} {noun if number_of == 1 else plural(noun)}"


def number(value: int | Fraction) -> str:
    """Thousands with commas; at most two decimals, none of them an idle zero."""
    exact = Fraction(value)
    if exact.denominator == 1:
        return f"{exact.numerator:,}"
    return f"{float(exact):,.2f}".rstrip("0")


def are(number_of: int | Fraction) -> str:
    return "is" if number_of == 1 else "are"


def listing(items: Sequence[str], last: str = "and") -> str:
    """`["a", "b", "c"]` as "a, b and c"."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def numbered(items: Sequence[str]) -> str:
    return "\n".join(f"{place}. {item}" for place, item in enumerate(items, 1))


_IRREGULAR = {
    "child": "children", "fish": "fish", "foot": "feet", "goose": "geese", "knife": "knives",
    "leaf": "leaves", "loaf": "loaves", "man": "men", "mouse": "mice", "scarf": "scarves",
    "sheep": "sheep", "shelf": "shelves", "tooth": "teeth", "wife": "wives", "wolf": "wolves",
    "woman": "women", "potato": "potatoes", "tomato": "tomatoes",
}  # fmt: skip


def _plural_word(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"
