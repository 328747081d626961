"""`--set FIELD=VALUE` and `--points FILE`: a configuration changed from the command line."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from sftray.config.checks import known_fields, require
from sftray.config.spaces import Space, choice, fitting, loguniform, randint, uniform
from sftray.config.sweep_config import SweepConfig
from sftray.errors import ConfigError


def override(sweep: SweepConfig, assignment: str) -> SweepConfig:
    """Apply one `--set field=value`, `data.field=value`, `trial.field=value` or
    `search_space.field=loguniform(1e-5, 1e-3)` (or uniform, randint, choice, fitting)."""
    path, separator, text = assignment.partition("=")
    require(bool(separator), "--set", repr(assignment), "field=value, as in data.max_length=512")
    room, _, name = path.rpartition(".")
    if room == "search_space":
        spaces = {**sweep.search_space, name: _parse_space(assignment, text)}
        return dataclasses.replace(sweep, search_space=spaces)
    if room not in ("", "data", "trial"):
        raise ConfigError(
            f"--set {assignment}: got {room!r}, must be data., trial., search_space. or nothing"
        )
    target: Any = sweep if room == "" else getattr(sweep, room)
    if room == "" and name not in {field.name for field in fields(SweepConfig)}:
        for other in ("trial", "data"):
            if name in {field.name for field in fields(getattr(sweep, other))}:
                raise ConfigError(
                    f"--set {assignment}: the sweep has no field {name!r}; did you mean "
                    f"{other}.{assignment}?"
                )
    known_fields(f"--set {path}", {name: None}, type(target))
    if room == "" and name in ("data", "trial", "search_space", "points"):
        raise ConfigError(
            f"--set {assignment}: {name} is no single value; set a field of it, as in "
            "data.max_length=512, or write it in the sweep's file"
        )
    if room == "trial" and name in sweep.search_space and not sweep.points:
        raise ConfigError(
            f"--set {assignment}: {name} is searched, so the baseline's is not used; hold it with "
            f"--set 'search_space.{name}=choice([{text}])'"
        )
    changes: dict[str, Any] = {name: _parse(text)}
    if room:
        changes = {room: dataclasses.replace(target, **changes)}
    return dataclasses.replace(sweep, **changes)


def read_points(path: Path) -> tuple[dict[str, Any], ...]:
    """The points of a JSON-lines file, each a mapping of TrialConfig fields."""
    if not path.is_file():
        raise ConfigError(f"--points {path}: there is no such file")
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            point = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--points {path}, line {number}: not JSON ({error})") from error
        if not isinstance(point, dict):
            raise ConfigError(f"--points {path}, line {number}: got {line!r}, must be an object")
        points.append(point)
    require(len(points) > 0, f"--points {path}", "no points", "one JSON object a line")
    return tuple(points)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"None": None, "True": True, "False": False}.get(text, text)


def _parse_space(assignment: str, text: str) -> Space:
    """A space as it is written in a sweep file, its arguments as JSON."""
    spaces: dict[str, Callable[..., Space]] = {
        "loguniform": loguniform,
        "uniform": uniform,
        "randint": randint,
        "choice": choice,
        "fitting": fitting,
    }
    match = re.fullmatch(r"(\w+)\((.*)\)", text.strip())
    try:
        if match is None:
            raise ValueError("not of the form name(arguments)")
        return spaces[match[1]](*json.loads(f"[{match[2]}]"))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--set {assignment}: got {text!r} ({error}), must be one of {', '.join(spaces)} with "
            "its arguments, as in loguniform(1e-5, 1e-3) or choice([8, 16])"
        ) from error
