"""Which modules of a base `lora_target_modules` names, known before the base is loaded.

Promise: for the families whose modules have the same names in every base. Of others a name that is
in no tensor of a local checkpoint is refused, and what PEFT would make of it is known: it takes
names of experts for parameters, and no adapter for some modules. All else PEFT says when the first
trial begins.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from sftray.config import SweepConfig
from sftray.config.checks import refuse
from sftray.config.points import all_values
from sftray.plan.model_shape import PROJECTIONS
from sftray.storage.model_files import BaseConfig, tensor_names

EXPERTS_BY_NAME = frozenset(
    (
        *("afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1"),
        *("ernie4_5_moe", "exaone_moe", "flex_olmo", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa"),
        *("hunyuan_v1_moe", "longcat_flash", "mellum", "minimax", "minimax_m2", "mixtral"),
        *("olmoe", "qwen3_moe", "qwen3_next", "qwen3_omni_moe_text", "solar_open"),
    )
)
"""Model types of which PEFT 0.21 takes some names for those of transformers 4, and "all-linear" for
all of them: it adapts every expert and the router, and no dense layer of these names."""
EXPERT_NAMES = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
MAMBA = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
MAMBA_NAMES = frozenset({"out_proj", "conv1d", "dt_proj"})
"""Modules whose weights are read past them, so that an adapter would do nothing; PEFT refuses the
first two."""

INSIDE = "language_model"
"""What transformers calls the language model in `model` of a multimodal checkpoint."""

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
EMBEDDING = "embed_tokens"
_ATTENTION = PROJECTIONS[:4]
_LAYER = ("input_layernorm", "post_attention_layernorm")


def not_adapted(kind: str | None) -> frozenset[str]:
    """Names of linear layers that "all-linear" leaves out in bases of a model type."""
    if kind in MAMBA or kind == "jamba":
        return MAMBA_NAMES - ({"out_proj"} if kind == "jamba" else set())
    return EXPERT_NAMES if kind in EXPERTS_BY_NAME else frozenset()


def _require_no_experts(sweep: SweepConfig, kind: str | None) -> None:
    out = not_adapted(kind)
    places = [f"model.layers.0.mlp.{room}{n}" for n in out for room in ("", "experts.")]
    for targets in all_values(sweep, "lora_target_modules") - {"all-linear"}:
        pattern = isinstance(targets, str)
        for name in [targets] if pattern else list(targets or ()):  # type: ignore[arg-type]
            if any(_matches(str(name), place, pattern) for place in places):
                refuse(
                    "trial.lora_target_modules",
                    f"{name!r} on a {kind}, of which PEFT adapts experts or nothing by that name",
                    "of its other linear layers",
                    "experts are adapted by lora_target_parameters",
                )


def require_targets(sweep: SweepConfig, base: BaseConfig) -> None:
    """Raise ConfigError where trials would adapt modules that the base has not, or that carry no
    adapter. PEFT passes by a name that is none beside one that is."""
    if sweep.trial.finetune == "full":
        return
    _require_no_experts(sweep, base.get("model_type"))
    if base.get("model_type") not in FAMILIES:
        _require_named(sweep, base)
        return
    modules = list(module_names(base.get("num_hidden_layers", 1)))
    for targets in all_values(sweep, "lora_target_modules") - {"all-linear"}:
        names = [targets] if isinstance(targets, str) else list(targets or ())  # type: ignore[arg-type]
        for name in names:
            matched = [one for one in modules if _matches(name, one, isinstance(targets, str))]
            _require(name, matched, pattern=isinstance(targets, str))


def _require_named(sweep: SweepConfig, base: BaseConfig) -> None:
    """Raise ConfigError where a name is in none of the checkpoint's tensors. Experts and parts of
    larger checkpoints are called otherwise there; so may be what others call a projection."""
    if "text_config" in base or any("expert" in key for key in base):
        return
    listed = [one for one in all_values(sweep, "lora_target_modules") if not isinstance(one, str)]
    tensors = tensor_names(sweep.trial.model)
    known = {part for tensor in tensors for part in tensor.split(".")} | {*PROJECTIONS, EMBEDDING}
    for name in (str(one) for names in listed for one in names or ()):  # type: ignore[union-attr]
        if tensors and name.rpartition(".")[2] not in known:
            _require(name, [], pattern=False)


def _require(name: str, matched: Sequence[str], *, pattern: bool) -> None:
    what, known = "trial.lora_target_modules", ", ".join((*PROJECTIONS, EMBEDDING))
    if not matched:
        near = difflib.get_close_matches(name, ("all-linear", *PROJECTIONS, EMBEDDING), n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        if pattern and name in (*PROJECTIONS, EMBEDDING):
            hint = f"write it as a list: [{name!r}]"
        refuse(what, f"{name!r}, which matches no module of the base", f"of {known}", hint)
    last = {one.rpartition(".")[2] for one in matched}
    if others := sorted(last - {*PROJECTIONS, EMBEDDING}):
        refuse(what, f"{name!r}, which matches {others[0]}", f"of {known}: it carries no adapter")


def module_names(layers: int) -> Iterator[str]:
    """The modules of a base of these families, as transformers calls them."""
    yield from (f"model.{EMBEDDING}", "model.norm", "lm_head")
    for number in range(layers):
        for name in PROJECTIONS:
            room = "self_attn" if name in _ATTENTION else "mlp"
            yield f"model.layers.{number}.{room}.{name}"
        yield from (f"model.layers.{number}.{name}" for name in _LAYER)


def _matches(target: str, module: str, pattern: bool) -> bool:
    """As PEFT does: text is a pattern of the whole name, of a list each is its end."""
    if pattern:
        return re.fullmatch(target, module) is not None
    return module == target or module.endswith(f".{target}")
