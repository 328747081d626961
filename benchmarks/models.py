"""Which causal language models of transformers train here, and with which attention.

Each type is built small, with weights large enough to matter, and proved as a trial's base is: the
reference is eager attention in float32, each document alone. A type runs in a process of its own.

    python benchmarks/models.py                     # every type in float32 on this machine's CPU
    python benchmarks/models.py --device cuda       # in bfloat16, FlashAttention and varlen too
    python benchmarks/models.py --types gemma3_text qwen3_5_text
    python benchmarks/models.py --table cpu.json gpu.json   # the table of docs/models.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from console import argument_parser, say
from peft import get_peft_model
from torch import nn

from sftray.config import TrialConfig
from sftray.plan.model_shape import ModelShape
from sftray.plan.trainer_choice import why_not_the_base
from sftray.trial.attention import possible_attentions
from sftray.trial.base_model import computing_as
from sftray.trial.equality import Reference
from sftray.trial.lora_adapter import lora_config
from sftray.trial.proof import first_that_passes

TIMEOUT = 240
MAX_LENGTH = 2048
WINDOW = 64
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 131, "max_position_embeddings": 4096,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "sliding_window": WINDOW, "attention_chunk_size": WINDOW,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
    "v_head_dim": 16, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16,
    "mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_num_heads": 4, "mamba_head_dim": 32,
    "ssm_state_size": 16, "state_size": 16, "chunk_size": 16,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}  # fmt: skip
"""What a configuration of any type may have; a field that it lacks is left out."""
MLA = {"num_key_value_heads": 4, "head_dim": 8}
"""Latent attention: as many keys as queries."""
OWN: dict[str, dict[str, Any]] = {
    "deepseek_v2": MLA, "deepseek_v3": MLA, "glm4_moe_lite": MLA, "youtu": MLA,
    "falcon": {"num_kv_heads": 4, "new_decoder_architecture": False, "multi_query": False},
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 4, "n_positions": 4096},
    "gpt_neo": {"hidden_size": 64, "num_heads": 4, "num_layers": 4, "intermediate_size": 96,
                "attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "gptj": {"n_embd": 64, "n_head": 4, "n_layer": 4, "rotary_dim": 16, "n_positions": 4096},
    "codegen": {"n_embd": 64, "n_head": 4, "n_layer": 4, "rotary_dim": 16, "n_positions": 4096},
    "gpt_bigcode": {"n_embd": 64, "n_head": 4, "n_layer": 4, "n_positions": 4096},
    "bloom": {"hidden_size": 64, "n_head": 4, "n_layer": 4},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 4096},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma2": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "qwen3_5_moe_text": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mamba", "moe"], "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "mamba2": {"num_heads": 4, "head_dim": 32, "n_groups": 1},
    "longcat_flash": {**MLA, "num_layers": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 16},
    "recurrent_gemma": {"attention_window_size": WINDOW, "lru_width": 64},
    "zamba2": {"num_mem_blocks": 1, "layers_block_type": ["mamba", "hybrid"] * 2,
               "n_mamba_heads": 4},
}  # fmt: skip
TYPES = """
afmoe apertus arcee bamba biogpt bitnet bloom codegen cohere cohere2 cohere2_moe cwm deepseek_v2
deepseek_v3 diffllama doge dots1 ernie4_5 ernie4_5_moe exaone4 falcon falcon_h1 falcon_mamba
flex_olmo gemma gemma2 gemma3_text gemma4_text glm glm4 glm4_moe glm4_moe_lite gpt2 gpt_bigcode
gpt_neo gpt_neox gpt_oss gptj granite granitemoe granitemoehybrid granitemoeshared helium
hunyuan_v1_dense hunyuan_v1_moe hyperclovax jamba jetmoe lfm2 lfm2_moe llama llama4_text
longcat_flash mamba mamba2 minimax minimax_m2 ministral ministral3 mistral mixtral mpt nanochat
nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe
qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next recurrent_gemma seed_oss smollm3 solar_open
stablelm starcoder2 vaultgemma youtu zamba2
"""


@dataclass
class Line:
    """What was found of a type."""

    kind: str
    attention: str = ""
    """The one that a trial takes."""
    equality: str = ""
    refused: list[str] = field(default_factory=list)
    """Faster ones, with the reason."""
    bank: str = ""
    """Empty where a bank takes it, else why not."""
    memory: bool = False
    """Whether `--plan` knows its memory."""
    lora: str = ""
    """The modules that LoRA reaches, of a layer."""
    failed: str = ""


def small_config(kind: str) -> Any:
    """A small configuration of a type, with windows shorter than the documents compared."""
    config_class = transformers.models.auto.configuration_auto.CONFIG_MAPPING[kind]
    known = set(getattr(config_class, "attribute_map", {}))
    for parent in config_class.__mro__:
        known |= set(getattr(parent, "__annotations__", {}))
    values = {name: value for name, value in SIZES.items() if name in known}
    return config_class(**(values | OWN.get(kind, {})))


def small_model(kind: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Random weights large enough that attention is far from even."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        small_config(kind), attn_implementation="eager", dtype=dtype
    )
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, float(parameter.detach().mean()), 0.1)
        elif parameter.dim() > 1 and "A_log" not in name:
            nn.init.normal_(parameter, 0.0, 0.15)
    return model.to(device).requires_grad_(False).eval()


def examine(kind: str, device: torch.device) -> Line:
    """What is true of a type on a device."""
    line = Line(kind)
    on_gpu = device.type == "cuda"
    trial = TrialConfig(kind, base_precision="bf16" if on_gpu else "fp32")
    model = small_model(kind, torch.bfloat16 if on_gpu else torch.float32, device)
    config = model.config.to_dict()
    line.bank = why_not_the_base(config) or ""
    line.memory = ModelShape.of(config) is not None
    line.lora = ", ".join(_lora_targets(model))

    def computing() -> Any:
        return computing_as(trial, device)

    reference = Reference(model, MAX_LENGTH, computing)
    candidates = possible_attentions(trial, device)
    proof, line.refused = first_that_passes(model, candidates, reference, computing)
    if proof is None:
        line.failed = "no attention passes"
        return line
    line.attention, line.equality = proof.attention.name, proof.equality.text()
    return line


def _lora_targets(model: Any) -> list[str]:
    """The modules that "all-linear" adapts, by their last name."""
    adapted = get_peft_model(model, lora_config(TrialConfig("base"), model))
    names = [name.rsplit(".", 1)[-1] for name in adapted.base_model.targeted_module_names]
    adapted.unload()
    return list(dict.fromkeys(names))


def in_a_process(kind: str, device: str) -> Line:
    """`examine`, in a process that is ended after TIMEOUT seconds."""
    command = [sys.executable, __file__, "--one", kind, "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return Line(kind, failed=f"not examined in {TIMEOUT} s")
    if done.returncode:
        return Line(kind, failed=(done.stderr.strip().splitlines() or ["?"])[-1][:200])
    return Line(**json.loads(done.stdout.splitlines()[-1]))


def as_text(lines: Sequence[Line]) -> str:
    """One line a type."""
    out = []
    for line in lines:
        out.append(f"{line.kind:18} {line.attention or line.failed:18} {line.equality} {line.lora}")
        out += [f"{'':18} not {reason}" for reason in line.refused]
    return "\n".join(out)


def as_table(cpu: Sequence[Line], gpu: Sequence[Line]) -> str:
    """docs/models.md's table: a row for the types of one attention, bold those of a bank, † those
    whose memory is not planned."""
    by_kind = {line.kind: line for line in gpu}
    alike: dict[tuple[str, str], list[str]] = {}
    for line in cpu:
        cells = (_cell(line), _cell(by_kind.get(line.kind, Line(line.kind))))
        name = line.kind if line.bank else f"**{line.kind}**"
        alike.setdefault(cells, []).append(name + ("" if line.memory else "†"))
    out = ["| on a CPU | on an H200, bf16 | types |", "|---|---|---|"]
    for cells, names in sorted(alike.items(), key=lambda row: -len(row[1])):
        out.append(f"| {' | '.join((*cells, ', '.join(names)))} |")
    return "\n".join(out)


def _cell(line: Line) -> str:
    """The attention, and why what is faster on that device was passed over."""
    if not line.attention:
        return f"refused: {line.failed[:80]}" if line.failed else "–"
    names: dict[str, list[str]] = {}
    for reason in line.refused:
        name, why = reason.split(": ", 1)
        names.setdefault(_short(why), []).append(name)
    short = [f"{why}: {', '.join(dict.fromkeys(who))}" for why, who in names.items()]
    return line.attention + (f" ({'; '.join(short)})" if short else "")


def _short(reason: str) -> str:
    known = {
        "see each other": "documents leak",
        "does not support": "not in transformers",
        "transformers has no": "not in transformers",
        "differs from eager": "not equal",
        "only supports head dimension": "head dimension",
        "can't keep packed": "kernel packages missing",
        "passes s_aux": "sinks",
        "passes softcap": "soft cap",
        "`kernels` is": "kernel packages missing",
    }
    return next((word for sign, word in known.items() if sign in reason), reason[:60])


def read_lines(path: str) -> list[Line]:
    return [Line(**line) for line in json.loads(Path(path).read_text())]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--types", nargs="*", default=TYPES.split())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--table", nargs=2, metavar=("CPU", "GPU"), help="JSON of two runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        say(as_table(*map(read_lines, options.table)))
        return
    if options.one:
        transformers.logging.set_verbosity_error()
        say(json.dumps(asdict(examine(options.one, torch.device(options.device)))))
        return
    with ThreadPoolExecutor(options.processes) as pool:
        lines: list[Line] = []
        for line in pool.map(lambda kind: in_a_process(kind, options.device), options.types):
            say(as_text([line]))
            lines.append(line)
            if options.out:  # what is known if it is cut off
                options.out.write_text(json.dumps([asdict(one) for one in lines], indent=1))


if __name__ == "__main__":
    main()
