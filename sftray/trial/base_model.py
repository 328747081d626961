"""The base and what is trained of it, an adapter or all weights: every transformers, PEFT and
bitsandbytes object of the project is built here, but for the attention (`attention.py`).

Promise: what is trained is float32 (asserted by `require_float32`), and a 4-bit base passes
gradients on the CPU too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sftray.config import TrialConfig
from sftray.storage.hub import fetched

Computing = Callable[[], AbstractContextManager[object]]
"""A context in which a trial computes."""


def compute_dtype(trial: TrialConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it, float32 on the CPU and for an fp32 base."""
    if device.type != "cuda" or trial.base_precision == "fp32":
        return torch.float32
    return torch.bfloat16


def computing_as(trial: TrialConfig, device: torch.device) -> torch.autocast:
    """A context in which weights of float32 are computed with as the trial does."""
    enabled = compute_dtype(trial, device) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def load_base(trial: TrialConfig, device: torch.device) -> PreTrainedModel:
    """The base on `device` with eager attention, which every model has; frozen, quantised to NF4
    while loading where the trial says so; in float32 where all of it is to be trained
    (`train_all`)."""
    dtype = compute_dtype(trial, device)
    if trial.finetune == "full":
        dtype = torch.float32
    elif trial.base_precision == "bf16":
        dtype = torch.bfloat16
    quantization = None
    if trial.base_precision == "nf4":
        quantization = nf4_config(compute_dtype(trial, device))
        if trial.shard_base:  # see `sharded_base`
            quantization.bnb_4bit_quant_storage = torch.float32
    model = pretrained(
        trial,
        dtype,
        device_map={"": device},
        attn_implementation="eager",
        **({} if quantization is None else {"quantization_config": quantization}),
    )
    model.config.use_cache = False
    _keep_gradients_through_4bit(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def pretrained(trial: TrialConfig, dtype: torch.dtype, **options: object) -> PreTrainedModel:
    """The base's own weights in `dtype`, on the CPU unless transformers' `options` say more."""
    source = fetched(trial.model, trial.model_revision, code=trial.trust_remote_code)
    return AutoModelForCausalLM.from_pretrained(
        trial.model,
        trust_remote_code=trial.trust_remote_code,
        use_safetensors=True,  # a pickle of weights is not read, whoever wrote it
        # else it would ask the Hub whether the base is an adapter
        adapter_kwargs={"local_files_only": "local_files_only" in source},
        dtype=dtype,
        **options,
        **source,
    )


def parameters_of(trial: TrialConfig) -> int:
    """How many parameters the base has, seen from its configuration alone."""
    code = trial.trust_remote_code
    config = AutoConfig.from_pretrained(
        trial.model, revision=trial.model_revision, trust_remote_code=code
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=code)
    return sum(parameter.numel() for parameter in model.parameters())


def nf4_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation, as in QLoRA (Dettmers et al. 2023, arXiv:2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def load_tokenizer(trial: TrialConfig, chat_template: str) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with a pad token and `Packs.chat_template`: not every base has one of
    its own, and prompts are to look as in training."""
    tokenizer = AutoTokenizer.from_pretrained(
        trial.model,
        trust_remote_code=trial.trust_remote_code,
        **fetched(trial.model, trial.model_revision, code=trial.trust_remote_code),
    )
    tokenizer.chat_template = chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def saved_tokenizer(folder: Path, trial: TrialConfig) -> PreTrainedTokenizerBase:
    """The tokenizer that `load_tokenizer` gave and that was saved in a local folder."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trial.trust_remote_code)


def _keep_gradients_through_4bit(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking Linear4bit for inference on AVX512-BF16 CPUs.

    The first no-grad forward in eval mode would do it, and gradients through the base are silently
    gone from then on (bitsandbytes 0.50, nn/modules.py).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010
