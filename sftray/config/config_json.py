"""Configurations as JSON and back, and what the command line changes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sftray.config.data_config import DataConfig
from sftray.config.spaces import (
    Choice,
    RandInt,
    Space,
    Uniform,
)
from sftray.config.sweep_config import SweepConfig
from sftray.config.trial_config import TrialConfig


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values; spaces carry their "kind"."""
    return {f.name: _plain(getattr(config, f.name)) for f in fields(config)}


def sweep_from_json(values: Mapping[str, Any]) -> SweepConfig:
    """The SweepConfig that `to_json` wrote."""
    spaces = {name: _space_from_json(space) for name, space in values["search_space"].items()}
    return SweepConfig(
        **{
            **values,
            "data": DataConfig(**values["data"]),
            "trial": TrialConfig(**values["trial"]),
            "search_space": spaces,
        }
    )


def differing_fields(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of the fields in which two `to_json` results differ."""
    names = []
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and "kind" not in a:
            names += differing_fields(a, b, f"{prefix}{name}.")
        elif a != b:
            names.append(f"{prefix}{name}")
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, Uniform | RandInt | Choice):
        kind = type(value).__name__.lower()
        return {"kind": kind, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _space_from_json(values: Mapping[str, Any]) -> Space:
    rest = {key: value for key, value in values.items() if key != "kind"}
    if values["kind"] == "choice":
        return Choice(tuple(rest["values"]), fitting=rest["fitting"])
    return RandInt(**rest) if values["kind"] == "randint" else Uniform(**rest)
