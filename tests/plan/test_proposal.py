"""`sftray init` writes a sweep that fits the data and the base, has its reasons, and plans."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from sftray.cli.launch import launch
from sftray.cli.main import main
from sftray.config import SweepConfig
from sftray.config.spaces import Choice, Uniform
from sftray.demo import FOLDER
from sftray.plan.proposal import propose

CHATS = [json.loads(line) for line in (FOLDER / "chats.jsonl").read_text().splitlines()]


def alpaca(number: int) -> list[dict[str, str]]:
    return [
        {"instruction": f"Say the number {k}.", "input": "", "output": f"It is {k}. " * (1 + k % 9)}
        for k in range(number)
    ]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def init(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["init", *arguments])
    captured = capsys.readouterr()
    assert ended.value.code == status, captured.err
    return captured.err if status else captured.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "spelled", "max_length", "batches", "gpus"),
    [
        (CHATS[:300], "messages", 128, [1, 2, 4, 8], 0),
        (CHATS, "messages", 128, [16, 32], 1),
        (alpaca(400), "instruction", 128, [1, 2, 4], 2),
    ],
    ids=["tiny", "messages", "alpaca"],
)
def test_what_is_written_fits_the_data_and_plans(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    rows: list[Any],
    spelled: str,
    max_length: int,
    batches: list[int],
    gpus: int,
) -> None:
    file, data = tmp_path / "my_sweep.py", write(tmp_path / "data.jsonl", rows)
    said = init(capsys, str(file), "--data", data, "--model", str(FOLDER), "--gpus", str(gpus))
    assert said.endswith(f"wrote {file}; what it would do: python {file} --plan\n")
    text = file.read_text(encoding="utf-8")
    assert f"# about {len(rows):,} conversations, spelled as {spelled}" in text
    of_gpus = ("num_train_epochs", "warmup_ratio", "lora_r") if gpus else ()
    axes = ("learning_rate", *of_gpus)
    for field in ("max_length", *(f'"{name}"' for name in axes), "num_trials"):
        before = text.splitlines()
        line = next(k for k, one in enumerate(before) if one.strip().startswith(field))
        assert before[line - 1].strip().startswith("#"), field
    sweep: SweepConfig = runpy.run_path(str(file))["sweep"]
    assert sweep.name == "my_sweep"
    assert sweep.data.max_length == max_length
    assert sweep.trial.base_precision == ("nf4" if gpus else "fp32")
    space = sweep.search_space
    assert space.keys() == {"effective_batch_size", *axes}
    assert isinstance(space["effective_batch_size"], Choice)
    assert list(space["effective_batch_size"].values) == batches
    assert isinstance(space["learning_rate"], Uniform)
    assert space["learning_rate"].contains(3e-3)  # published as good for so small a base
    assert sweep.num_trials == (60 if gpus else 8)
    assert sweep.trial.num_train_epochs == (1 if gpus else 2)
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(sweep, ["--plan", "--json", "--storage", str(tmp_path / "none")])
    planned = json.loads(capsys.readouterr().out)
    assert not any("bad" in warning for warning in planned["warnings"])
    assert all(planned["rungs"].values())


@pytest.mark.slow
def test_several_sources_are_mixed_in_proportion_to_their_rows(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chats, texts = (
        write(tmp_path / "chats.jsonl", CHATS[:300]),
        write(tmp_path / "alpaca.jsonl", alpaca(400)),
    )
    file = tmp_path / "mixed.py"
    init(capsys, str(file), "--data", chats, texts, "--model", str(FOLDER), "--gpus", "0")
    sweep: SweepConfig = runpy.run_path(str(file))["sweep"]
    assert [path for path, _ in sweep.data.sources] == [chats, texts]
    assert "weights in proportion to their rows" in " ".join(
        file.read_text().replace("#", "").split()
    )
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(sweep, ["--plan", "--json", "--storage", str(tmp_path / "none")])
    planned = json.loads(capsys.readouterr().out)
    assert [one["source"] for one in planned["sources"]] == ["chats", "alpaca"]
    assert all(one["passes"] == pytest.approx(1, abs=0.05) for one in planned["sources"])


def test_a_large_base_gets_the_usual_rates_and_says_where_it_fits(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    config = json.loads((FOLDER / "config.json").read_text())
    config |= {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    config |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    data = write(tmp_path / "data.jsonl", CHATS[:600])

    def asked(gpus: int, memory: float | None) -> Any:
        return propose("x", [data], str(tmp_path), split="train", gpus=gpus, gpu_memory=memory)

    found = asked(1, None)
    assert found.sweep.search_space["learning_rate"] == Uniform(8e-5, 3e-3, log=True)
    assert found.reasons["trial.model"].startswith("6.98 billion parameters; the bank trains")
    assert found.reasons["trial.model"].endswith("fits GPUs of 24 GB and more")
    spread = asked(4, 4e9).sweep  # GPUs of 4 GB
    assert (spread.trial.num_workers, spread.trial.shard_base) == (4, True)


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (alpaca(30), ["new.py"], "must be at least 20 rows"),
        ([{"text": "no chat"}], ["new.py"], "got the columns text, must have one of"),
        (CHATS[:9], ["there.py"], "there.py: this file exists"),
        (CHATS[:9], ["new.txt"], "must end on .py"),
    ],
)
def test_what_cannot_be_is_a_message_and_no_file(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    rows: list[Any],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "there.py").write_text("mine")
    file, data = tmp_path / arguments[0], write(tmp_path / "data.jsonl", rows)
    told = init(capsys, str(file), "--data", data, "--model", str(FOLDER), status=2)
    assert message in told
    assert {p.name for p in tmp_path.iterdir()} == {"there.py", "data.jsonl"}
    assert (tmp_path / "there.py").read_text() == "mine"
