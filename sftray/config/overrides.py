"""`--set FIELD=VALUE` and `--points FILE`: a configuration changed from the command line."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from sftray.config.checks import field_names, known_fields, require
from sftray.config.spaces import Space, Value, choice, fitting, loguniform, randint, uniform
from sftray.config.sweep_config import SweepConfig
from sftray.errors import ConfigError


def override(sweep: SweepConfig, assignment: str) -> SweepConfig:
    """Apply one `--set field=value`, `data.field=value`, `trial.field=value` or
    `search_space.field=loguniform(1e-5, 1e-3)` (or uniform, randint, choice, fitting)."""
    path, separator, text = assignment.partition("=")
    require(bool(separator), "--set", repr(assignment), "field=value, as in data.max_length=512")
    room, dot, name = path.partition(".")
    room, name = (room, name) if dot else ("", path)
    if room == "search_space":
        spaces = {**sweep.search_space, name: _parse_space(assignment, text)}
        return dataclasses.replace(sweep, search_space=spaces)
    what = f"--set {assignment}"
    require(
        room in ("", "data", "trial"), what, repr(room), "data., trial., search_space. or nothing"
    )
    if room == "":
        _require_plain_field(sweep, what, name, assignment)
        return dataclasses.replace(sweep, **{name: _parse(text)})  # type: ignore[arg-type]
    inner = sweep.data if room == "data" else sweep.trial
    known_fields(f"--set {path}", [name], type(inner))
    if room == "trial" and name in sweep.search_space and not sweep.points:
        raise ConfigError(
            f"{what}: {name} is searched, so the baseline's is not used",
            f"hold it with --set 'search_space.{name}=choice([{text}])'",
        )
    changed = dataclasses.replace(inner, **{name: _parse(text)})  # type: ignore[arg-type]
    return dataclasses.replace(sweep, **{room: changed})  # type: ignore[arg-type]


def _require_plain_field(sweep: SweepConfig, what: str, name: str, assignment: str) -> None:
    for room, config in (("trial", sweep.trial), ("data", sweep.data)):
        if name in field_names(type(config)) and name not in field_names(SweepConfig):
            hint = f"did you mean {room}.{assignment}?"
            raise ConfigError(f"{what}: the sweep has no field {name!r}", hint)
    known_fields(f"--set {name}", [name], SweepConfig)
    if name in ("data", "trial", "search_space", "points"):
        raise ConfigError(
            f"{what}: {name} is no single value",
            "set a field of it, as in data.max_length=512, or write it in the sweep's file",
        )


def read_points(path: Path) -> tuple[Mapping[str, Value], ...]:
    """The points of a JSON-lines file, each a mapping of TrialConfig fields."""
    if not path.is_file():
        raise ConfigError(f"--points {path}: there is no such file", "give a JSON-lines file")
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            point = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of 6,000 digits, deep nesting
            raise ConfigError(f"--points {path}, line {number}: not JSON ({error})") from error
        require(isinstance(point, dict), f"--points {path}, line {number}", repr(line), "an object")
        points.append(point)
    require(len(points) > 0, f"--points {path}", "no points", "one JSON object a line")
    return tuple(points)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"None": None, "True": True, "False": False}.get(text, text)


_SPACES: dict[str, Callable[..., Space]] = {
    make.__name__: make for make in (loguniform, uniform, randint, choice, fitting)
}


def _parse_space(assignment: str, text: str) -> Space:
    """A space as it is written in a sweep file, its arguments as Python's or JSON's values."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.keywords:
            raise ValueError(text)
        arguments = [ast.literal_eval(_Words().visit(argument)) for argument in call.args]
        return _SPACES[ast.unparse(call.func)](*arguments)
    except (KeyError, SyntaxError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--set {assignment}: got {text!r}, must be one of {', '.join(_SPACES)} with its "
            "arguments",
            "write it as in loguniform(1e-5, 1e-3) or choice([8, 16])",
        ) from error


class _Words(ast.NodeTransformer):
    """JSON's words, and infinity, as the values that they stand for."""

    def visit_Name(self, node: ast.Name) -> ast.Constant:
        words = {"true": True, "false": False, "null": None, "inf": math.inf, "nan": math.nan}
        return ast.Constant(words[node.id])
