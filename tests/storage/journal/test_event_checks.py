"""A journal that is damaged, or that somebody else made, is refused before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftray.errors import JournalError
from sftray.results import load
from sftray.storage.journal import Journal, read_events
from sftray.views.live.watched import Watched

RECORDED = Path(__file__).parents[2] / "recorded" / "lr_batch"
FINE: dict[str, Any] = {
    "event": "result", "trial": "t0000", "time": 1.5, "step": 3,
    "metrics": {"step": 3, "eval_loss": "NaN", "curve": [[1, 2.0, 1e-4, None]], "bank_slots": 4},
}  # fmt: skip


def journal_of(folder: Path, *events: dict[str, Any]) -> str:
    path = folder / "journal.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return str(path)


def with_metric(name: str, value: Any) -> dict[str, Any]:
    return {**FINE, "metrics": {**FINE["metrics"], name: value}}


@pytest.mark.parametrize(
    "name", ["../../x", "/etc", "a/b", "", "..", ".hidden", "a\0b", "t" * 65, "prüfung", 7, ["t"]]
)
@pytest.mark.parametrize("field", ["trial", "confirms"])
def test_a_name_that_leads_elsewhere_is_refused(name: Any, field: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    begun = {"event": "trial_suggested", "trial": "t0000", "point": {}, field: name}
    journal_of(folder, FINE, begun, FINE)
    (folder / "sweep.json").write_text((RECORDED / "sweep.json").read_text())
    words = rf"line 2: {field}: got .*, must be at most 64 letters"
    with pytest.raises(JournalError, match=words):
        load(str(folder))
    with pytest.raises(JournalError, match=words):
        Watched(str(folder)).catch_up()
    with pytest.raises(JournalError, match=words):
        Journal(str(folder / "journal.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        ({**FINE, "step": -1}, "step: got -1, must be a whole number"),
        ({**FINE, "step": True}, "step: got True"),
        ({**FINE, "step": 2**70}, "step: got"),
        ({**FINE, "metrics": []}, "metrics: got [], must be an object"),
        ({**FINE, "time": "yesterday"}, "time: got 'yesterday', must be a finite number"),
        ({**FINE, "time": "Infinity"}, "time: got inf, must be a finite number"),
        (with_metric("eval_loss", "low"), "eval_loss: got 'low', must be a number"),
        (with_metric("eval_loss", 10**400), "eval_loss: got 1000"),
        (with_metric("tokens", 1.5), "tokens: got 1.5, must be a whole number"),
        (with_metric("curve", [1, 2]), "curve: got [1, 2], must be lists of numbers"),
        (with_metric("device", {}), "device: got {}, must be text"),
        (with_metric("answer_flags", [None]), "answer_flags: got [None], must be lists of words"),
        ({"event": "trial_ended", "trial": "t0000", "outcome": "failed"}, "got no 'message'"),
        ({"event": "decision", "trial": "t", "step": 1, "rung": 2, "bracket": "b",
          "decision": "maybe"}, "decision: got 'maybe', must be continue or stop"),
    ],
)  # fmt: skip
def test_a_field_of_another_kind_is_refused_by_name_and_line(
    event: dict[str, Any], wrong: str, tmp_path: Path
) -> None:
    path = journal_of(tmp_path, FINE, event)
    with pytest.raises(JournalError) as raised:
        read_events(path)
    assert f"{path}, line 2: " in str(raised.value)
    assert wrong in str(raised.value)


def test_what_is_not_known_passes_as_of_a_later_version(tmp_path: Path) -> None:
    later = {"event": "quantum_leap", "trial": None, "time": 2, "x": [{"trial": "../.."}]}
    more = {**with_metric("entropy", {"of": "all"}), "mood": 7}
    nothing = with_metric("gpu_memory_gb", None)
    events = read_events(journal_of(tmp_path, FINE, later, more, nothing))
    assert [event["event"] for event in events] == ["result", "quantum_leap", "result", "result"]


def test_brackets_without_an_end_are_damage(tmp_path: Path) -> None:
    path = journal_of(tmp_path, FINE)
    text = Path(path).read_bytes()
    Path(path).write_bytes(text + b"[" * 100_000 + b"]" * 100_000 + b"\n" + text)
    with pytest.raises(JournalError, match=r"line 2: got .*must be a JSON event"):
        read_events(path)
