"""The command line: `launch` for sweep files, `sftray` for what a sweep left behind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from fake_folder import RECORDED
from fake_trials import make_sweep

from sftray.cli.launch import launch
from sftray.cli.main import main
from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.demo import FOLDER
from sftray.results import Results
from sftray.results.diagnosis.one_diagnosis import NOTHING_WRONG

SWEEP = make_sweep(
    data=DataConfig(str(FOLDER / "chats.jsonl"), max_length=512), trial=TrialConfig(str(FOLDER))
)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What `sftray` prints; where it fails, what it says of the error."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "results",
        "watch",
        "report",
        "best",
        "merge",
        "push",
        "generate",
        "inspect",
        "doctor",
        "",
    ],
)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert said(capsys, *filter(None, [command]), "--help").startswith("usage: sftray")


def test_launch_explains_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(SWEEP, ["--help"])
    text = capsys.readouterr().out
    for flag in (
        "--plan", "--demo", "--local", "--data", "--model", "--storage", "--name", "--num-trials",
        "--trainer", "--points", "--set", "--wandb", "--fresh", "--yes", "--json", "--plain",
    ):  # fmt: skip
        assert flag in text


def plan(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> dict[str, object]:
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(SWEEP, ["--plan", "--json", "--storage", str(tmp_path), *arguments])
    planned: dict[str, object] = json.loads(capsys.readouterr().out)
    return planned


def test_the_flags_override_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    planned = plan(
        capsys, tmp_path, "--name", "other", "--num-trials", "3", "--set", "trial.lora_r=2",
        "--set", "data.max_length=256", "--wandb", "disabled",
    )  # fmt: skip
    config = planned["config"]
    assert isinstance(config, dict)
    assert (planned["sweep"], planned["trials"]) == ("other", 3)
    assert (config["trial"]["lora_r"], config["data"]["max_length"]) == (2, 256)
    assert config["wandb"] == "disabled"


def test_points_are_run_instead_of_a_search(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    points = tmp_path / "points.jsonl"
    points.write_text('{"effective_batch_size": 4}\n{"effective_batch_size": 8}\n')
    planned = plan(capsys, tmp_path, "--points", str(points))
    shapes = planned["shapes"]
    assert isinstance(shapes, list)
    assert planned["trials"] == 2
    assert [shape["effective_batch_size"] for shape in shapes] == [4, 8]


def test_a_plan_for_a_person_tells_trials_steps_rungs_and_disk(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path)])
    text = capsys.readouterr().out
    assert text.startswith("sweep fake: 16 trials; the best is not confirmed")
    assert "\ndata (estimated from 2,000 of 2,400 rows):\n" in text
    told_all = ("packing: ", "micro ×", "warm-up", "rungs: after", "tokens:", "disk: about")
    for told in told_all:
        assert told in text


def write_rows(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def chat(number: int, answer: str = "It is so. ", **keys: object) -> dict[str, object]:
    turn = {"role": "assistant", "content": answer * 10, **keys}
    return {"messages": [{"role": "user", "content": f"Question {number}?"}, turn]}


def test_a_plan_of_what_would_not_start_is_shown_and_is_the_exit_status(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [chat(k) for k in range(2000)]
    for row in rows[::10]:
        row["messages"] = [{"role": "user", "content": "Nobody answers."}]
    data = write_rows(tmp_path / "chats.jsonl", rows)
    with pytest.raises(SystemExit, match=r"^2$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path), "--data", data])
    said = capsys.readouterr().out
    assert "error: train data: 200 of 2,000 rows are bad (200 no assistant turn)" in said
    assert "the sweep would not start" in said


def test_a_plan_counts_rows_that_the_template_cannot_write_and_those_with_thoughts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [chat(k, tool_calls=[{"name": "f"}]) if k % 50 == 0 else chat(k) for k in range(1000)]
    rows[7] = chat(7, reasoning_content="Hm.")
    data = write_rows(tmp_path / "chats.jsonl", rows)
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path), "--data", data])
    said = capsys.readouterr().out
    dropped = "20 of 1,000 rows dropped (20 tool_calls not supported by the chat template)"
    assert dropped in said
    assert "1 conversations with thoughts in 1 documents" in said


def test_where_every_row_has_a_weight_that_is_none_the_refusal_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "chats.jsonl", [chat(k, weight=3) for k in range(20)])
    with pytest.raises(SystemExit, match=r"^2$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path), "--data", data])
    said = capsys.readouterr().err
    assert "20 sampled conversations can be trained on: 20 weight other than 0 and 1" in said


@pytest.mark.parametrize(("shared", "status"), [(5, 0), (6, 2)])
def test_a_plan_refuses_an_evaluation_set_above_a_tenth_of_which_is_trained_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shared: int, status: int
) -> None:
    data = write_rows(tmp_path / "train.jsonl", [chat(k) for k in range(1000)])
    alike = [chat(k) if k < shared else chat(k, "No. ") for k in range(10)]
    given = write_rows(tmp_path / "eval.jsonl", alike + [chat(2000 + k) for k in range(40)])
    arguments = ["--data", data, "--set", f"data.eval_source={given}"]
    with pytest.raises(SystemExit, match=f"^{status}$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path), *arguments])
    said = " ".join(capsys.readouterr().out.split())  # lines are broken
    assert "overlap: 10 training conversations begin like one of the evaluation set" in said
    assert f"{shared} of its 50 are in the training data word for word" in said
    assert (f"eval data: {shared} of 50 conversations" in said) == (status == 2)


def test_a_plan_tells_budgets_and_that_a_cpu_has_none_of_gpus(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = ["--set", "max_hours=3", "--set", "max_gpu_hours=2", "--set", "use_gpu=false"]
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path), *given])
    text = capsys.readouterr().out
    assert (
        "\nbudget: max_hours 3, max_gpu_hours 2; when one is used up, the sweep ends with" in text
    )
    assert "\nwarning: max_gpu_hours never ends this sweep, because it runs on CPUs" in text


def test_a_plan_says_minutes_and_money_and_where_they_are_not_known(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def planned(*assignments: str) -> str:
        given = [part for one in assignments for part in ("--set", one)]
        with pytest.raises(SystemExit, match=r"^0$"):
            launch(SWEEP, ["--plan", "--storage", str(tmp_path), *given])
        return " ".join(capsys.readouterr().out.split())

    unknown = "time: not known on this CPU; --plan --probe measures it here in ten seconds"
    assert unknown in planned("use_gpu=false", "price_per_gpu_hour=2")
    text = planned("use_gpu=true", "price_per_gpu_hour=2")
    assert re.search(r"time: \d+ to \d+ minutes on 1 × H100 \(assumed\) \(.*, estimated from", text)
    assert re.search(r"cost: 0\.\d\d to \d\.\d\d at 2 a GPU-hour", text)
    assert "budget:" not in text
    assert "cost:" not in planned("use_gpu=true")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            [],
            [
                "trainer: bank (plain LoRA trials that share one base)",
                "bank: 4 slots × 1 rows, ranks up to 16, base dequantised once",
            ],
        ),
        (["--trainer", "train"], ["trainer: train (asked for)"]),
        (
            ["--set", "trial.num_workers=2"],
            ["trainer: train (a trial has 2 workers, and a bank's trials share one GPU)"],
        ),
    ],
)
def test_a_plan_tells_the_trainer_why_and_what_the_bank_is_built_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], lines: list[str]
) -> None:
    on_cpu = ["--storage", str(tmp_path), "--set", "use_gpu=false"]
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(SWEEP, ["--plan", *on_cpu, *arguments])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith(("trainer:", "bank:"))] == lines
    assert told[1] == lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "trial.lora_rank=8"], "TrialConfig has no field 'lora_rank'"),
        (["--set", "num_trials=many"], "num_trials: got 'many', must be a whole number"),
        (["--num-trials", "0"], "num_trials: got 0"),
        (["--points", "/no/such/file"], "there is no such file"),
        (["--data", "/no/such.jsonl"], "/no/such.jsonl"),
        (["--set", "trial.effective_batch_size=5000", "--points", "POINTS"], "must give at least"),
        (["--trainer", "bank", "--set", "trial.num_workers=2"], "got 'bank', but a trial has 2"),
    ],
)
def test_a_bad_request_exits_with_2_and_one_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "points.jsonl").write_text("{}\n")
    known = [str(tmp_path / "points.jsonl") if a == "POINTS" else a for a in arguments]
    with pytest.raises(SystemExit, match=r"^2$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path / "storage"), *known])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert not (tmp_path / "storage").exists()


def test_a_hint_stands_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        launch(SWEEP, ["--plan", "--storage", str(tmp_path), "--set", "trial.lora_rank=8"])
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: --set trial.lora_rank: TrialConfig has no field 'lora_rank'"
    assert hint == "hint: did you mean 'lora_r'?"


def test_data_that_is_not_there_is_said_before_ray_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftray.sweep.run.connect", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(SystemExit, match=r"^2$"):
        launch(SWEEP, ["--data", "/no/such.jsonl", "--storage", str(tmp_path)])
    assert capsys.readouterr().err == "error: /no/such.jsonl: there is no such file\n"


def test_a_folder_that_is_no_sweep_is_a_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for command in ("results", "audit", "report", "watch", "best", "inspect"):
        for folder in (tmp_path, file, tmp_path / "none"):
            assert said(capsys, command, str(folder), status=2).startswith(f"error: {folder}: ")


def test_a_sweep_without_a_winner_and_the_winner_of_a_sweep_are_no_tracebacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = str(shutil.copytree(RECORDED, tmp_path / "lr_batch"))
    shutil.rmtree(f"{folder}/best", ignore_errors=True)
    for command in (["best"], ["merge", "--no-check"], ["generate", "Hello."]):
        rest = [*command[1:], *([str(tmp_path / "out")] if command[0] == "merge" else [])]
        text = said(capsys, command[0], folder, *rest, status=2)
        assert text.startswith(f"error: {folder}: the sweep is not finished")
    for command in ("results", "audit", "report", "watch"):
        text = said(capsys, command, f"{folder}/best", status=2)
        assert "must be that of its sweep" in text
        assert text.endswith(f"hint: name {folder}\n")


def test_init_makes_no_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "nope" / "x.py"
    text = said(capsys, "init", str(file), "--data", "d", "--model", "m", status=2)
    assert text.startswith(f"error: {file}: there is no folder {file.parent}")
    assert not file.parent.exists()


@pytest.mark.ray
def test_results_prints_the_leaderboard(
    capsys: pytest.CaptureFixture[str], small_sweep: Results
) -> None:
    assert json.loads(said(capsys, "results", small_sweep.folder, "--json")) == (
        small_sweep.leaderboard
    )
    printed = said(capsys, "results", small_sweep.folder, "--top", "1")
    answer, table, advice = printed.split("\n\n")
    rows = table.splitlines()
    assert small_sweep.leaderboard["best"] in rows[2]
    assert rows[3:] == ["   and 2 more"]
    assert "\n  more: sftray results " in advice
    learned = json.loads(said(capsys, "results", small_sweep.folder, "--findings", "--json"))
    assert learned["outcomes"] == {"completed": 2, "pruned": 1}
    for text in (answer, said(capsys, "results", small_sweep.folder, "--findings")):
        assert " ".join(text.split()).startswith(learned["verdict"])
    assert "noise " in text
    verbose = said(capsys, "results", small_sweep.folder, "-v")
    assert "\n\neval loss by kind of token" in verbose
    for row in small_sweep.leaderboard["trials"]:
        wrong = row["diagnosis"] not in NOTHING_WRONG
        assert (row["verdict"][:40] in verbose) == wrong
    assert len(printed.splitlines()) <= 24


@pytest.mark.ray
def test_an_interrupted_sweep_says_what_it_has_found_so_far(
    capsys: pytest.CaptureFixture[str], small_sweep: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Results:
        raise KeyboardInterrupt

    monkeypatch.setattr("sftray.sweep.run.run_sweep", interrupted)
    folder = Path(small_sweep.folder)
    with pytest.raises(SystemExit, match=r"^130$"):
        launch(SWEEP, ["--storage", str(folder.parent), "--name", folder.name])
    captured = capsys.readouterr()
    assert f"*  {small_sweep.leaderboard['best']}" in captured.out
    assert "run the same command to continue" in captured.err


@pytest.mark.ray
def test_best_prints_how_to_load_the_adapter(
    capsys: pytest.CaptureFixture[str], small_sweep: Results
) -> None:
    text = said(capsys, "best", small_sweep.folder)
    first = text.splitlines()[0]
    assert re.match(rf"{small_sweep.leaderboard['best']}: eval loss \S+ at step \d+", first)
    assert first.endswith(" below the base, checked")
    assert f"AutoPeftModelForCausalLM.from_pretrained('{small_sweep.folder}/best')" in text
    assert "vLLM: yes" in text
    assert f"--lora-modules small={small_sweep.folder}/best" in text
    assert f"again: python {small_sweep.folder}/best/repeat.py" in text
    facts = json.loads(said(capsys, "best", small_sweep.folder, "--json"))
    assert facts["trial"] == small_sweep.leaderboard["best"]
    assert facts["vllm_problems"] == facts["peft_problems"] == []


@pytest.mark.ray
def test_inspect_shows_the_rows_of_a_sweep(
    capsys: pytest.CaptureFixture[str], small_sweep: Results
) -> None:
    counts = json.loads(said(capsys, "inspect", small_sweep.folder, "--json"))
    assert counts["train"]["rows"] == small_sweep.record["data"]["train"]["rows"]
    assert "⟦" in said(capsys, "inspect", small_sweep.folder, "--rows", "1")  # trained tokens


@pytest.mark.ray
def test_generate_answers_with_base_and_adapter(
    capsys: pytest.CaptureFixture[str], small_sweep: Results
) -> None:
    text = said(capsys, "generate", small_sweep.folder, "Hello.", "--max-new-tokens", "4")
    assert text.splitlines()[0].startswith("base: ")
    assert "\nadapter: " in text


@pytest.mark.ray
def test_a_plan_is_exact_where_the_packs_are(
    capsys: pytest.CaptureFixture[str], small_sweep: Results, small_sweep_config: SweepConfig
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(small_sweep_config, ["--plan", "--json"])
    planned = json.loads(capsys.readouterr().out)
    assert planned["exact"] is True
    assert planned["packs"] == small_sweep.packs
    assert planned["data"] == small_sweep.record["data"]
    assert planned["rungs"] == {"0.5 epochs": [10]}
    assert [shape["steps"] for shape in planned["shapes"]] == [12]  # one shape for all three points
