"""The checks that configurations share; each message says what, got, must."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sftray.errors import ConfigError
from sftray.storage.redact import looks_secret

T = TypeVar("T")

USUAL_NAMES = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "effective_batch_size",
    "bs": "effective_batch_size",
    "rank": "lora_r",
    "r": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "warmup": "warmup_ratio",
    "target_modules": "lora_target_modules",
    "dataset": "source",
    "precision": "base_precision",
}
"""What others call our fields."""


def require(condition: bool, what: str, got: str, must: str) -> None:
    """Raise ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(f"{what}: got {got}, must be {must}")


def one_of(what: str, got: str, allowed: Sequence[str]) -> None:
    """Raise ConfigError unless `got` is one of the allowed names."""
    require(got in allowed, what, repr(got), f"one of {', '.join(allowed)}")


def no_secrets(room: str, config: Any) -> None:
    """Raise ConfigError where a field of `config` holds a token, a key or a URL's credentials: the
    configuration is written to sweep.json, the report and W&B. The message does not repeat it."""
    for f in fields(config):
        value = getattr(config, f.name)
        texts = value if isinstance(value, tuple | list) else (value,)
        require(
            not any(isinstance(text, str) and looks_secret(text) for text in texts),
            f"{room}{f.name}",
            "a text with a secret in it",
            "without: keys and tokens are read from the environment, ~/.aws or a role",
        )


def known_fields(what: str, names: Mapping[str, Any], config: type) -> None:
    """Raise ConfigError where a name is no field of `config`, with the nearest that is one."""
    known = [f.name for f in fields(config)]
    for name in names:
        if name not in known:
            usual = [USUAL_NAMES[name]] if USUAL_NAMES.get(name) in known else []
            near = usual or difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"
            raise ConfigError(f"{what}: {config.__name__} has no field {name!r}{hint}")


def with_known_fields(config: type[T]) -> type[T]:
    """A dataclass that answers to a keyword which is no field as `known_fields` does, and not with
    Python's TypeError."""
    plain: Any = config.__init__

    @functools.wraps(plain)
    def init(self: T, *arguments: Any, **named: Any) -> None:
        known_fields("configuration", named, config)
        plain(self, *arguments, **named)

    setattr(config, "__init__", init)  # noqa: B010  mypy allows no assignment to it
    return config


def is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_types(room: str, config: Any) -> None:
    """Every plain field holds what it is annotated with; a whole number may stand for a float."""
    for f in fields(config):
        kind, _, rest = str(f.type).partition(" | ")
        value = getattr(config, f.name)
        if kind not in _TYPES or rest not in ("", "None") or (rest and value is None):
            continue
        allowed, words = _TYPES[kind]
        fits = isinstance(value, allowed) and (kind == "bool" or not isinstance(value, bool))
        must = f"{words}, or None" if rest else words
        require(fits, f"{room}{f.name}", repr(value), must)


_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
}
