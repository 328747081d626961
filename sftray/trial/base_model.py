"""The base and what is trained of it, an adapter or all weights: every transformers, PEFT and
bitsandbytes object of the project is built here, but for the attention (`attention.py`).

Promise: what is trained is float32 (asserted by `require_float32`), and a 4-bit base passes
gradients on the CPU too.
"""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from sftray.config import TrialConfig
from sftray.storage.hub import fetched
from sftray.trial.attention import Attention


def compute_dtype(trial: TrialConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it, float32 on the CPU and for an fp32 base."""
    if device.type != "cuda" or trial.base_precision == "fp32":
        return torch.float32
    return torch.bfloat16


def load_base(trial: TrialConfig, device: torch.device, attention: Attention) -> Any:
    """The base on `device`, frozen, quantised to NF4 while loading where the trial says so; in
    float32 where all of it is to be trained (`train_all`)."""
    dtype = compute_dtype(trial, device)
    if trial.finetune == "full":
        dtype = torch.float32
    elif trial.base_precision == "bf16":
        dtype = torch.bfloat16
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention.implementation}
    if trial.base_precision == "nf4":
        options["quantization_config"] = nf4_config(compute_dtype(trial, device))
        if trial.shard_base:  # see `train.shard`
            options["quantization_config"].bnb_4bit_quant_storage = torch.float32
    found = fetched(trial.model, trial.model_revision, code=trial.trust_remote_code)
    model = AutoModelForCausalLM.from_pretrained(
        trial.model,
        trust_remote_code=trial.trust_remote_code,
        use_safetensors=True,  # a pickle of weights is not read, whoever wrote it
        device_map={"": device},
        # else it would ask the Hub whether the base is an adapter
        adapter_kwargs={"local_files_only": "local_files_only" in found},
        **found,
        **options,
    )
    model.config.use_cache = False
    _keep_gradients_through_4bit(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def unquantised(trial: TrialConfig, dtype: torch.dtype) -> Any:
    """The base's own weights in `dtype`, on the CPU."""
    found = fetched(trial.model, trial.model_revision, code=trial.trust_remote_code)
    return AutoModelForCausalLM.from_pretrained(
        trial.model,
        trust_remote_code=trial.trust_remote_code,
        use_safetensors=True,
        adapter_kwargs={"local_files_only": "local_files_only" in found},
        dtype=dtype,
        **found,
    )


def parameters_of(trial: TrialConfig) -> int:
    """How many parameters the base has, told from its configuration alone."""
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


def load_tokenizer(trial: TrialConfig, chat_template: str) -> Any:
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


def saved_tokenizer(folder: Path, trial: TrialConfig) -> Any:
    """The tokenizer that `load_tokenizer` gave and that was saved in a local folder."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trial.trust_remote_code)


def lora_config(trial: TrialConfig) -> LoraConfig:
    """The trial's adapter in PEFT's words."""
    targets = trial.lora_target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=trial.lora_r,
        lora_alpha=trial.alpha,
        lora_dropout=trial.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
    )


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_all(model: Any) -> None:
    """Train every weight of a base, and not an adapter on it."""
    model.requires_grad_(True)
    try:
        model.generation_config.validate(strict=True)
    except ValueError:  # a temperature without sampling, which transformers reads and does not save
        model.generation_config.do_sample = True


def init_adapters(model: nn.Module, seed: int) -> None:
    """Float32 adapters: lora_A Kaiming-uniform from a generator of its own (seed, module name),
    lora_B zero.

    Seeded by name, an adapter starts the same on every device, worker and trainer.
    """
    for name, parameter in trained_parameters(model).items():
        parameter.data = parameter.data.to(torch.float32)
        if "lora_B" in name:
            parameter.data.zero_()
            continue
        values = init_lora_a(_plain_name(name), parameter.shape, seed)
        parameter.data.copy_(values)


def init_lora_a(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """A fresh lora_A [rank, input] in float32: Kaiming-uniform with a = √5, as PEFT draws it."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(tuple(shape)).uniform_(-bound, bound, generator=generator)


def require_float32(model: nn.Module) -> None:
    """Raise RuntimeError unless every trained parameter is float32 (decision 6)."""
    wrong = [name for name, p in trained_parameters(model).items() if p.dtype != torch.float32]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} trained weights are not float32 (first: {wrong[0]}): in bfloat16, AdamW "
            "updates of 1e-5 on weights of 1e-2 round to nothing"
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch, cuBLAS or a Triton kernel has found no more GPU memory."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in said for sign in ("out of memory", "ALLOC_FAILED", "cudaErrorMemoryAllocation")
    )


def free_memory() -> None:
    """Give the GPU back what is not referred to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_gb(device: torch.device) -> float:
    """The most GPU memory this process has held, in GiB; 0 on the CPU."""
    if device.type != "cuda":
        return 0.0
    return torch.cuda.max_memory_allocated(device) / 2**30


def _keep_gradients_through_4bit(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking Linear4bit for inference on AVX512-BF16 CPUs.

    The first no-grad forward in eval mode would do it, and gradients through the base are silently
    gone from then on (bitsandbytes 0.50, nn/modules.py).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


def _plain_name(name: str) -> str:
    """A parameter's name without PEFT's wrapping, so that every trainer seeds it alike."""
    return name.removeprefix("base_model.model.").replace(".default.", ".")
