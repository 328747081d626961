"""The winner's folder: an ordinary PEFT adapter from the best evaluation, checked and mergeable."""

from __future__ import annotations

import functools
import json
import re
import runpy
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_bundle import CONFIRMED
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftray.config import SweepConfig
from sftray.config.config_json import to_json
from sftray.data.packs.packs import open_packs
from sftray.demo import FOLDER
from sftray.errors import SftrayError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results import Results, load
from sftray.storage import files
from sftray.storage.paths import SweepPaths
from sftray.sweep.run import run_sweep
from sftray.trainers.runner import submit_task
from sftray.trial.attention import Attention
from sftray.trial.base_model import saved_tokenizer
from sftray.trial.eval_loss import load_trained, packed_eval_loss
from sftray.trial.generation import reply
from sftray.trial.samples import read_samples
from sftray.winner.adapter_format import peft_problems, read_adapter, vllm_problems
from sftray.winner.bundle import BundleFacts, open_bundle
from sftray.winner.check import TOLERANCE
from sftray.winner.collect import collect
from sftray.winner.generate import answer
from sftray.winner.merge import merge, require_unquantised

pytestmark = pytest.mark.ray

SDPA = Attention("sdpa", "sdpa", "stacked")


@pytest.fixture(scope="module")
def facts(small_sweep: Results) -> BundleFacts:
    return BundleFacts.read(f"{small_sweep.folder}/best")


def test_the_bundle_is_of_the_best_evaluation(small_sweep: Results, facts: BundleFacts) -> None:
    best = next(t for t in small_sweep.records if t.trial == small_sweep.leaderboard["best"])
    lowest = min(r["eval_loss"] for t in small_sweep.records for r in t.results if r["step"])
    assert best.best is not None
    assert (facts.trial, facts.step) == (best.trial, best.best["step"])
    assert facts.eval_loss == lowest
    assert facts.point == best.point
    assert facts.config.learning_rate == best.point["learning_rate"]
    assert facts.verified is True


def test_the_bundle_loads_with_plain_peft_and_has_the_recorded_loss(
    small_sweep: Results, facts: BundleFacts
) -> None:
    folder = Path(small_sweep.folder, "best")
    model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert isinstance(model, PeftModel)
    rows = open_packs(small_sweep.packs).dataset("eval")
    loss = packed_eval_loss(model, rows, SDPA, facts.config)
    assert abs(loss - facts.eval_loss) <= TOLERANCE
    messages = [{"role": "user", "content": "Hello."}]
    own = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
    bases = AutoTokenizer.from_pretrained(FOLDER).apply_chat_template(messages, tokenize=False)
    assert own == bases


def test_the_base_answers_the_prompts_that_trials_answer(small_sweep: Results) -> None:
    paths, best = SweepPaths(small_sweep.folder), small_sweep.leaderboard["best"]
    base, adapted = read_samples(paths.base_samples), read_samples(paths.trial(best).samples)
    assert [sample["prompt"] for sample in base] == [sample["prompt"] for sample in adapted]
    assert all(sample["step"] == 0 and sample["answer"] for sample in base)
    assert [s["answer"] for s in base] != [s["answer"] for s in adapted]


def test_the_model_card_tells_base_losses_point_and_data(
    small_sweep: Results, facts: BundleFacts
) -> None:
    card = Path(small_sweep.folder, "best", "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: peft\n")  # its base is no model of the Hub
    for told in (
        f"| untrained base | {facts.base_eval_loss:.4f} |",
        f"| this adapter | {facts.eval_loss:.4f} (",
        f"| this adapter, reloaded with plain PEFT | {facts.reloaded_eval_loss:.4f} |",
        f"| learning_rate | {facts.point['learning_rate']} |",
        facts.data.source,
        f"Data fingerprint `{small_sweep.packs_key}`",
    ):
        assert told in card


def test_the_bundle_repeats_its_trial(small_sweep: Results, facts: BundleFacts) -> None:
    sweep = runpy.run_path(f"{small_sweep.folder}/best/repeat.py")["sweep"]
    assert sweep.trial.at(sweep.points[0]) == facts.config
    assert sweep.data == small_sweep.config.data
    plan = planner(sweep, small_sweep.record["data"]["train"]["rows"], execution=ONE_ROW)
    assert facts.step in plan(sweep.trial).eval_steps


