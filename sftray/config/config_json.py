"""Configurations as JSON and back, and in what two of them differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sftray.config.data_config import DataConfig
from sftray.config.spaces import Choice, RandInt, Space, Uniform
from sftray.config.sweep_config import SweepConfig
from sftray.config.trial_config import TrialConfig

_KINDS: dict[str, type[Space]] = {"uniform": Uniform, "randint": RandInt, "choice": Choice}
_NAMES: dict[type, str] = {kind: name for name, kind in _KINDS.items()}


def to_json(config: object) -> dict[str, Any]:
    """A config as plain JSON values; spaces carry their "kind"."""
    named = {"kind": _NAMES[type(config)]} if type(config) in _NAMES else {}
    return named | {name: _plain(value) for name, value in vars(config).items()}


def sweep_from_json(values: Mapping[str, Any]) -> SweepConfig:
    """The SweepConfig that `to_json` wrote."""
    spaces = {}
    for name, space in values["search_space"].items():
        spaces[name] = _KINDS[space["kind"]](**{k: v for k, v in space.items() if k != "kind"})
    return SweepConfig(
        **{
            **values,
            "data": DataConfig(**values["data"]),
            "trial": TrialConfig(**values["trial"]),
            "search_space": spaces,
        }
    )


def differing_fields(
    old: Mapping[str, object], new: Mapping[str, object], prefix: str = ""
) -> list[str]:
    """The dotted names of the fields in which two `to_json` results differ."""
    names = []
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and "kind" not in a:
            names += differing_fields(a, b, f"{prefix}{name}.")
        elif a != b:
            names.append(f"{prefix}{name}")
    return names


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
