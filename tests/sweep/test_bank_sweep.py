"""Whole sweeps on a bank, through Ray Tune: as by SFTTrainer; interrupted; killed."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from sftray import results
from sftray.config import SweepConfig
from sftray.results import Results
from sftray.results.audit import audit
from sftray.storage.journal import read_events
from sftray.storage.paths import SweepPaths
from sftray.sweep.run import run_sweep

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def sweep(small_sweep_config: SweepConfig, small_sweep: Results, tmp_path: Path) -> SweepConfig:
    """The small sweep, on a bank of two slots; its packs are there already."""
    small = small_sweep_config
    shutil.copytree(Path(small.storage, "packs"), tmp_path / "packs")
    return replace(
        small,
        name="banked",
        trial=replace(small.trial, lora_dropout=0.0),
        trainer="bank",
        bank_slots=2,
        storage=str(tmp_path),
    )


def losses(found: Results) -> dict[tuple[str, int], float]:
    """Eval loss of every trial at every step."""
    return {(t.trial, r["step"]): r["eval_loss"] for t in found.records for r in t.results}


def test_a_sweep_on_a_bank_is_the_sweep_by_sfttrainer(sweep: SweepConfig) -> None:
    lines: list[str] = []
    found = run_sweep(sweep, log=lines.append)
    expected = run_sweep(replace(sweep, name="by_train", trainer="train"), local=True, log=_silent)
    assert any(line.startswith("trainer: bank (plain LoRA") for line in lines)
    assert any("micro-steps" in line and "slots busy" in line for line in lines)
    both = losses(found), losses(expected)
    for place in both[0].keys() & both[1].keys():
        assert both[0][place] == pytest.approx(both[1][place], rel=1e-4)
    assert found.leaderboard["best"] == expected.leaderboard["best"]
    outcomes = {trial.trial: trial.outcome for trial in found.records}
    assert set(outcomes.values()) <= {"completed", "pruned"}
    assert outcomes[found.leaderboard["best"]] == "completed"
    at_rung = {t.trial: r for t in found.records for r in t.results if r.get("rung_peers")}
    assert {"t0000", "t0001"} <= at_rung.keys()  # they began together, and were judged together
    for result in at_rung.values():
        for peer, loss in result["rung_peers"]:
            assert both[0][peer, result["step"]] == loss
    assert audit(found.folder).differences == audit(expected.folder).differences == ()
    for trial in found.records:  # none went past a rung without the search's word
        for decision in trial.decisions:
            if decision["decision"] == "stop":
                assert trial.results[-1]["step"] == decision["step"]


def test_a_sweep_goes_on_after_ctrl_c_and_after_its_bank_was_killed(sweep: SweepConfig) -> None:
    sweep = replace(sweep, scheduler="none")
    undisturbed = run_sweep(replace(sweep, name="undisturbed"), log=_silent)

    def press_ctrl_c(line: str) -> None:
        if line.startswith("t0000  step     4"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, log=press_ctrl_c)
    assert results.load(SweepPaths.of(sweep.storage, sweep.name).root).records[0].outcome is None
    killed: list[int] = []

    def kill_the_bank(line: str) -> None:
        if ("started" in line or "goes on" in line) and not killed:
            killed.append(_kill_bank())

    found = run_sweep(sweep, log=kill_the_bank)
    assert killed
    assert [trial.outcome for trial in found.records] == ["completed"] * 3
    assert losses(found) == pytest.approx(losses(undisturbed), abs=1e-6)
    events = read_events(SweepPaths(found.folder).journal)
    ended = [event for event in events if event["event"] == "attempt_ended"]
    assert ended
    assert all("bank" in event["message"] for event in ended)


def _silent(line: str) -> None:
    """Logs nothing."""


def _kill_bank() -> int:
    import ray
    from ray.util.state import list_actors

    here = ray.get_runtime_context().gcs_address  # there may be another cluster on this machine
    alive = [("class_name", "=", "BankProcess"), ("state", "=", "ALIVE")]
    pid = int(list_actors(here, filters=alive)[0].pid)
    os.kill(pid, signal.SIGKILL)
    return pid
