"""What the benchmarks run on: models of true shapes with random weights, and rows packed from real
conversations.

    python benchmarks/shapes.py SHAPE FOLDER   saves such a model

Promise: random weights are right for speed and memory, and for nothing else; a model is made on the
device, tensor by tensor, and quantised to NF4 as sftray does it. Price: an 8B takes seconds and at
most 23 GiB of GPU memory while it is made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.data.recipe import find_packs, make_recipe
from sftray.demo import FOLDER
from sftray.plan.bank_settings import BankSettings
from sftray.trial.attention import Attention, possible_attentions, use_attention
from sftray.trial.base_model import load_base, nf4_config
from sftray.trial.fp8_rounding import round_products

sys.path.append(str(Path(__file__).parent.parent / "tests" / "fakes"))

from bases import GEMMA_270M, LLAMA_1B, LLAMA_8B, QWEN_05B  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "8B": LLAMA_8B | {"rms_norm_eps": 1e-5},
    "1B": LLAMA_1B | {"rms_norm_eps": 1e-5},
    "0.5B": QWEN_05B | {"rms_norm_eps": 1e-6},  # q, k and v have biases
    "270M": GEMMA_270M,  # Gemma 3
    # to try a benchmark on a CPU; nothing to measure
    "tiny-gemma": GEMMA_270M
    | {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "head_dim": 32,
        "sliding_window": 48,
        "layer_types": ["sliding_attention", "full_attention"],
        "vocab_size": 8192,
    },
    "tiny": {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
}

CONVERSATIONS = 20_000
"""Of them packed: about two million tokens."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""The files of the bundled tokenizer; its vocabulary is smaller than that of every shape."""


def parse_setting(text: str) -> tuple[str, int, int]:
    """(shape, count, row length) of `8B:4:2048`; a saved model may take a shape's place."""
    shape, count, length = text.rsplit(":", 2)
    if shape not in SHAPES and not (Path(shape) / "config.json").exists():
        known = ", ".join(SHAPES)
        raise argparse.ArgumentTypeError(f"shape: got {shape!r}, must be of {known}, or a folder")
    return shape, int(count), int(length)


def model_config(shape: str) -> Any:
    """transformers' configuration of a shape, with the bundled tokenizer's special tokens; or that
    of a saved model."""
    if shape not in SHAPES:
        return AutoConfig.from_pretrained(shape)
    special = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    options = {**SHAPES[shape], **{name: special[name] for name in names}}
    kind = options.pop("model_type")
    return AutoConfig.for_model(kind, max_position_embeddings=8192, use_cache=False, **options)


def base_of(trial: TrialConfig, device: torch.device) -> Any:
    """A trial's base: a saved model as a sweep loads it, or a shape with random weights."""
    if trial.model not in SHAPES:
        return load_base(trial, device)
    sdpa = possible_attentions(TrialConfig(trial.model, attention="sdpa"), device)[0]
    half = trial.base_precision in ("bf16", "fp8")
    model = random_model(trial.model, device, sdpa, quantised=not half, half=half)
    if trial.base_precision == "fp8":
        round_products(model)
    return model


def random_model(
    shape: str,
    device: torch.device,
    attention: Attention,
    storage: torch.dtype | None = None,
    *,
    quantised: bool = True,
    half: bool = False,
) -> Any:
    """A model of random weights on `device`, in NF4 with double quantisation, frozen; its 4-bit
    numbers in tensors of the dtype `storage`, where that matters. Or in float32, as it is where all
    weights are trained, or `half` of that on a GPU."""
    config = model_config(shape)
    dtype = torch.float32
    if device.type == "cuda" and (quantised or half):
        dtype = torch.bfloat16
    skeleton, quantisation = _skeleton(config, dtype), nf4_config(dtype)
    if storage is not None:
        quantisation.bnb_4bit_quant_storage = storage
    model = type(skeleton).from_pretrained(
        None,
        config=config,
        state_dict=_weights(skeleton, dtype, device),
        dtype=dtype,
        **({"quantization_config": quantisation} if quantised else {}),
        attn_implementation="eager",
        device_map={"": device},
    )
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            # on CPUs with AVX512-BF16 it would be repacked, and its gradients gone
            module.support_avx512bf16_for_cpu = False
    use_attention(model, attention)
    return model.requires_grad_(False)


def write_model(shape: str, folder: Path) -> None:
    """Save a model of random weights in bfloat16, with the bundled tokenizer, unless it is there.

    A folder of this name is whole.
    """
    if folder.exists():
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _skeleton(model_config(shape), torch.bfloat16)
    model.load_state_dict(_weights(model, torch.bfloat16, device), strict=False, assign=True)
    model.tie_weights()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished, max_shard_size="4GB")
    for name in TOKENIZER:
        shutil.copy(FOLDER / name, unfinished)
    unfinished.rename(folder)


def data_of(data: str, length: int, chat_template: str | None = None) -> DataConfig:
    """The conversations in `data`, packed to rows of one length."""
    return DataConfig(
        data,
        max_length=length,
        max_conversations=CONVERSATIONS,
        num_eval_conversations=64,
        max_bad_fraction=1.0,  # short rows drop long conversations
        chat_template=chat_template,
    )


def grid_data(options: argparse.Namespace) -> DataConfig:
    """Of a benchmark that trains a grid of points in a bank."""
    return DataConfig(
        options.data,
        max_length=options.length,
        chat_template=options.chat_template,
        max_conversations=options.conversations,
        num_eval_conversations=options.evals,
        max_bad_fraction=1.0,  # what is longer than a row is left out
    )


def grid_settings(options: argparse.Namespace) -> BankSettings:
    """Its slots, of one row each."""
    return BankSettings(
        slots=options.slots,
        micro_batch_size=1,
        lora_r=max(options.ranks),
        dropout=False,
        resident=True,
        activation_checkpointing=False,
        memory_gb=0.0,
    )


def tokenizer_of(shape: str) -> str:
    """The folder of its tokenizer: the bundled one's for random weights."""
    return str(FOLDER) if shape in SHAPES else shape


def make_packs(data: str, lengths: Sequence[int], storage: str) -> dict[int, Packs]:
    """Packs of the conversations in `data`, one for each row length, kept under `storage`."""
    found = {}
    for length in sorted(set(lengths)):
        found[length] = packs_of(data_of(data, length), str(FOLDER), storage)
    return found


def packs_of(data: DataConfig, model: str, storage: str) -> Packs:
    """Packs of some data for a base, kept under `storage`."""
    import ray

    from sftray.data.pipeline import packs_from

    recipe = make_recipe(data, model)
    packs = find_packs(recipe, storage=storage)
    if packs is None:
        ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        packs = packs_from(recipe, storage=storage)
        ray.shutdown()  # its processes would share the machine with what is measured
    return packs


def _skeleton(config: Any, dtype: torch.dtype) -> Any:
    """The model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def _weights(skeleton: Any, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    """Random weights of standard deviation 0.02, norms of 1; a tied head is left out."""
    generator = torch.Generator(device).manual_seed(0)
    weights = {}
    for name, empty in skeleton.state_dict().items():
        if name == "lm_head.weight" and skeleton.config.tie_word_embeddings:
            continue
        weight = torch.empty(empty.shape, dtype=dtype, device=device)
        if "norm" in name:
            weights[name] = weight.fill_(1.0)
        else:
            weights[name] = weight.normal_(0.0, 0.02, generator=generator)
    return weights


if __name__ == "__main__":
    write_model(sys.argv[1], Path(sys.argv[2]))
