"""What is said of TRL's loss mask is what TRL's mask is, token by token."""

from __future__ import annotations

import pytest
from data_templates import CONVERSATIONS, format_of, template_text, tokenizer_of
from transformers import PreTrainedTokenizerFast

from sftray.data.chat.chat_format import has_markers, training_template
from sftray.data.chat.documents import Document
from sftray.data.chat.loss_mask import encode
from sftray.data.chat.tokenizer import backend
from sftray.data.packs.readings import mask_text

SAYS = {
    "cohere": "",
    "glm4moe": "",
    "llama3": "",
    "gemma4": "",
    "gemma": "trains on '\\n' too",
    "phi3": "trains on '\\n' too",
    "lfm2_2_5": "trains on '\\n' too",
    "deepseekv3": "trains on '<｜Assistant｜>' too",
    "qwen3_5_think": "trains on '<think>\\n' and '\\n' too",
}


@pytest.mark.parametrize("name", SAYS)
def test_how_the_mask_differs_from_trl_s_is_said(name: str) -> None:
    template = template_text(name)
    chat, given = format_of(template), tokenizer_of(template)
    assert chat.beside_trl == SAYS[name]
    line = f"loss mask: TRL's assistant_only_loss {SAYS[name]}"
    assert mask_text(chat.beside_trl) == (line if SAYS[name] else "")
    marked = template if has_markers(template) else training_template(template)
    if marked is None:  # TRL refuses it
        return
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=backend(given.json), chat_template=marked, **dict(given.special_tokens)
    ).apply_chat_template(
        CONVERSATIONS["two exchanges"], return_assistant_tokens_mask=True, return_dict=True
    )
    (ours,) = encode(chat, [CONVERSATIONS["two exchanges"]], 4096)
    assert isinstance(ours, Document)
    assert theirs["input_ids"] == ours.input_ids.tolist()
    same = [bool(one) for one in theirs["assistant_masks"]] == ours.trained.tolist()
    assert same == (not SAYS[name])
