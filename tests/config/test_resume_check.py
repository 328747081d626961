"""sweep.json: which configurations go on with a sweep that is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_trials import make_sweep

from sftray.config.config_json import to_json
from sftray.config.resume_check import refuse_other_config
from sftray.errors import ConfigError
from sftray.storage.paths import SweepPaths


def record(folder: Path, config: dict[str, Any]) -> SweepPaths:
    (folder / "sweep.json").write_text(json.dumps({"config": config}), encoding="utf-8")
    return SweepPaths(str(folder))


def test_a_configuration_that_differs_is_refused_with_its_fields(tmp_path: Path) -> None:
    sweep = make_sweep()
    paths = record(tmp_path, to_json(sweep))
    refuse_other_config(sweep, paths)
    other = replace(sweep, seed=8, trial=replace(sweep.trial, weight_decay=0.3))
    with pytest.raises(ConfigError, match=r"differs in seed, trial.weight_decay; use --name"):
        refuse_other_config(other, paths)


def test_budgets_and_the_number_of_trials_may_change(tmp_path: Path) -> None:
    sweep = make_sweep()
    paths = record(tmp_path, to_json(sweep))
    refuse_other_config(replace(sweep, num_trials=99, max_hours=3.0, max_failures=5), paths)
