"""Which modules of a base `lora_target_modules` names, known before the base is loaded.

Promise: for the families whose modules have the same names in every base. Of others nothing is
known here, and PEFT says what is wrong when the first trial begins.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from sftray.config import SweepConfig
from sftray.config.checks import refuse
from sftray.config.points import all_values
from sftray.plan.model_shape import PROJECTIONS
from sftray.storage.model_files import BaseConfig

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
EMBEDDING = "embed_tokens"
_ATTENTION = PROJECTIONS[:4]
_LAYER = ("input_layernorm", "post_attention_layernorm")


def require_targets(sweep: SweepConfig, base: BaseConfig) -> None:
    """Raise ConfigError where trials would adapt modules that the base has not, or that carry no
    adapter. PEFT passes by a name that is none beside one that is."""
    if base.get("model_type") not in FAMILIES or sweep.trial.finetune == "full":
        return
    modules = list(module_names(base.get("num_hidden_layers", 1)))
    for targets in all_values(sweep, "lora_target_modules") - {"all-linear"}:
        names = [targets] if isinstance(targets, str) else list(targets or ())  # type: ignore[arg-type]
        for name in names:
            matched = [one for one in modules if _matches(name, one, isinstance(targets, str))]
            _require(name, matched, pattern=isinstance(targets, str))


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