def test_peft_and_vllm_take_the_bundle(small_sweep: Results) -> None:
    config, tensors = read_adapter(Path(small_sweep.folder, "best"))
    assert peft_problems(config, tensors) == []
    assert vllm_problems(config, tensors) == []


def test_a_confirmation_that_comes_later_is_told_in_the_card(
    small_sweep: Results, small_sweep_config: SweepConfig, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_sweep.folder, tmp_path / "copy"))
    weights = (folder / "best" / "adapter_model.safetensors").stat().st_mtime_ns
    board = {
        **small_sweep.leaderboard,
        "confirmed": {"winner": "t0001", "tied": ["t0001"], "points": [CONFIRMED]},
    }
    facts = collect(
        small_sweep_config,
        SweepPaths(str(folder)),
        open_packs(small_sweep.packs),
        replace(small_sweep, folder=str(folder), leaderboard=board),
        log=lambda line: None,
        submit=lambda *_: pytest.fail("the adapter was checked again"),
    )
    card = (folder / "best" / "README.md").read_text(encoding="utf-8")
    assert "| its point, mean of 2 other seeds (95 %) | 3.5000 ± 0.2500 |" in card
    assert json.loads((folder / "best" / "sweep.json").read_text()) == to_json(facts)
    assert facts.verified is True
    assert (folder / "best" / "adapter_model.safetensors").stat().st_mtime_ns == weights


def test_a_merged_base_has_the_adapters_loss(small_sweep: Results, tmp_path: Path) -> None:
    lines: list[str] = []
    out = str(tmp_path / "merged")
    found = merge(small_sweep.folder, out, check=True, log=lines.append)
    best = small_sweep.leaderboard["trials"][0]["eval_loss"]
    assert found.adapter == pytest.approx(best, abs=TOLERANCE)
    assert found.merged == pytest.approx(best, abs=0.05)  # weights rounded to bfloat16
    assert found.in_4_bit is not None
    assert 0 < found.in_4_bit - best < 1
    assert re.match(
        r"Merged in bf16, .* against the adapter on its fp32 base\). In 4 bits", lines[1]
    )
    assert lines[1] in (tmp_path / "merged" / "README.md").read_text()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    with pytest.raises(SftrayError, match="must be new or empty"):
        merge(small_sweep.folder, out, log=lines.append)


def test_a_base_that_is_quantised_already_is_not_merged_into() -> None:
    require_unquantised("org/base", {"model_type": "llama"})
    with pytest.raises(SftrayError, match="org/base: got a base whose own weights are quantised"):
        require_unquantised("org/base", {"quantization_config": {"load_in_4bit": True}})


def test_an_answer_ends_with_the_turn(small_sweep: Results) -> None:
    local, facts = open_bundle(small_sweep.folder)
    trial = facts.config
    model, _ = load_trained(local, trial, facts.data.max_length)
    tokenizer = saved_tokenizer(local, trial)
    asked = [{"role": "user", "content": "Hello."}]
    inputs = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    first = int(model(**inputs).logits[0, -1].argmax())
    assert first != facts.end_of_turn
    prompt = inputs["input_ids"][0].tolist()
    whole, _ = reply(model, tokenizer, prompt, facts.end_of_turn, max_new_tokens=8)
    cut, _ = reply(model, tokenizer, prompt, first, max_new_tokens=8)
    assert cut == tokenizer.decode([first], skip_special_tokens=True)
    assert whole.startswith(cut)
    assert len(whole) > len(cut)


def test_answers_of_base_and_adapter_differ(small_sweep: Results) -> None:
    said = answer(small_sweep.folder, "What is 3 plus 4?", max_new_tokens=12)
    assert said.keys() == {"base", "adapter"}
    assert said["base"] != said["adapter"]


