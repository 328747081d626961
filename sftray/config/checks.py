"""The checks that configurations share; each message says what, got, must, and the fix."""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, NoReturn, TypeGuard, TypeVar, get_args, get_origin, get_type_hints

from sftray.config.bounds import Bound
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


def check_fields(room: str, config: object) -> None:
    """Raise ConfigError unless every field holds what its annotation says, and no secret.

    A whole number may stand for a float. The configuration is written to sweep.json, the report and
    W&B, so a token, a key or a URL's credentials is refused, in a message that does not repeat it.
    """
    made_of: type = type(config)
    for name, hint in _hints(made_of).items():
        value, what = getattr(config, name), f"{room}{name}"
        texts = value if isinstance(value, tuple | list) else (value,)
        texts = [part for text in texts for part in (text if isinstance(text, tuple) else [text])]
        require(
            not any(isinstance(text, str) and looks_secret(text) for text in texts),
            what,
            "a text with a secret in it",
            "without: keys and tokens are read from the environment, ~/.aws or a role",
        )
        kinds, notes = _kinds_and_notes(hint)
        optional = types.NoneType in kinds
        if value is None and optional:
            continue
        kind, *others = (one for one in kinds if one is not types.NoneType)
        allowed, words = (object, "") if others else _allowed(get_origin(kind) or kind)
        fits = isinstance(value, allowed) and (kind not in (int, float) or is_number(value))
        if get_origin(kind) is tuple:
            words = next((note.must for note in notes if isinstance(note, Bound)), words)
        require(fits, what, repr(value), words + ", or None" * optional)
        of_none = next((note for note in notes if isinstance(note, str)), "or None")
        for bound in notes:
            if isinstance(bound, Bound):
                must = bound.must + f", {of_none}" * optional
                require(bound.holds(value), what, repr(value), must)


def holds_whole_numbers(config: type, name: str) -> bool:
    """Whether a field is annotated as a whole number."""
    return int in _kinds_and_notes(_hints(config)[name])[0]


@functools.cache
def _hints(config: type) -> dict[str, object]:
    return get_type_hints(config, include_extras=True)


def _kinds_and_notes(hint: object) -> tuple[tuple[object, ...], list[object]]:
    """The alternatives of an annotated type, and what stands beside it."""
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    return get_args(kind) if isinstance(kind, types.UnionType) else (kind,), notes


_KINDS: dict[object, tuple[type | types.UnionType, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    tuple: (tuple | list, "a list"),
    Mapping: (Mapping, "names with their values, as in {…: …}"),
}


def _allowed(kind: object) -> tuple[type | types.UnionType, str]:
    """The types that a field takes, and what they are called."""
    if isinstance(kind, type) and is_dataclass(kind):
        return kind, f"a {kind.__name__}(…)"
    return _KINDS.get(kind, (object, ""))


def require(condition: bool, what: str, got: str, must: str, hint: str = "") -> None:
    """Raise ConfigError unless the condition holds."""
    if not condition:
        refuse(what, got, must, hint)


def refuse(what: str, got: str, must: str, hint: str = "") -> NoReturn:
    """Raise ConfigError for a value that cannot work."""
    raise ConfigError(f"{what}: got {got}, must be {must}", hint)


def known_fields(what: str, names: Iterable[str], config: type) -> None:
    """Raise ConfigError where a name is no field of `config`, with the nearest that is one."""
    known = field_names(config)
    for name in names:
        if name not in known:
            usual = [USUAL_NAMES[name]] if USUAL_NAMES.get(name) in known else []
            near = usual or difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ConfigError(f"{what}: {config.__name__} has no field {name!r}", hint)


def field_names(config: type) -> list[str]:
    """The fields of a configuration, in order."""
    return [field.name for field in fields(config)]


def with_known_fields(config: type[T]) -> type[T]:
    """A dataclass that answers to a keyword which is no field as `known_fields` does, and not with
    Python's TypeError."""
    plain: Callable[..., None] = config.__init__
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def init(self: T, *arguments: object, **named: object) -> None:
        known_fields("configuration", named, config)
        try:
            signature.bind(self, *arguments, **named)
        except TypeError as error:  # a field is missing
            raise ConfigError(f"{config.__name__}: {error}") from None
        plain(self, *arguments, **named)

    setattr(config, "__init__", init)  # noqa: B010  mypy allows no assignment to it
    return config


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
