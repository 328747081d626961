"""What the report says beside its figures, as plain values for the page's template."""

from __future__ import annotations

import json
import math
import shlex
import time
from typing import Any

from sftray.config.config_json import to_json
from sftray.config.points import point_text
from sftray.results import Results
from sftray.results.confirmation import half_width
from sftray.results.findings import Findings, learn
from sftray.results.leaderboard_text import confirmed_text
from sftray.results.tables import BASE, axes_of
from sftray.storage import files
from sftray.storage.paths import PacksPaths, SweepPaths, join
from sftray.trial.answer_flags import BAD
from sftray.winner.loading_code import kind_of, loaded_with, loading_code

_HEALTHY = ("healthy", "pruned", "too_early")
_SHOWN = 3
"""Answers to a prompt that stand beside each other, the base's, the best trial's and one more."""
_MORE = 9
"""And those that unfold; all are in the trials' samples.jsonl."""
_WORDS = {"empty": "empty", "repeats": "repeats itself", "no_end": "cut off"}
"""Flags as the page has them."""


def facts_of(found: Results) -> dict[str, Any]:
    """The template's values."""
    findings = learn(found)
    return {
        "sweep": found.config.name,
        "folder": found.folder,
        "shell_folder": shlex.quote(found.folder),
        "model": found.config.trial.model,
        "source": found.config.data.source,
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "started": found.record.get("started"),
        "status": _status(found),
        "findings": findings,
        "best": _best(found),
        "bundle": _bundle(found),
        "confirmed": _confirmed(found),
        "costs": _costs(found, findings),
        "axes": axes_of(found),
        "metric": found.config.metric,
        "base_loss": found.leaderboard["base"]["eval_loss"],
        "trials": _trials(found),
        "prompts": _prompts(found),
        "data": _data(found),
        "provenance": _provenance(found),
        "config": json.dumps(to_json(found.config), indent=1, ensure_ascii=False),
    }


def _status(found: Results) -> str:
    ended = sum(record.outcome is not None for record in found.records)
    if found.ended:
        return f"finished, {ended} trials"
    wanted = max(found.config.total_trials, len(found.records))
    if budget := found.leaderboard.get("budget_spent"):
        return f"{budget} is spent; {ended} of {wanted} trials have ended"
    return f"{ended} of {wanted} trials have ended; what follows is how it stands"


def _best(found: Results) -> dict[str, Any] | None:
    if found.best.empty:
        return None
    row: dict[str, Any] = found.best.iloc[0].to_dict()
    row["point"] = {name: row[name] for name in axes_of(found)}
    known = math.isfinite(row["base_eval_loss"])
    row["ratio"] = math.exp(-row["gain"]) if known else None
    return row


def _bundle(found: Results) -> dict[str, Any] | None:
    """What best/ says of itself; None before it is there."""
    path = join(SweepPaths(found.folder).best, "sweep.json")
    if not files.exists(path):
        return None
    facts: dict[str, Any] = json.loads(files.read_text(path))
    return {
        **facts,
        "kind": kind_of(facts),
        "plain": loaded_with(facts),
        "code": loading_code(facts, SweepPaths(found.folder).best),
    }


def _confirmed(found: Results) -> dict[str, Any] | None:
    """What repetitions with other seeds said: the points, the answer's first, and the judgement."""
    told = found.leaderboard.get("confirmed")
    if told is None:
        return None
    points = [
        {
            **one,
            "point": point_text(one["point"]),
            "half": half_width(one),
            "best": one["trial"] == told["winner"],
        }
        for one in told["points"]
    ]
    lines = confirmed_text(found.leaderboard).splitlines()
    return {
        "points": sorted(points, key=lambda one: not one["best"]),
        "says": " ".join(lines[1 + len(points) :]),
    }


def _costs(found: Results, findings: Findings) -> list[tuple[str, str]]:
    """Names and words; the hours that devices were held while trials ran on them."""
    trials = found.trials.dropna(subset=["started"])
    here = found.trials[found.trials["ran_in"].isna()]
    costs = [
        ("trials", ", ".join(f"{count} {name}" for name, count in findings.outcomes.items())),
        ("tokens trained", f"{int(here['tokens'].sum()):,}"),
    ]
    if trials.empty:
        return costs
    newest = max(found.curves["time"].max(), trials["ended"].max())
    spans = sorted(zip(trials["started"], trials["ended"].fillna(newest), strict=True))
    devices = sorted({str(name) for name in trials["device"].dropna()})
    kind = "CPU" if devices == ["cpu"] else "GPU"
    slots = max((r.get("bank_slots") or 0 for t in found.records for r in t.results), default=0)
    if slots:
        banks = math.ceil(_most_at_once(spans) / slots)
        hours, how = _busy(spans) * banks / 3600, f"{banks} bank{'s' if banks > 1 else ''}"
    else:
        hours = sum(end - begin for begin, end in spans) * found.config.trial.num_workers / 3600
        how = f"{found.config.trial.num_workers} to a trial"
    on = how if kind == "CPU" else f"{', '.join(devices)}; {how}"
    costs.insert(0, (f"{kind}-hours", f"{_hours(hours)} ({on})"))
    costs.insert(1, ("from start to end", f"{newest / 60:,.1f} minutes"))
    saved = findings.stopping
    if saved.tokens_saved:
        share = saved.tokens_saved / (saved.tokens + saved.tokens_saved)
        costs.append(("saved by early stopping", f"{saved.tokens_saved:,} tokens, {share:.0%}"))
    return costs


