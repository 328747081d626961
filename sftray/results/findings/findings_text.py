"""Findings for a person: compact, readable at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from sftray.config.points import point_text, short
from sftray.results.findings.finding_costs import Alternatives, Chosen, Cost, Moment
from sftray.results.findings.findings import MORE, Findings
from sftray.results.findings.importance import SURE, Importances
from sftray.results.findings.scaling import Scaling
from sftray.results.findings.share_effects import ShareEffect, says
from sftray.results.findings.stopping import Stopping
from sftray.search.odds import BAR

WIDTH = 80
NAMES = 13
"""Columns for the name of a finding, left of what it says."""


def answer(findings: Findings) -> str:
    """The verdict: what a reader wants to know first."""
    return "\n".join(_wrapped(_so_far(findings) + findings.verdict))


def advice(findings: Findings) -> str:
    """What to do next, and what to read before."""
    bad = _wrapped(findings.bad_answers or "", "! ", "  ")
    return "\n".join([*_wrapped(findings.advice, "→ ", "  "), *bad])


def text(findings: Findings) -> str:
    """All of it, the verdict first; 80 columns wide."""
    lines = [answer(findings), advice(findings), ""]
    for name, paragraphs in (
        ("importance", _importance(findings.importances)),
        ("edges", (edge.says for edge in findings.edges)),
        ("shares", _shares(findings.shares)),
        ("scaling", _scaling(findings.scaling)),
        ("cost", (_cost(one, findings.device) for one in findings.pareto)),
        ("anytime", (*map(_chosen, findings.anytime), *_reached(findings.regret))),
        ("more trials", _odds(findings.odds)),
        ("instead", _instead(findings.alternatives)),
        ("stopping", _stopping(findings.stopping, findings.device)),
        ("noise", [_noise(findings.noise)]),
    ):
        label = name
        for paragraph in paragraphs:
            lines += _wrapped(paragraph, label.ljust(NAMES), " " * NAMES)
            label = ""
    return "\n".join(lines)


def _so_far(findings: Findings) -> str:
    """Of a sweep that has not come to its end, what it stands at."""
    running = findings.outcomes.get("running", 0)
    if findings.budget_spent:
        unfinished = findings.outcomes.get("unfinished", 0)
        return (
            f"So far, because {findings.budget_spent} is used up ({unfinished} trials unfinished): "
        )
    return f"So far, with {running} trials running: " if running else ""


def _wrapped(paragraph: str, first: str = "", other: str = "") -> list[str]:
    return textwrap.wrap(
        paragraph,
        WIDTH,
        initial_indent=first,
        subsequent_indent=other,
        break_on_hyphens=False,
        break_long_words=False,  # a flag is to be copied
    )


def _importance(found: Importances) -> Iterator[str]:
    for axis in found.axes:
        how = "decides" if axis.decides else "not beyond chance"
        bar = "" if axis.decides else f"; at most {SURE} would be"
        yield f"{axis.name} {axis.importance:.2f}, {how} (p = {axis.chance:.3f}{bar})"
    if found.missing:
        yield found.missing
    if found.axes:
        yield f"from {found.compared}"


def _shares(found: Sequence[ShareEffect]) -> Iterator[str]:
    for effect in found:
        yield f"{effect.axis}, from {effect.compared}"
        yield from map(says, effect.parts)


def _scaling(found: Scaling | None) -> Iterator[str]:
    if found is None:
        return
    if found.best:
        yield (
            "best learning rate by batch size: "
            + ", ".join(
                f"{one.effective_batch_size}: {short(one.learning_rate)}" for one in found.best
            )
            + f" ({found.compared})"
        )
    if found.slope is None or found.interval is None:
        yield found.says
    else:
        low, high = found.interval
        yield f"slope {found.slope:.2f} ({low:.2f} … {high:.2f}): {found.says}"


def _cost(cost: Cost, device: str) -> str:
    return f"{cost.trial} {cost.eval_loss:.4f} for {cost.gpu_seconds:,.0f} {device}-seconds"


def _chosen(one: Chosen) -> str:
    return (
        f"{one.share:.0%} of the tokens choose {one.trial} ({point_text(one.point)}): "
        f"{one.eval_loss:.4f} then, {one.trial_best:.4f} in the end"
    )


def _reached(moments: Sequence[Moment]) -> Iterator[str]:
    if moments:
        reached = next(one for one in moments if one.regret == 0)
        when = "" if reached.seconds is None else f", {reached.seconds:,.0f} s after the start"
        yield f"the best was reached after {reached.tokens:,} tokens{when}"


def _odds(odds: float | None) -> Iterator[str]:
    if odds is not None:
        yield f"{odds:.0%} odds that {MORE} more find an eval loss lower by {BAR:.1%}"


def _instead(found: Alternatives | None) -> Iterator[str]:
    """What it would have cost by other means, in one line."""
    if found is None:
        return
    by_asha = (
        "with ASHA the best would mostly be stopped"
        if found.random_asha is None
        else f"with ASHA {found.random_asha:,.0f}"
    )
    yield (
        f"{found.own:,} tokens until the best; all these points to their ends {found.grid:,}, in "
        f"random order until the best {found.random:,.0f}, {by_asha}"
    )


def _stopping(found: Stopping, device: str) -> Iterator[str]:
    if found.stopped and found.tokens:
        full = found.tokens + found.tokens_saved
        yield (
            f"stopped {found.stopped} of {found.trials} trials: {found.tokens_saved:,} tokens and "
            f"{found.gpu_seconds_saved:,.0f} {device}-seconds saved, "
            f"{found.tokens_saved / full:.0%} of the tokens of full budgets"
        )
    yield found.says


def _noise(noise: float | None) -> str:
    if noise is None:
        return "unknown: no point was run with two seeds"
    return f"{noise:.4f}, the standard deviation of final losses by seed alone"
