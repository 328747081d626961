"""What the weights of a checkpoint are saved in, and what a trial may hold them in.

Promise: neither torch nor transformers is needed; a checkpoint that would not be trained as what it
is, is refused before anything starts, in one line with what to do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from sftray.config import SweepConfig
from sftray.config.checks import refuse
from sftray.config.points import all_values
from sftray.errors import ConfigError
from sftray.storage.model_files import BaseConfig

PLAIN = ("nf4", "bf16", "fp32", "fp8")
"""What a base may be held in whose weights are floating point."""
DECODED = ("bf16", "fp32")
"""And one in FP8, which is decoded while it is loaded."""
_ADVICE = {
    "mxfp4": "save it once in bf16: AutoModelForCausalLM.from_pretrained(…, quantization_config="
    "Mxfp4Config(dequantize=True)).save_pretrained(…)"
}


def quantization_of(base: BaseConfig) -> Mapping[str, object] | None:
    """How a checkpoint is quantised: its own quantization_config, or that of its text part."""
    text = base.get("text_config") or BaseConfig()
    return base.get("quantization_config") or text.get("quantization_config") or None


def held_in(base: BaseConfig) -> tuple[str, ...]:
    """The values of `base_precision` that are true of a base with this config.json. Raises
    ConfigError where it is quantised in a way that is not trained here."""
    config = quantization_of(base)
    if not config:
        return PLAIN
    if config.get("load_in_8bit"):
        return ("int8",)
    if config.get("load_in_4bit"):
        return (str(config.get("bnb_4bit_quant_type", "fp4")),)
    method = str(config.get("quant_method", "an unknown method"))
    if method == "fp8" or (method == "compressed-tensors" and _is_fp8(config)):
        if method != "fp8" and importlib.util.find_spec("compressed_tensors") is None:
            raise ConfigError(
                "trial.model: got a checkpoint of compressed-tensors, which is not installed",
                "pip install compressed-tensors, here and on every worker",
            )
        return DECODED
    raise ConfigError(
        f"trial.model: got a checkpoint quantised by {method} (quantization_config), must be in "
        "floating point, in bitsandbytes' 4 or 8 bits or in FP8",
        _ADVICE.get(method, "take the base that it was made from, with base_precision='nf4'"),
    )


def require_precision(sweep: SweepConfig, base: BaseConfig) -> None:
    """Raise ConfigError where trials would say that they hold the base in what it is not."""
    true = held_in(base)
    if false := sorted(map(str, all_values(sweep, "base_precision") - {*true})):
        saved = "in FP8, which is decoded" if true == DECODED else f"in {true[0]}"
        got = f"{false[0]!r} with a checkpoint {'in floating point' if true == PLAIN else saved}"
        must = "of " * (len(true) > 1) + ", ".join(map(repr, true))
        refuse(
            "trial.base_precision", got, must,
            f"--set trial.base_precision={true[0]}",
        )  # fmt: skip


def _is_fp8(config: Mapping[str, object]) -> bool:
    groups = config.get("config_groups")
    schemes = (
        [group.get("weights") for group in groups.values()] if isinstance(groups, dict) else []
    )
    return bool(schemes) and all(
        isinstance(one, dict) and (one.get("type"), one.get("num_bits")) == ("float", 8)
        for one in schemes
    )
