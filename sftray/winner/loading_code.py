"""How the winner's folder is loaded, told from its sweep.json: an adapter by PEFT, a whole model by
transformers.

Promise: text only, so that page, card and command line say the same, and nothing is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_whole(facts: Mapping[str, Any]) -> bool:
    """Whether the bundle holds a whole model, and no adapter."""
    return bool(facts["config"]["finetune"] == "full")


def kind_of(facts: Mapping[str, Any]) -> str:
    """What the bundle holds: model or adapter."""
    return "model" if is_whole(facts) else "adapter"


def loaded_with(facts: Mapping[str, Any]) -> str:
    """What the bundle is loaded with, and was for its check."""
    return "plain transformers" if is_whole(facts) else "plain PEFT"


def loading_code(facts: Mapping[str, Any], folder: str) -> str:
    """Two lines of Python that load the bundle in `folder`."""
    package, name = "peft", "AutoPeftModelForCausalLM"
    if is_whole(facts):
        package, name = "transformers", "AutoModelForCausalLM"
    return f"from {package} import {name}\nmodel = {name}.from_pretrained({folder!r})"
