"""A notebook on a laptop opens a sweep in a second: light rooms import neither ray nor torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("ray", "torch", "transformers", "datasets", "peft", "trl")
LIGHT = (
    "sftray",
    "sftray.plan.base_config",
    "sftray.config.sweep_config",
    "sftray.errors",
    "sftray.storage.paths",
    "sftray.plan.trial_plan",
    "sftray.storage.files",
    "sftray.storage.journal.journal",
    "sftray.results.sweep_folder",
    "sftray.results.diagnosis.diagnosis",
    "sftray.results.findings",
    "sftray.results.tables",
    "sftray.views.plots",
    "sftray.views.report.report",
    "sftray.views.live",
    "sftray.plan.preview",
    "sftray.cli.main",
    "sftray.cli.commands",
    "sftray.storage.hub_errors",
    "sftray.plan.proposal",
    "sftray.config.sweep_file",
    "sftray.winner.model_card",
    "sftray.winner.adapter_format",
    "sftray.search.optuna_space",
    "sftray.search.asha",
    "sftray.search.sampler",
    "sftray.search.search",
    "sftray.data.packs.packs",
    "sftray.data.packs.inspect",
    "sftray.demo",
    "sftray.cluster.spot_notice",
    "sftray.cluster.autoscaler_limits",
)
STANDARD_LIBRARY_ONLY = (
    "sftray.config.sweep_config",
    "sftray.errors",
    "sftray.storage.paths",
    "sftray.plan.trial_plan",
)
LAPTOP = ("pyarrow", "numpy", "optuna", "tokenizers")


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a fresh Python has loaded after running `code`."""
    code += "\nimport json, sys\nsys.stderr.write(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def test_the_light_rooms_import_neither_ray_nor_torch() -> None:
    loaded = loaded_by("\n".join(f"import {name}" for name in LIGHT))
    assert loaded & set(HEAVY) == set()


def test_configs_and_arithmetic_import_the_standard_library_only() -> None:
    loaded = loaded_by("\n".join(f"import {name}" for name in STANDARD_LIBRARY_ONLY))
    assert loaded & {*HEAVY, *LAPTOP} == set()


@pytest.mark.parametrize("file", ["lr_batch", "rank", "epochs_warmup"])
def test_a_sweep_file_loads_nothing_but_its_configuration(file: str) -> None:
    path = Path(__file__).parents[2] / "sweeps" / f"{file}.py"
    loaded = loaded_by(f"import runpy; runpy.run_path({str(path)!r})")
    assert loaded & {*HEAVY, "optuna", "tokenizers"} == set()


def test_reading_a_sweep_does_not_wait_for_optuna() -> None:
    """Which only the importance of axes needs, and only with enough trials."""
    loaded = loaded_by("import sftray.results.sweep_folder, sftray.results.findings")
    assert loaded & {*HEAVY, "optuna"} == set()


def test_a_plan_imports_neither_ray_nor_torch(tmp_path: Path) -> None:
    sweep = Path(__file__).parents[2] / "sweeps" / "lr_batch.py"
    loaded = loaded_by(
        "import contextlib, io, runpy, sys\n"
        f"sys.argv = ['lr_batch.py', '--plan', '--demo', '--storage', {str(tmp_path)!r}]\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:\n"
        f"    runpy.run_path({str(sweep)!r}, run_name='__main__')\n"
        "assert 'estimated from 2,000 of 2,400 rows' in said.getvalue(), said.getvalue()"
    )
    assert loaded & {"ray", "torch", "datasets", "peft", "trl"} == set()
