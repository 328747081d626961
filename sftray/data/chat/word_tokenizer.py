"""Token ids from a dictionary of words: what the tokenizers library gives, in 0.4 of its time.

Promise: the same ids, and the same edges of spans, as the library's own, or no answer. It answers
under byte-level BPE whose pre-tokeniser is one of PATTERNS: these cut a text into words by what
follows alone, never by what came before, and a word's tokens depend on the word alone. ASCII is cut
by the pattern itself, as Python and the library agree on it; other scripts at spaces only. Price:
60 µs a conversation of 100 tokens whose words are known; 20 MB a process.
"""

from __future__ import annotations

import functools
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sftray.data.chat.tokenizer import backend

Span = tuple[int, int]
Found = tuple[NDArray[np.int32], list[Span]]
"""Token ids, and the (first, stop) tokens of each span."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = (_GPT2, _LLAMA3, _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"))
"""How GPT-2, Llama 3 and Qwen cut words. A word that is cut alone is itself again: the only look
beyond a match, (?!\\S), holds at the end of a text."""
_SPACED = re.compile(r"(?<=\S)(?= )")
"""Where a space follows what is none, in any script: each of PATTERNS cuts there, and NFC composes
nothing across."""
_LONGEST = 40
"""Characters of a word beyond ASCII; longer ones, of scripts without spaces, seldom come again."""
_MOST_WORDS = 100_000
"""Words that are kept; then the dictionary starts again."""


@functools.lru_cache(maxsize=4)
def words_of(tokenizer_json: str) -> Words | None:
    """The dictionary of a tokenizer, one a process; None where words do not tell its tokens."""
    values = json.loads(tokenizer_json)
    pattern, added = _pattern(values["pre_tokenizer"]), values["added_tokens"]
    if (
        pattern is None
        or all(token["normalized"] for token in added)
        or values["model"]["type"] != "BPE"
        or values["model"].get("dropout")
        or (values["normalizer"] or {"type": "NFC"})["type"] != "NFC"  # it leaves ASCII as it is
        or any(token[flag] for token in added for flag in ("single_word", "lstrip", "rstrip"))
    ):
        return None
    whole = {
        token["content"]: np.int32(token["id"]).tobytes()
        for token in added
        if not token["normalized"]
    }
    later = [token["content"] for token in added if token["normalized"]]
    return Words(
        backend(tokenizer_json),
        whole,
        _any_of(whole),
        _any_of(later) if later else None,
        _ascii(pattern),
    )


@dataclass
class Words:
    """Tokens of the words that were met so far."""

    tokenizer: Tokenizer
    added_ids: dict[str, bytes]
    """Tokens that the library cuts out before it looks for words; at least one."""
    added: re.Pattern[str]
    unsure: re.Pattern[str] | None
    """Added tokens that it looks for later: texts that hold one are left to it."""
    word: re.Pattern[str]
    known: dict[str, bytes] = field(default_factory=dict)
    """Their tokens, int32 each: bytes are joined faster than lists."""

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Found | None]:
        """Ids of each text and edges of its spans, which are characters; None where it is unsure.

        It is unsure too where an edge lies within a word.
        """
        if len(self.known) > _MOST_WORDS:
            self.known.clear()
        cut = [self._cut(text) for text in texts]
        tokens: list[list[Any]] = [list(map(self.known.get, words)) for words in cut]
        new: set[str] = set()
        for words, mine in zip(cut, tokens, strict=True):
            if None in mine:
                new.update(word for word, ids in zip(words, mine, strict=True) if ids is None)
        self._learn(new)
        return [
            self._found(words, mine, edges) if words or not text else None
            for text, words, mine, edges in zip(texts, cut, tokens, spans, strict=True)
        ]

    def _cut(self, text: str) -> list[str]:
        """The words of a text; none where it is unsure."""
        if self.unsure is not None and self.unsure.search(text):
            return []
        words: list[str] = []
        for place, piece in enumerate(self.added.split(text)):
            if place % 2:
                words.append(piece)
            elif piece.isascii():
                words += self.word.findall(piece)
            else:
                for part in _SPACED.split(piece):
                    if part.isascii():
                        words += self.word.findall(part)
                    elif len(part) > _LONGEST:
                        return []
                    else:
                        words.append(part)
        return words

    def _learn(self, new: set[str]) -> None:
        """Tokenise words, all in one text in which an added token keeps them apart."""
        self.known.update(self.added_ids)
        words = list(new - self.added_ids.keys())
        separator, between = next(iter(self.added_ids.items()))
        text = separator.join(["", *words])
        (encoding,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids = np.array(encoding.ids, np.int32)
        edges = np.flatnonzero(ids == np.frombuffer(between, np.int32)) * ids.itemsize
        together = ids.tobytes()
        for word, (start, stop) in zip(
            words, pairwise([*edges.tolist(), len(together)]), strict=True
        ):
            self.known[word] = together[start + ids.itemsize : stop]

    def _found(self, words: list[str], looked_up: list[Any], spans: Sequence[Span]) -> Found | None:
        tokens = list(map(self.known.__getitem__, words)) if None in looked_up else looked_up
        ends = list(accumulate(map(len, words), initial=0))
        edges = []
        for position in chain.from_iterable(spans):
            place = bisect_left(ends, position)
            if ends[place] != position:
                return None
            edges.append(sum(map(len, tokens[:place])) // np.dtype(np.int32).itemsize)
        ids = np.frombuffer(b"".join(tokens), np.int32)
        return ids, list(zip(edges[::2], edges[1::2], strict=True))


def _pattern(pre_tokenizer: Any) -> str | None:
    """The one of PATTERNS by which a pre-tokeniser cuts; None of any other."""
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    if parts[-1].get("type") != "ByteLevel" or parts[-1]["add_prefix_space"]:
        return None
    if len(parts) == 1:
        return _GPT2 if parts[0]["use_regex"] else None
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    cuts = [pattern for pattern in PATTERNS if parts[0] == {**split, "pattern": {"Regex": pattern}}]
    return cuts[0] if cuts and len(parts) == 2 and not parts[1]["use_regex"] else None


def _ascii(pattern: str) -> re.Pattern[str]:
    """A pattern for ASCII texts, where letters are a-z and digits 0-9."""
    for name, letters in ((r"\p{L}", "a-zA-Z"), (r"\p{N}", "0-9")):
        pattern = re.sub(rf"(\[[^\]]*){re.escape(name)}", rf"\g<1>{letters}", pattern)
        pattern = pattern.replace(name, f"[{letters}]")
    return re.compile(pattern, re.ASCII)


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """The leftmost and longest of some tokens, as a group."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")
