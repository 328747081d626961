"""What the report says beside its figures, as plain values for the page's template."""

from __future__ import annotations

import json
import math
import time

from sftray.config.config_json import to_json
from sftray.data.packs.manifest import Manifest
from sftray.results import Results
from sftray.results.confirmation import half_width
from sftray.results.diagnosis.one_diagnosis import NOTHING_WRONG
from sftray.results.findings import Findings
from sftray.results.findings.findings import MORE
from sftray.results.leaderboard_text import above_text, confirmed_says, energy_text, mean_text
from sftray.results.loss_by_kind import NAMES, end_text, losses_by_kind
from sftray.results.tables import BASE
from sftray.search.odds import BAR
from sftray.storage import files
from sftray.storage.paths import PacksPaths, SweepPaths, join
from sftray.trial.answer_flags import BAD
from sftray.views.plots.cost_plots import lanes
from sftray.winner.bundle import FACTS, BundleFacts
from sftray.winner.measured import measured_text, test_set_text

_SHOWN = 3
"""Answers to a prompt that stand beside each other, the base's, the best trial's and one more."""
_MORE = 9
"""And those that unfold; all are in the trials' samples.jsonl."""
_WORDS = {"empty": "empty", "repeats": "repeats itself", "no_end": "cut off"}
"""Flags as the page has them."""


Facts = dict[str, object]
"""What the template names; a name that it lacks is an error there."""


def facts_of(found: Results, findings: Findings) -> Facts:
    """All that the page says of a sweep, beside its figures and findings."""
    manifest, best = _manifest(found), SweepPaths(found.folder).best
    bundle = BundleFacts.read(best) if files.exists(join(best, FACTS)) else None
    metric = measured_text(bundle.metric, bundle.trial) if bundle and bundle.metric else ""
    return {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "status": _status(found),
        "best": _best(found),
        "bundle": bundle,
        "metric_says": metric,
        "test_says": _test_says(bundle),
        "confirmed": _confirmed(found),
        "kinds": (kinds := losses_by_kind(found.leaderboard)),
        "kind_names": NAMES,
        "end_says": end_text(kinds),
        "costs": _costs(found, findings),
        "more_trials": MORE,
        "bar": BAR,
        "trials": _trials(found),
        "prompts": _prompts(found),
        "splits": _splits(found, manifest),
        "manifest": manifest,
        "provenance": _provenance(found),
        "config": json.dumps(to_json(found.config), indent=1, ensure_ascii=False),
    }


def _test_says(bundle: BundleFacts | None) -> str:
    """What the test set says, or why there is none; nothing before the winner is measured on it."""
    if bundle is None:
        return ""
    conversations = sum(one["conversations"] for one in bundle.data_counts.values())
    return test_set_text(bundle.test, bundle.trial, conversations)


def _status(found: Results) -> str:
    ended = sum(record.outcome is not None for record in found.records)
    if found.ended:
        return f"finished, {ended} trials"
    wanted = max(found.config.total_trials, len(found.records))
    if budget := found.leaderboard.get("budget_spent"):
        return f"{budget} is used up; {ended} of {wanted} trials have ended"
    return f"{ended} of {wanted} trials have ended; what follows is preliminary"


def _best(found: Results) -> Facts | None:
    """The row of the best trial, its point, and its perplexity over the base's."""
    if found.best.empty:
        return None
    row = found.best.iloc[0].to_dict()
    ratio = math.exp(-row["gain"]) if math.isfinite(row["base_eval_loss"]) else None
    return {**row, "ratio": ratio, "point": {name: row[name] for name in found.axes}}


def _confirmed(found: Results) -> Facts | None:
    """What repetitions with other seeds say, the answer's point first."""
    board = found.leaderboard.get("confirmed")
    if board is None:
        return None
    points = [
        {
            **point,
            "half_width": half_width(point),
            "says": mean_text(point),
            "stands": above_text(point),
        }
        for point in board["points"]
    ]
    points.sort(key=lambda one: one["trial"] != board["winner"])
    says = "; ".join(confirmed_says(board))
    return {"winner": board["winner"], "points": points, "says": says}


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
        banks = _banks(found) or math.ceil((max(lanes(spans)) + 1) / slots)
        hours, how = _busy(spans) * banks / 3600, f"{banks} bank{'s' if banks > 1 else ''}"
    else:
        hours = sum(end - begin for begin, end in spans) * found.config.trial.num_workers / 3600
        how = f"{found.config.trial.num_workers} to a trial"
    on = how if kind == "CPU" else f"{', '.join(devices)}; {how}"
    costs.insert(0, (f"{kind}-hours", f"{hours:{'.1f' if hours >= 10 else '.2g'}} ({on})"))
    costs.insert(1, ("from start to end", f"{newest / 60:,.1f} minutes"))
    if energy := energy_text(found.leaderboard):
        costs.append(("energy", energy))
    saved = findings.stopping
    if saved.tokens_saved:
        share = saved.tokens_saved / (saved.tokens + saved.tokens_saved)
        costs.append(("saved by early stopping", f"{saved.tokens_saved:,} tokens, {share:.0%}"))
    return costs


