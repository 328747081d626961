"""best/sweep.json is read as it was written, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_bundle import CONFIRMED, facts_of

from sftray.config import TrialConfig
from sftray.config.config_json import to_json
from sftray.errors import SftrayError
from sftray.results.confirmation import half_width
from sftray.winner.bundle import FACTS, BundleFacts

TRIAL = TrialConfig("base", learning_rate=5e-3, lora_r=12)


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    facts = facts_of(TRIAL, confirmed=CONFIRMED)
    (tmp_path / FACTS).write_text(json.dumps(to_json(facts)), encoding="utf-8")
    again = BundleFacts.read(str(tmp_path))
    assert to_json(again) == to_json(facts)
    assert (again.config, again.data) == (facts.config, facts.data)
    assert again.confirmed is not None
    assert half_width(again.confirmed) == half_width(CONFIRMED) == 0.25


@pytest.mark.parametrize("name", ["leaderboard", "evals_per_trial"])
def test_facts_of_another_version_are_refused(name: str, tmp_path: Path) -> None:
    values = to_json(facts_of(TRIAL))
    del values[name]
    (tmp_path / FACTS).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(SftrayError, match=f"{name}.*must be written by this version"):
        BundleFacts.read(str(tmp_path))
