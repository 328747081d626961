"""The language model of a checkpoint that also sees or hears, without the rest of it.

Promise: its modules have the names that they have in the whole checkpoint, so an adapter of it is
one of that, too; nothing else is loaded. Price: it rests on transformers' names, which tests hold
for Gemma 3, Gemma 4, Mistral 3 and Qwen3.5.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from sftray.plan.lora_targets import INSIDE

KEYS = {
    rf"^{INSIDE}\.model\.": "model.",
    rf"^model\.{INSIDE}\.": "model.",
    rf"^{INSIDE}\.lm_head\.": "lm_head.",
}
"""Names of weights in such checkpoints, and in a language model of its own."""


def text_part(config: PretrainedConfig) -> PretrainedConfig | None:
    """The language model's configuration in that of a larger model; None where it is all."""
    text = config.get_text_config()
    if text is config:
        return None
    if (quantised := getattr(config, "quantization_config", None)) is not None:
        text.quantization_config = quantised
    text.tie_word_embeddings = config.tie_word_embeddings  # the whole's, as transformers ties it
    return text


@contextmanager
def without_report() -> Iterator[None]:
    """Load without transformers' table of all weights that are left out."""
    log = logging.getLogger("transformers.modeling_utils")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def name_as_in_the_whole(model: PreTrainedModel) -> None:
    """Give the modules of a language model the names that they have in the whole checkpoint."""
    model.model = _Wrapper(model.model)


def is_text_part(model: nn.Module) -> bool:
    """Whether a loaded base is the language model of a larger one."""
    return isinstance(getattr(model, "model", None), _Wrapper)


class _Wrapper(nn.Module):
    """Stands where a whole checkpoint has all its parts; what it is asked for the language model
    answers."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.language_model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == INSIDE:
                raise
            return getattr(super().__getattr__(INSIDE), name)