def _busy(spans: list[tuple[float, float]]) -> float:
    """Seconds in which at least one of the spans goes on; they are in the order of beginning."""
    total, until = 0.0, -math.inf
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _most_at_once(spans: list[tuple[float, float]]) -> int:
    # an end before a beginning of the same moment: a slot is filled as soon as it is free
    changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 10 else f"{hours:.2g}"


def _trials(found: Results) -> list[dict[str, Any]]:
    """The leaderboard's rows with those of the table, best first."""
    rows = {row["trial"]: row for row in found.trials.to_dict("records")}
    return [
        {**rows[one["trial"]], "wrong": one["diagnosis"] not in _HEALTHY}
        for one in found.leaderboard["trials"]
    ]


def _prompts(found: Results) -> list[dict[str, Any]]:
    """Each prompt with its answers: the base's, the best trial's, then the others' by loss; of each
    the one at its best evaluation, else the last; and all of the best trial's where it has more."""
    board, best = found.leaderboard["trials"], found.leaderboard["best"] or ""
    ranked = [name for name in (row["trial"] for row in board) if name != best]
    at_best = {row["trial"]: row["step"] for row in board}
    prompts = []
    for _, some in found.samples.groupby("prompt"):
        rows = [{**row, "flags": _flags(row["flags"])} for row in some.to_dict("records")]
        by_trial: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_trial.setdefault(row["trial"], []).append(row)
        answers = [
            next((one for one in said if one["step"] == at_best.get(name)), said[-1])
            for name in (BASE, best, *ranked)
            if (said := by_trial.get(name))
        ]
        course = by_trial.get(best, [])
        prompts.append(
            {
                "question": rows[0]["question"],
                "reference": rows[0]["reference"],
                "answers": answers[:_SHOWN],
                "more": answers[_SHOWN : _SHOWN + _MORE],
                "left_out": len(answers[_SHOWN + _MORE :]),
                "course": course if len(course) > 1 else [],
            }
        )
    return prompts


def _flags(flags: str) -> list[tuple[str, bool]]:
    """In words, and whether nobody wants such an answer."""
    return [(_WORDS[flag], flag in BAD) for flag in flags.split()]


def _data(found: Results) -> dict[str, Any]:
    """Counts a split, and what the packs' manifest says where it is within reach."""
    manifest = _manifest(found)
    splits = []
    for split, counts in found.record["data"].items():
        if not counts.get("tokens"):
            continue
        capacity = counts["rows"] * found.config.data.max_length
        said = (manifest or {}).get("splits", {}).get(split, {})
        splits.append(
            {
                "split": split,
                **counts,
                "supervised": counts["supervised_tokens"] / counts["tokens"],
                "waste": 1 - counts["tokens"] / capacity,
                "read": said.get("read"),
                "dropped": said.get("dropped") or {},
            }
        )
    return {"splits": splits, "manifest": manifest, "max_length": found.config.data.max_length}


def _manifest(found: Results) -> dict[str, Any] | None:
    """The packs' manifest, where they were or, if the storage was copied, beside the sweep."""
    root = found.record["packs"]
    beside = join(found.folder.rstrip("/").rpartition("/")[0] or ".", "packs", found.packs_key)
    for packs in (root, beside):
        if files.exists(PacksPaths(packs).manifest):
            manifest: dict[str, Any] = json.loads(files.read_text(PacksPaths(packs).manifest))
            return manifest
    return None


def _provenance(found: Results) -> dict[str, Any]:
    record, trusted = found.record, found.config.trial.trust_remote_code
    return {
        "sweep": record.get("uid"),
        "data fingerprint": found.packs_key,
        "git revision": record.get("git_revision"),
        "python": record.get("python"),
        "trust_remote_code": "on: the base's own code was run" if trusted else None,
        **record.get("versions", {}),
    }
