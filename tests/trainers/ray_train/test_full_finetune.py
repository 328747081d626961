"""A trial that trains all weights of the bundled base: what it computes, keeps and leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_bundle import facts_of
from test_sft_trainer import CPU, TRIAL, Full, Run, make_trainer, plan_of, run
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftray.cli.main import main
from sftray.config import DataConfig
from sftray.data.packs.packs import Packs
from sftray.errors import CheckpointError, SftrayError
from sftray.storage import files as storage_files
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trainers.ray_train.base_cache import Bases
from sftray.trial import checkpoint as checkpoints
from sftray.trial.attention import possible_attentions
from sftray.trial.base_model import load_base
from sftray.trial.eval_loss import packed_eval_loss
from sftray.trial.progress import StoppedError
from sftray.trial.samples import fixed_prompts
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec
from sftray.winner.bundle import BundleFacts
from sftray.winner.check import Asking, assemble
from sftray.winner.collect import _write
from sftray.winner.generate import answer
from sftray.winner.merge import merge
from sftray.winner.model_card import model_card

pytestmark = pytest.mark.slow

FULL = replace(TRIAL, finetune="full", base_precision="bf16", learning_rate=2e-3)


@pytest.fixture(scope="module")
def whole(small_packs: Packs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trial that was never interrupted."""
    return run(FULL, small_packs, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def base() -> Any:
    return load_base(FULL, CPU)


def test_all_weights_are_trained_and_the_loss_falls(
    whole: Run, base: Any, small_packs: Packs
) -> None:
    assert whole.outcome == "completed"
    assert whole.reports[0]["trained_parameters"] == sum(p.numel() for p in base.parameters())
    assert whole.reports[-1]["eval_loss"] < whole.eval_losses[0] - 0.5
    rows = small_packs.dataset("eval")
    untrained = packed_eval_loss(base.eval(), rows, possible_attentions(FULL, CPU)[0], FULL)
    assert whole.eval_losses[0] == pytest.approx(untrained, abs=2e-6)


def test_all_weights_are_float32_and_all_but_norms_decay(
    small_packs: Packs, tmp_path: Path
) -> None:
    trainer = make_trainer(replace(FULL, weight_decay=0.1), small_packs, tmp_path)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {name: 0.0 if "norm" in name else 0.1 for name in names.values()}
    assert {p.dtype for group in groups for p in group["params"]} == {torch.float32}


@pytest.mark.exhaustive
def test_a_killed_trial_goes_on_as_if_it_had_not_been(
    whole: Run, small_packs: Packs, tmp_path: Path
) -> None:
    second = plan_of(FULL, small_packs).eval_steps[1]
    killed = run(FULL, small_packs, tmp_path, killed_at=second)
    again = run(FULL, small_packs, tmp_path)
    assert [r["resumed_from_step"] for r in again.reports if "resumed_from_step" in r] == [second]
    assert killed.losses | again.losses == pytest.approx(whole.losses, abs=1e-6)
    assert killed.eval_losses | again.eval_losses == pytest.approx(whole.eval_losses, abs=1e-6)


def test_a_checkpoint_is_a_model_that_plain_transformers_loads(
    whole: Run, base: Any, small_packs: Packs, tmp_path: Path
) -> None:
    loss, step = min((loss, step) for step, loss in whole.eval_losses.items() if step)
    found = checkpoints.read(whole.paths.checkpoint(step), tmp_path)
    checkpoints.export_weights(found.folder, tmp_path / "model")
    files = storage_files.list_names(str(tmp_path / "model"))
    assert files == ["config.json", "generation_config.json", "model.safetensors"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float32
    assert model.config.use_cache
    rows = small_packs.dataset("eval")
    again = packed_eval_loss(model.eval(), rows, possible_attentions(FULL, CPU)[0], FULL)
    assert again == pytest.approx(loss, abs=1e-5)
    before = dict(base.named_parameters())
    assert not any(p.equal(before[name]) for name, p in model.named_parameters())  # all have moved


def test_three_checkpoints_are_kept_and_a_damaged_one_is_passed_over(
    whole: Run, tmp_path: Path
) -> None:
    paths = whole.paths
    assert len(storage_files.list_names(paths.checkpoints)) <= 3
    newest = checkpoints.newest(paths, tmp_path)
    assert newest is not None
    weights = newest.folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or differs"):
        checkpoints.read(str(newest.folder), tmp_path)
    before = checkpoints.newest(paths, tmp_path)
    assert before is not None
    assert before.step < newest.step
    weights.write_bytes(content)


def test_weights_and_moments_come_back_as_they_were_also_from_many_files(
    base: Any, tmp_path: Path
) -> None:
    paths = TrialPaths(str(tmp_path))
    model = load_base(FULL, CPU).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    state = {"step": 4, "best": {"step": 4, "eval_loss": 1.0}}
    moments = checkpoints.moments(model, optimizer)
    checkpoints.save_model(paths, model, moments, state, max_shard_size="2MB")
    found = checkpoints.newest(paths, tmp_path)
    assert found is not None
    assert len(list(found.folder.glob("model-*.safetensors"))) > 1
    other = load_base(FULL, CPU).requires_grad_(True)
    fresh = torch.optim.AdamW(other.parameters(), lr=1e-3)
    checkpoints.load_model(other, found)
    checkpoints.load_moments(other, fresh, found)
    saved = dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        assert parameter.equal(saved[name])
        assert not parameter.equal(base.get_parameter(name))
        for moment, value in optimizer.state[saved[name]].items():
            assert fresh.state[parameter][moment].equal(value)
    assert other.lm_head.weight is other.model.embed_tokens.weight  # still tied


def test_the_next_trial_of_a_worker_begins_with_the_untouched_base(
    whole: Run, small_packs: Packs, tmp_path: Path
) -> None:
    bases, plan, found = Bases(), plan_of(FULL, small_packs), []
    first_evaluation = plan.eval_steps[0]
    for number, rate in enumerate((1e-2, FULL.learning_rate)):
        reports: list[dict[str, Any]] = []

        def report(one: Report, reports: list[dict[str, Any]] = reports) -> None:
            reports.append(one.values())
            if one.metrics["step"] == first_evaluation:
                raise StoppedError

        folder = str(tmp_path / str(number))
        config = replace(FULL, learning_rate=rate)
        spec = TrialSpec("t0000", config, plan, small_packs.root, folder)
        with pytest.raises(StoppedError):
            run_trial(spec, report, CPU, bases)
        found.append(Run(reports, TrialPaths(folder)))
    first, second = found
    assert first.eval_losses[0] == second.eval_losses[0] == whole.eval_losses[0]
    assert first.losses[first_evaluation] != second.losses[first_evaluation]
    assert second.losses == {s: v for s, v in whole.losses.items() if s <= first_evaluation}


@pytest.mark.exhaustive
def test_a_trial_without_memory_halves_its_micro_batch(
    whole: Run, small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Full(monkeypatch, rows=1)
    first = plan_of(FULL, small_packs).eval_steps[0]
    short = run(FULL, small_packs, tmp_path, killed_at=first)
    assert short.reports[-1]["micro_batch_size"] == 1
    assert short.losses == pytest.approx({s: whole.losses[s] for s in short.losses}, abs=1e-4)


# the winner's folder


@pytest.fixture(scope="module")
def bundle(whole: Run, small_packs: Packs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best/ of a sweep whose only trial is `whole`, as `bundle.collect` writes it."""
    folder = tmp_path_factory.mktemp("sweep") / "best"
    loss, step = min((loss, step) for step, loss in whole.eval_losses.items() if step)
    checkpoint = whole.paths.checkpoint(step)
    prompts = fixed_prompts(small_packs, (), 1)
    check = assemble(checkpoint, FULL, small_packs.root, Asking(prompts, DataConfig("x")))
    assert abs(check.eval_loss - loss) <= check.tolerance
    assert check.base_samples.count("\n") == 1  # the untrained base has answered
    large = [name for name, content in check.files.items() if content is None]
    assert large == ["model.safetensors"]
    facts = facts_of(
        FULL,
        eval_loss=loss,
        base_eval_loss=whole.eval_losses[0],
        end_of_turn=small_packs.end_of_turn,
        chat_format=small_packs.manifest["chat_format"],
        packs=small_packs.root,
    )
    _write(facts, check, checkpoint, str(folder))
    return folder


def test_the_bundle_is_a_whole_model_that_loads_as_sftray_says(
    bundle: Path, whole: Run, small_packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["best", str(bundle.parent)])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"\nmodel: {bundle}\n" in said
    code = said[said.index("from transformers import AutoModelForCausalLM") : said.index("\nvLLM")]
    card = model_card(BundleFacts.read(str(bundle)))
    assert "library_name: transformers" in card
    assert "| this model, reloaded with plain transformers |" in card
    assert "AutoPeftModel" not in card
    names: dict[str, Any] = {}
    exec(code, names)
    rows = small_packs.dataset("eval")
    loss = packed_eval_loss(names["model"].eval(), rows, possible_attentions(FULL, CPU)[0], FULL)
    assert loss == pytest.approx(json.loads((bundle / "sweep.json").read_text())["eval_loss"])
    ends = names["model"].generation_config.eos_token_id
    assert small_packs.end_of_turn in (ends if isinstance(ends, list) else [ends])
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    assert tokenizer.chat_template == small_packs.chat_template


def test_base_and_model_answer_and_there_is_nothing_to_merge(bundle: Path, tmp_path: Path) -> None:
    said = answer(str(bundle), "What is 3 plus 4?", max_new_tokens=6)
    assert said.keys() == {"base", "model"}
    assert said["base"] != said["model"]
    with pytest.raises(SftrayError, match="there is nothing to merge"):
        merge(str(bundle), str(tmp_path / "merged"), log=lambda line: None)
