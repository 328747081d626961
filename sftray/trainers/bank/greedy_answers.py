"""Greedy answers by slots' adapters, several slots and prompts at once.

Promise: the same decoder as in training, with keys and values kept from token to token; what an
adapter answers does not depend on its neighbours. Price: a pass over the prompts, and then one a
token, of as many tokens as there are slots and prompts; on a GPU, where launching such a pass takes
longer than computing it, that pass is recorded once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sftray.trainers.bank.batches import Batch, PackedRow, assemble
from sftray.trainers.bank.cuda_graphs import Graphs
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.packed_attention import Documents, attend
from sftray.trial.collate import positions
from sftray.trial.samples import Reply

PROMPT_TOKENS = 4096
"""How much of several prompts goes through the decoder at once, over all slots."""
ANSWERS_TOKENS = 8192
"""And how long all their answers may become: their keys and values are kept."""
LOOKS = 16
"""Tokens between two looks at whether an answer is still without its end, for which a GPU waits."""


def greedy_answers(
    decoder: Decoder,
    work: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    most: int,
) -> list[list[Reply]]:
    """For each of the adapters `work` [K, P] its answers to prompts in tokens.

    An answer stops at a token of `ends` or after `most`; a prompt keeps its last max_length tokens.
    """
    tokens = [list(prompt)[-decoder.max_length :] for prompt in prompts]
    replies: list[list[Reply]] = [[] for _ in work]
    for some in _at_once(tokens, PROMPT_TOKENS // len(work), ANSWERS_TOKENS // len(work) // most):
        continued = _continued(decoder, work, some, sorted(ends), most)
        for slot, answers in enumerate(continued.view(len(work), len(some), -1).tolist()):
            replies[slot] += [_reply(tokenizer, answer, ends) for answer in answers]
    return replies


def _at_once(texts: Sequence[list[int]], most: int, number: int) -> Iterator[list[list[int]]]:
    """The texts in pieces of at most so many tokens and so many texts, or of one text."""
    piece: list[list[int]] = []
    for text in texts:
        if piece and (len(piece) >= number or sum(map(len, piece)) + len(text) > most):
            yield piece
            piece = []
        piece.append(text)
    if piece:
        yield piece


def _reply(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], ends: Collection[int]
) -> Reply:
    """What stands up to the first end."""
    length = next((at for at, token in enumerate(tokens, start=1) if token in ends), None)
    return str(tokenizer.decode(tokens[:length], skip_special_tokens=True)), length is not None


def _continued(
    decoder: Decoder, work: Tensor, texts: Sequence[list[int]], ends: Sequence[int], most: int
) -> Tensor:
    """The likeliest tokens after each text under each adapter [K · texts, at most `most`];
    what comes after an end means nothing."""
    device, slots = decoder.base.device, len(work)
    lengths = np.array([len(text) for text in texts])
    nothing = np.empty(0, dtype=np.int64)
    row = PackedRow(np.concatenate(texts), lengths, nothing, nothing)
    batch = assemble([row] * slots, device)
    growing = _Growing(decoder, np.tile(lengths, slots), most)
    hidden = decoder.hidden(batch, work, growing)[growing.last_of_each]
    none = torch.empty(0, dtype=torch.int64, device=device)
    token = (hidden @ decoder.base.head.T).argmax(1)
    stop, tokens = torch.tensor(ends, device=device), [token.clone()]
    ended = torch.isin(token, stop)
    bounds = torch.arange(len(token) + 1, dtype=torch.int32, device=device)
    alone = Documents(bounds, longest=1, rows=1)  # of each text its new token
    growing.by_one()

    def one_more() -> None:
        new = Batch(token, growing.place, alone, none, none)
        token.copy_((decoder.hidden(new, work, growing) @ decoder.base.head.T).argmax(1))
        growing.by_one()

    step, looks = one_more, LOOKS if device.type == "cuda" else 1
    if device.type == "cuda" and most > LOOKS:
        step = Graphs().record(one_more)  # which does it once
        tokens.append(token.clone())
        ended |= torch.isin(token, stop)
    while len(tokens) < most and not (len(tokens) % looks == 0 and ended.all()):
        step()
        tokens.append(token.clone())
        ended |= torch.isin(token, stop)
    return torch.stack(tokens, dim=1)


class _Growing:
    """Attention over texts that grow by a token at a time: the first pass is the decoder's own."""

    def __init__(self, decoder: Decoder, lengths: np.ndarray, most: int) -> None:
        """`lengths` of the texts as they follow each other in the first pass."""
        shape, device = decoder.base.shape, decoder.base.device
        self.name, self._first = decoder.attention.name, decoder.attention
        self._split, self._scale, self._cap = shape.split, shape.scale, shape.cap
        room = (len(lengths), int(lengths.max()) + most, shape.kv_heads, shape.head_dim)
        self._kept = [
            torch.zeros(2, *room, dtype=decoder.base.dtype, device=device)
            for _ in range(shape.layers)
        ]
        self.last_of_each = torch.from_numpy(np.cumsum(lengths) - 1).to(device)
        self._text = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
        self.place = torch.from_numpy(positions(lengths)).to(device)
        """Of each token in its text, [tokens of the pass]."""
        self._layer = 0
        self._before: Tensor | None = None
        """int64 [texts, 1, 1, room]: how far before a text's new token others lie, negative behind
        it; None in the first pass."""

    def by_one(self) -> None:
        """The next pass has one more token of each text. After the first call in place, as a
        recorded pass needs it."""
        if self._before is not None:
            self.place += 1
            self._before += 1
            return
        self.place, texts = self.place[self.last_of_each] + 1, len(self.last_of_each)
        self._text = torch.arange(texts, device=self.place.device)
        room = torch.arange(self._kept[0].shape[2], device=self.place.device)
        self._before = (self.place[:, None] - room)[:, None, None]

    def forward(
        self, qkv: Tensor, documents: Documents, window: int | None
    ) -> tuple[Tensor, object]:
        """Of one layer after another, as the decoder calls it."""
        query, key, value = torch.split(qkv, self._split, dim=1)
        keys, values = self._kept[self._layer]
        keys[self._text, self.place], values[self._text, self.place] = key, value
        self._layer = (self._layer + 1) % len(self._kept)
        if self._before is None:
            return self._first.forward(qkv, documents, window)
        seen = self._before >= 0
        if window is not None:
            seen &= self._before < window
        kept = (keys.transpose(1, 2), values.transpose(1, 2))
        out = attend(query[:, :, None], *kept, seen, self._scale, self._cap)
        return out[:, :, 0], None

    def backward(self, *_: object) -> None:
        raise NotImplementedError("answers are not trained on")
