"""Greedy answers by a slot's adapter, several prompts at once.

Promise: the same decoder as in training. Price: no cache, so every token is a forward pass over all
that came before; made for the few short samples at a trial's end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sftray.bank.batches import PackedRow, assemble
from sftray.bank.decoder import ANSWER_TOKENS, Decoder


def greedy_answers(
    decoder: Decoder, work: Tensor, tokenizer: Any, prompts: Sequence[Any], ends: Collection[int]
) -> list[str]:
    """An answer to each conversation of messages (role, content), under the adapter `work` [1, P].

    An answer stops at a token of `ends` or after ANSWER_TOKENS; a prompt keeps its last max_length
    tokens.
    """
    texts = [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        for messages in prompts
    ]
    tokens = [list(text["input_ids"])[-decoder.max_length :] for text in texts]
    lengths = [len(known) for known in tokens]
    open_ = set(range(len(tokens)))
    for _ in range(ANSWER_TOKENS):
        for index, token in zip(sorted(open_), _next(decoder, work, tokens, open_), strict=True):
            tokens[index].append(token)
            if token in ends:
                open_.remove(index)
        if not open_:
            break
    return [
        str(tokenizer.decode(known[length:], skip_special_tokens=True))
        for known, length in zip(tokens, lengths, strict=True)
    ]


def _next(
    decoder: Decoder, work: Tensor, tokens: Sequence[list[int]], open_: set[int]
) -> list[int]:
    """The likeliest next token of each text that is still open, in order."""
    texts = [tokens[index] for index in sorted(open_)]
    lengths = np.array([len(text) for text in texts])
    nothing = np.empty(0, dtype=np.int64)
    row = PackedRow(np.concatenate(texts), lengths, nothing, nothing)
    hidden = decoder.hidden(assemble([row], decoder.base.device), work)
    last = torch.from_numpy(np.cumsum(lengths) - 1).to(hidden.device)
    found: list[int] = (hidden[last] @ decoder.base.head.T).argmax(1).tolist()
    return found
