"""A sweep as the Python file that one would write for it, with the reasons beside the values.

Promise: run, the file has a SweepConfig equal to the one it was written from; fields that have
their default and no reason are left out.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping

from sftray.config.data_config import DataConfig
from sftray.config.spaces import value_code
from sftray.config.sweep_config import SweepConfig
from sftray.config.trial_config import TrialConfig

_WIDTH = 100


def as_file(sweep: SweepConfig, says: str, reasons: Mapping[str, str] | None = None) -> str:
    """The text of a sweep file. `says` is its docstring; `reasons` are comments by dotted field, as
    "trial.lora_r" or "search_space.learning_rate"."""
    reasons = reasons or {}
    used = {space.as_code().partition("(")[0] for space in sweep.search_space.values()}
    names = {"DataConfig", "SweepConfig", "TrialConfig", "launch", *used}
    imported = _imports(sorted(names, key=lambda name: (name.islower(), name)))
    body = ["sweep = SweepConfig(", *_fields(sweep, "", reasons, "    "), ")"]
    last = ['if __name__ == "__main__":', "    launch(sweep)"]
    return "\n".join([*_docstring(says), "", *imported, "", *body, "", *last]) + "\n"


def _docstring(says: str) -> list[str]:
    lines = [line for part in says.split("\n") for line in textwrap.wrap(part, _WIDTH - 3) or [""]]
    quoted = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{quoted}\n"""'.split("\n")


def _imports(names: list[str]) -> list[str]:
    line = f"from sftray import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return [line]
    return ["from sftray import (", *(f"    {name}," for name in names), ")"]


def _fields(
    config: SweepConfig | DataConfig | TrialConfig,
    room: str,
    reasons: Mapping[str, str],
    indent: str,
) -> Iterator[str]:
    """The arguments of a config, a line each, behind the comments on them."""
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        reason = reasons.get(f"{room}{name}")
        if _is_default(field, value) and reason is None:
            continue
        yield from _comment(reason, indent)
        if isinstance(value, DataConfig | TrialConfig):
            yield f"{indent}{name}={type(value).__name__}("
            yield from _fields(value, f"{name}.", reasons, indent + "    ")
            yield f"{indent}),"
        elif name == "search_space":
            yield f"{indent}{name}={{"
            for axis, space in value.items():
                yield from _comment(reasons.get(f"search_space.{axis}"), indent + "    ")
                yield f'{indent}    "{axis}": {space.as_code()},'
            yield f"{indent}}},"
        else:
            yield f"{indent}{name}={value_code(value)},"


def _is_default(field: dataclasses.Field[object], value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return bool(value == field.default)


def _comment(reason: str | None, indent: str) -> list[str]:
    if reason is None:
        return []
    begin = f"{indent}# "
    return textwrap.wrap(reason, _WIDTH, initial_indent=begin, subsequent_indent=begin)
