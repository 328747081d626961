"""The throughput benchmark from end to end, on a model that fits a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from packs_here import build_packs_here

from sftray.demo import FOLDER

BANK = Path(__file__).parents[2] / "benchmarks" / "bank.py"


@pytest.mark.slow
def test_the_bank_benchmark_measures_trl_and_the_bank_on_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "chats.jsonl"
    with open(FOLDER / "chats.jsonl", encoding="utf-8") as lines:
        data.write_text("".join(islice(lines, 200)), encoding="utf-8")
    monkeypatch.syspath_prepend(BANK.parent)  # as for a script
    import shapes

    build_packs_here(shapes.data_of(str(data), 128), str(FOLDER), storage=str(tmp_path))
    command = [sys.executable, BANK, "--settings", "tiny-gemma:3:128", "--repeats", "3"]
    command += ["--precision", "nf4,fp8"]
    command += ["--data", data, "--storage", tmp_path, "--out", tmp_path / "out"]
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first_words = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert {"TRL", "TRL best", "bank nf4", "bank fp8"} <= set(first_words)
    assert "bank in nf4 / TRL at its best: " in done.stdout
    assert "bank in fp8 / in nf4: " in done.stdout
    record = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    assert record["trl"]["rows"] == 1
    banks = record["banks"]
    assert banks["nf4"]["rows"] == banks["fp8"]["rows"] == record["slots"] == 3
    for side in (record["trl"], record["trl_best"], *banks.values()):
        assert side["steps"] == 3
        assert side["supervised_tokens"] > 0
