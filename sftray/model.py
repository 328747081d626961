"""The frozen base, its attention, and the adapter on it: every transformers, PEFT and bitsandbytes
object of the project is built here.

Promise: documents of one packed row never see each other (proved on the loaded model by
`prove_isolation`), adapters are float32 (asserted by `require_float32_adapters`), and a 4-bit base
passes gradients on the CPU too.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from sftray.config import TrialConfig
from sftray.data.collate import collate
from sftray.errors import ConfigError

PROBE_LENGTHS = (7, 11, 6)
"""Tokens of the documents with which an attention is proved to keep them apart."""


@dataclass(frozen=True)
class Attention:
    """How documents are kept apart inside a packed row."""

    name: str
    """The name in TrialConfig.attention and in reports."""
    implementation: str
    """The name transformers knows it by."""
    flatten: bool
    """Rows are laid end to end, boundaries in cu_seq_lens, instead of stacked."""


_FLASH = Attention("flash_attention_2", "flash_attention_2", flatten=True)
_SDPA = Attention("sdpa", "sdpa", flatten=False)


def choose_attention(trial: TrialConfig, device: torch.device) -> Attention:
    """The cheapest attention that works on `device`, or the one the trial asks for.

    Raises ConfigError where the one asked for cannot run here.
    """
    flash_works = (
        device.type == "cuda"
        and importlib.util.find_spec("flash_attn") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and trial.base_precision != "fp32"
    )
    if trial.attention == "flash_attention_2" and not flash_works:
        raise ConfigError(
            f"trial.attention: got 'flash_attention_2' on {device.type} with "
            f"base_precision={trial.base_precision!r}, must have a GPU of compute capability 8.0 "
            "or newer, the flash-attn package and 16-bit compute; leave it None to take what works"
        )
    if trial.attention == "sdpa" or not flash_works:
        return _SDPA
    return _FLASH


def compute_dtype(trial: TrialConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it, float32 on the CPU and for an fp32 base."""
    if device.type != "cuda" or trial.base_precision == "fp32":
        return torch.float32
    return torch.bfloat16


def load_base(trial: TrialConfig, device: torch.device, attention: Attention) -> Any:
    """The frozen base on `device`, quantised to NF4 while loading where the trial says so."""
    dtype = compute_dtype(trial, device)
    if trial.base_precision == "bf16":
        dtype = torch.bfloat16
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention.implementation}
    if trial.base_precision == "nf4":
        options["quantization_config"] = nf4_config(compute_dtype(trial, device))
    model = AutoModelForCausalLM.from_pretrained(
        trial.model,
        revision=trial.model_revision,
        trust_remote_code=trial.trust_remote_code,
        device_map={"": device},
        **options,
    )
    model.config.use_cache = False
    _keep_gradients_through_4bit(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


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
        trial.model, revision=trial.model_revision, trust_remote_code=trial.trust_remote_code
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


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def init_adapters(model: nn.Module, seed: int) -> None:
    """Float32 adapters: lora_A Kaiming-uniform from a generator of its own (seed, module name),
    lora_B zero.

    Seeded by name, an adapter starts the same on every device, worker and trainer.
    """
    for name, parameter in adapter_parameters(model).items():
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


def require_float32_adapters(model: nn.Module) -> None:
    """Raise RuntimeError unless every trained parameter is float32 (decision 6)."""
    wrong = [name for name, p in adapter_parameters(model).items() if p.dtype != torch.float32]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} adapter weights are not float32 (first: {wrong[0]}): in bfloat16, AdamW "
            "updates of 1e-5 on weights of 1e-2 round to nothing"
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch, cuBLAS or a Triton kernel has found no more GPU memory."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in said for sign in ("CUDA out of memory", "ALLOC_FAILED", "cudaErrorMemoryAllocation")
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


@torch.no_grad()
def prove_isolation(model: Any, attention: Attention, *, tolerance: float = 0.0) -> float:
    """The largest change of any document's logits when another document of its row is changed.

    Three documents of 7, 11 and 6 tokens; the middle one is replaced and the logits of the others
    compared. Raises RuntimeError above `tolerance`: an attention that lets documents see each
    other is refused, not used.
    """
    was_training = model.training
    model.eval()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    change = isolation_change(vocabulary, lambda row: _row_logits(model, row, attention))
    model.train(was_training)
    refuse_leak(attention.name, "logits", change, tolerance)
    return change


def isolation_change(vocabulary: int, outputs: Callable[[np.ndarray], torch.Tensor]) -> float:
    """The largest change of what `outputs` gives for a row of documents of PROBE_LENGTHS at the
    other documents' positions, when the middle one is replaced."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, vocabulary, size=24)
    other = tokens.copy()
    other[7:18] = (other[7:18] + 1) % vocabulary
    before, after = (outputs(row) for row in (tokens, other))
    kept = torch.cat([torch.arange(7), torch.arange(18, 24)])
    return float((before[kept] - after[kept]).float().abs().max())


def refuse_leak(attention: str, what: str, change: float, tolerance: float = 0.0) -> None:
    """Raise RuntimeError where documents have seen each other."""
    if not change <= tolerance:
        raise RuntimeError(
            f"attention {attention!r} lets the documents of a packed row see each other: "
            f"changing one document moved another's {what} by {change:.3g}"
        )


def _row_logits(model: Any, tokens: np.ndarray, attention: Attention) -> torch.Tensor:
    row = {
        "input_ids": tokens,
        "labels": np.full(tokens.shape, -100),
        "seq_lengths": np.array(PROBE_LENGTHS),
    }
    batch = collate([row], flatten=attention.flatten)
    batch.pop("labels")
    device = model.get_input_embeddings().weight.device
    inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=attention.flatten):
        logits = model(**inputs, use_cache=False).logits
    return torch.as_tensor(logits[0].float().cpu())


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
