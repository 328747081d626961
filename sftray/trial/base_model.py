"""The base and what is trained of it, an adapter or all weights: every transformers, PEFT and
bitsandbytes object of the project is built here, but for the attention (`attention.py`).

Promise: what is trained is float32 (asserted by `require_float32`), and a 4-bit base passes
gradients on the CPU too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    CompressedTensorsConfig,
    FineGrainedFP8Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from sftray.config import TrialConfig
from sftray.errors import BrokenBaseError
from sftray.plan.checkpoint_format import quantization_of
from sftray.storage.hub import fetched
from sftray.storage.model_files import BaseConfig
from sftray.trial.fp8_rounding import round_products
from sftray.trial.quantised_products import plain_products
from sftray.trial.text_part import KEYS, name_as_in_the_whole, text_part, without_report

Computing = Callable[[], AbstractContextManager[object]]
"""A context in which a trial computes."""


def compute_dtype(trial: TrialConfig, device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, float32 on the CPU and for an fp32 base."""
    if device.type != "cuda" or trial.base_precision == "fp32":
        return torch.float32
    return torch.bfloat16


def computing_as(trial: TrialConfig, device: torch.device) -> torch.autocast:
    """A context in which weights of float32 are computed with as the trial does."""
    enabled = compute_dtype(trial, device) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def load_base(trial: TrialConfig, device: torch.device) -> PreTrainedModel:
    """The base on `device` with eager attention, which every model has; frozen, quantised to NF4
    or FP8 where the trial says so; in float32 where all of it is to be trained (`train_all`)."""
    compute = compute_dtype(trial, device)
    dtype = compute
    if trial.finetune == "full":
        dtype = torch.float32
    elif trial.base_precision in ("bf16", "fp8"):
        dtype = torch.bfloat16
    model = pretrained(
        trial,
        dtype,
        quantized=partial(_quantization, trial, compute),
        device_map={"": device},
        attn_implementation="eager",
    )
    model.config.use_cache = False
    if dtype == torch.bfloat16 and compute == torch.float32:
        model.float()  # on a CPU: rounded weights, computed with in float32
    plain_products(model, compute)
    if trial.base_precision == "fp8":
        round_products(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _quantization(
    trial: TrialConfig, dtype: torch.dtype, base: BaseConfig
) -> QuantizationConfigMixin | None:
    """What the base is quantised to while it is loaded, or decoded from; None where it is taken as
    it is saved."""
    saved = quantization_of(base)
    if saved and "bits" not in str(saved.get("quant_method")):  # FP8
        decode = {"fp8": FineGrainedFP8Config, "compressed-tensors": CompressedTensorsConfig}
        return decode[str(saved["quant_method"])](dequantize=True)
    if saved or trial.base_precision != "nf4":
        return None
    config = nf4_config(dtype)
    if trial.shard_base:  # see `sharded_base`
        config.bnb_4bit_quant_storage = torch.float32
    return config


def pretrained(
    trial: TrialConfig,
    dtype: torch.dtype,
    *,
    whole: bool = False,
    quantized: Callable[[BaseConfig], QuantizationConfigMixin | None] = lambda base: None,
    **options: object,
) -> PreTrainedModel:
    """The base's own weights in `dtype`, on the CPU unless transformers' `options` say more; of a
    checkpoint with other parts the language model alone, or the `whole` of it. `quantized` says
    from its configuration how it is held.

    Raises BrokenBaseError where some are not there, which transformers would draw at random.
    """
    code, name = trial.trust_remote_code, trial.model
    source = fetched(name, trial.model_revision, code=code)
    config = AutoConfig.from_pretrained(name, trust_remote_code=code, **source)
    if (how := quantized(config.to_dict())) is not None:
        options |= {"quantization_config": how}
    text = text_part(config)
    loaded_as = AutoModelForCausalLM
    if text is not None and whole:
        loaded_as = AutoModelForImageTextToText
    elif text is not None:
        options |= {"config": text, "key_mapping": KEYS}
    with contextlib.nullcontext() if text is None else without_report():
        model, info = loaded_as.from_pretrained(
            name,
            trust_remote_code=code,
            use_safetensors=True,  # a pickle of weights is not read, whoever wrote it
            # else it would ask the Hub whether the base is an adapter
            adapter_kwargs={"local_files_only": "local_files_only" in source},
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
            **source,
        )
    for name, saved, wanted in info["mismatched_keys"]:
        _refuse(trial, f"{name} is {list(saved)} and not {list(wanted)} as its config.json says")
    for name in sorted(info["missing_keys"]):
        _refuse(trial, f"{name} is missing")
    if text is not None and not whole:
        name_as_in_the_whole(model)
    return model


def _refuse(trial: TrialConfig, weight: str) -> NoReturn:
    raise BrokenBaseError(
        f"trial.model: got {trial.model}, of whose weights {weight}; must be a whole checkpoint",
        "save it again with save_pretrained, or take the one that it was made from",
    )


def parameters_of(trial: TrialConfig) -> int:
    """How many parameters the base has, seen from its configuration alone; the whole of it."""
    code = trial.trust_remote_code
    config = AutoConfig.from_pretrained(
        trial.model, revision=trial.model_revision, trust_remote_code=code
    )
    made_as = AutoModelForCausalLM if text_part(config) is None else AutoModelForImageTextToText
    with torch.device("meta"):
        model = made_as.from_config(config, trust_remote_code=code)
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