def test_a_bundle_is_found_in_its_sweep_or_by_itself(
    small_sweep: Results, facts: BundleFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for folder in (small_sweep.folder, f"{small_sweep.folder}/best"):
        assert open_bundle(folder) == (Path(small_sweep.folder, "best"), facts)
    assert list(tmp_path.iterdir()) == []  # a local bundle is not copied
    copy, found = open_bundle(f"file://{small_sweep.folder}")
    assert found == facts
    assert {path.name for path in copy.iterdir()} == set(files.list_names(folder))
    with pytest.raises(SftrayError, match="must be a finished sweep's folder or its best/"):
        open_bundle(str(tmp_path))


@pytest.mark.parametrize("damage", ["zeroed", "gone", "half-written"])
def test_a_damaged_bundle_is_made_anew_by_the_next_start(
    small_sweep: Results, small_sweep_config: SweepConfig, tmp_path: Path, damage: str
) -> None:
    folder = Path(shutil.copytree(small_sweep.folder, tmp_path / "copy"))
    best, lines = folder / "best", list[str]()
    expected = {path.name: path.read_bytes() for path in best.iterdir()}
    if damage == "zeroed":
        (best / "tokenizer.json").write_bytes(bytes(100))
    elif damage == "gone":
        (best / "tokenizer.json").unlink()
    else:
        (best / "manifest.json").unlink()
    facts = collect(
        small_sweep_config,
        SweepPaths(str(folder)),
        open_packs(small_sweep.packs),
        load(str(folder)),
        log=lines.append,
        submit=functools.partial(submit_task, use_gpu=False),
    )
    assert facts.verified is True
    assert lines[0].startswith("best/ is made again: ")
    assert {path.name: path.read_bytes() for path in best.iterdir()} == expected


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_checkpoint_that_is_gone_or_damaged_is_passed_over_for_the_next_best(
    small_sweep: Results, small_sweep_config: SweepConfig, tmp_path: Path, damage: str
) -> None:
    folder = Path(shutil.copytree(small_sweep.folder, tmp_path / "copy"))
    paths = SweepPaths(str(folder))
    lines: list[str] = []
    old = json.loads((folder / "best" / "sweep.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder / "best")
    checkpoint = Path(paths.trial(old["trial"]).checkpoint(old["step"]))
    if damage == "gone":
        shutil.rmtree(checkpoint)
    else:
        (checkpoint / "adapter_model.safetensors").write_bytes(b"")
    packs = open_packs(small_sweep.packs)
    submit = functools.partial(submit_task, use_gpu=False)
    facts = collect(
        small_sweep_config, paths, packs, load(str(folder)), log=lines.append, submit=submit
    )
    assert (facts.trial, facts.step) != (old["trial"], old["step"])
    assert facts.eval_loss > old["eval_loss"]
    assert facts.verified is True
    told = [line for line in lines if f"whose checkpoint is {damage}" in line]
    assert len(told) == 1


def test_a_base_without_a_template_answers_by_that_of_the_data(
    small_sweep_config: SweepConfig, tmp_path: Path
) -> None:
    small, template = small_sweep_config, FOLDER / "chat_template.jinja"
    base = tmp_path / "base"
    shutil.copytree(FOLDER, base, ignore=shutil.ignore_patterns("*.py", template.name, "*.jsonl"))
    assert AutoTokenizer.from_pretrained(base).chat_template is None
    sweep = replace(
        small,
        data=replace(small.data, chat_template=str(template)),
        trial=replace(small.trial, model=str(base)),
        points=small.points[:1],
        storage=str(tmp_path),
    )
    found = run_sweep(sweep, local=True, log=lambda line: None)
    samples = Path(SweepPaths(found.folder).trial("t0000").samples).read_text(encoding="utf-8")
    assert len(samples.splitlines()) == sweep.num_samples_generated
    assert answer(found.folder, "What is 3 plus 4?", max_new_tokens=4).keys() == {"base", "adapter"}
    merge(found.folder, str(tmp_path / "merged"), check=False, log=lambda line: None)
    for folder in (Path(found.folder, "best"), tmp_path / "merged"):
        saved = AutoTokenizer.from_pretrained(folder).chat_template
        assert saved == template.read_text(encoding="utf-8")