def _banks(found: Results) -> int:
    """How many banks the last run had; 0 where it has not said."""
    path = SweepPaths(found.folder).banks
    return len(json.loads(files.read_text(path))) if files.exists(path) else 0


def _busy(spans: list[tuple[float, float]]) -> float:
    """Seconds in which at least one of the spans lasts; they are in the order of beginning."""
    total, until = 0.0, -math.inf
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _trials(found: Results) -> list[Facts]:
    """Best first; whether a trial wants a remedy, and its values on the axes."""
    rows = {row["trial"]: row for row in found.trials.to_dict("records")}

    def text_of(value: object) -> str:  # pandas has NaN where there is none
        return value if isinstance(value, str) else ""

    ranked = (rows[one["trial"]] for one in found.leaderboard["trials"])
    return [
        {
            **row,
            **{name: text_of(row[name]) for name in ("confirms", "ran_in")},
            "wrong": row["diagnosis"] not in NOTHING_WRONG,
            "at_axes": [row[axis] for axis in found.axes],
        }
        for row in ranked
    ]


def _prompts(found: Results) -> list[Facts]:
    """Each prompt with its answers: the base's, the best trial's, then the others' by loss; of each
    the one at its best evaluation, else the last. And all of the best trial's, where it has more
    than one."""
    board, best = found.leaderboard["trials"], found.leaderboard["best"] or ""
    ranked = [row["trial"] for row in board if row["trial"] != best]
    at_best = {row["trial"]: row["step"] for row in board}
    prompts: list[Facts] = []
    for _, some in found.samples.groupby("prompt"):
        by_trial: dict[str, list[Facts]] = {}
        for row in some.to_dict("records"):
            flags = [(_WORDS[flag], flag in BAD) for flag in row["flags"].split()]
            by_trial.setdefault(row["trial"], []).append({**row, "flags": flags})
        answers = [
            next((one for one in own if one["step"] == at_best.get(name)), own[-1])
            for name in (BASE, best, *ranked)
            if (own := by_trial.get(name))
        ]
        course = by_trial.get(best, [])
        prompts.append(
            {
                "question": some["question"].iloc[0],
                "reference": some["reference"].iloc[0],
                "answers": answers[:_SHOWN],
                "more": answers[_SHOWN : _SHOWN + _MORE],
                "left_out": len(answers[_SHOWN + _MORE :]),
                "course": course if len(course) > 1 else [],
            }
        )
    return prompts


def _splits(found: Results, manifest: Manifest | None) -> list[Facts]:
    """What is in each split; the shares of tokens that are trained on, and of padding."""
    dropped = {} if manifest is None else manifest["splits"]
    most = found.config.data.max_length
    return [
        {
            **counts,
            "split": split,
            "supervised": counts["supervised_tokens"] / counts["tokens"],
            "waste": 1 - counts["tokens"] / (counts["rows"] * most),
            "dropped": dropped[split].get("dropped") or {} if dropped else {},
        }
        for split, counts in found.record["data"].items()
        if counts.get("tokens")
    ]


def _manifest(found: Results) -> Manifest | None:
    """The packs' manifest, where it is there."""
    path = PacksPaths(found.packs).manifest
    if not files.exists(path):
        return None
    manifest: Manifest = json.loads(files.read_text(path))
    return manifest


def _provenance(found: Results) -> dict[str, str | None]:
    record, trusted = found.record, found.config.trial.trust_remote_code
    return {
        "sweep": record.get("uid"),
        "data fingerprint": found.packs_key,
        "git revision": record.get("git_revision"),
        "python": record.get("python"),
        "trust_remote_code": "on: the base's own code was run" if trusted else None,
        **record.get("versions", {}),
    }
