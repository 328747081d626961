"""The share of a source as an axis of the search: "mixture.NAME", the source by its short name.

Promise: a trial's shares say what it is trained on and nothing else; the eval loss keeps the
weights of `data.sources`, so trials of different shares are compared by one objective.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from sftray.config.checks import is_number, refuse
from sftray.config.data_config import WeightedSource

AXIS = "mixture."


def source_of(axis: str) -> str | None:
    """The source whose share an axis is; None of a field's."""
    name = str(axis)  # what is no text is refused with the unknown fields
    return name.removeprefix(AXIS) if name.startswith(AXIS) else None


def at_shares(
    mixture: Sequence[WeightedSource], shares: Mapping[str, float]
) -> tuple[WeightedSource, ...]:
    """The sources with the shares of a trial; those that it does not name keep theirs relative to
    each other for the rest."""
    if not shares:
        return tuple(mixture)
    rest = 1 - sum(shares.values())
    others = sum(one.share for one in mixture if one.name not in shares)
    return tuple(
        one._replace(share=shares.get(one.name, one.share * rest / others if others else 0.0))
        for one in mixture
    )


def require_shares(
    mixture: Sequence[WeightedSource], names: Iterable[str], largest: Iterable[Mapping[str, float]]
) -> None:
    """Raise ConfigError unless each name is that of one of several sources, and the `largest`
    shares that trials may have together leave rows to a source that has a weight."""
    for name in names:
        _require_source(mixture, name)
    for shares in largest:
        total = sum(filter(is_number, shares.values()))
        said = ", ".join(f"{AXIS}{name} = {share:g}" for name, share in shares.items())
        if total >= 1:
            refuse("the largest shares together", f"{total:g} ({said})", "below 1: lower one")
        if shares and not any(one.weight for one in mixture if one.name not in shares):
            must = "given with a source without one, of a weight above 0: the rest is drawn from it"
            refuse("mixture", said, must)


def _require_source(mixture: Sequence[WeightedSource], name: str) -> None:
    known, what = [one.name for one in mixture], f"{AXIS}{name}"
    if len(known) == 1:
        refuse(what, f"one source, {mixture[0].path}", "a share of several: give data.sources")
    alike = [one.path for one in mixture if one.name.partition(" ")[0] == name.partition(" ")[0]]
    if len(alike) > 1:
        refuse(what, f"a name of {', '.join(alike)}", "one source's: rename a file or its folder")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {AXIS}{near[0]}?" if near else ""
        refuse(what, repr(name), f"the name of a source: {', '.join(known)}", hint)
