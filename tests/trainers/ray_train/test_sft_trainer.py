"""One trial on the bundled base, on the CPU: what it computes, what it keeps, how it goes on."""

from __future__ import annotations

import contextlib
import functools
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import damages
from more_cases import shortened
from packs_here import build_packs_here
from peft import get_peft_model
from reported import into
from torch import nn
from torch.nn import functional

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.demo import FOLDER
from sftray.errors import CheckpointError
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import TrialPlan, plan_trial
from sftray.storage import files
from sftray.storage.paths import TrialPaths
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trainers.ray_train.base_cache import Bases
from sftray.trainers.ray_train.sft_trainer import PackedSFTTrainer
from sftray.trial import checkpoint as checkpoints
from sftray.trial.attention import Attention, possible_attentions, use_attention
from sftray.trial.base_model import load_base, load_tokenizer
from sftray.trial.collate import collate
from sftray.trial.eval_loss import evaluate_adapter, packed_eval_loss
from sftray.trial.isolation import prove_isolation
from sftray.trial.lora_adapter import (
    init_adapters,
    lora_config,
    require_float32,
    trained_parameters,
)
from sftray.trial.progress import StoppedError
from sftray.trial.row_order import row_stream
from sftray.trial.samples import read_samples
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SHARED = Path(__file__).parents[4] / "shared"
TRIAL = TrialConfig(
    str(FOLDER),
    base_precision="fp32",
    learning_rate=4e-3,
    effective_batch_size=2,
    num_train_epochs=0.5,
    lora_r=4,
)
DROPOUT = replace(TRIAL, lora_dropout=0.1)
EVALS = 3


class KilledError(Exception):
    """Stands for the end of a process."""


@dataclass
class Run:
    """What a trial reported, and where it wrote."""

    reports: list[dict[str, Any]]
    paths: TrialPaths

    @property
    def losses(self) -> dict[int, float]:
        """Train loss by step."""
        return {entry[0]: entry[1] for report in self.reports for entry in report.get("curve", [])}

    @property
    def eval_losses(self) -> dict[int, float]:
        return {report["step"]: report["eval_loss"] for report in self.reports}

    @property
    def outcome(self) -> str | None:
        return self.reports[-1].get("outcome")


def plan_of(trial: TrialConfig, packs: Packs, micro: int = 2) -> TrialPlan:
    rows = packs.rows("train")
    return plan_trial(trial, rows, ladder=(), evals_per_trial=EVALS, execution=Execution(micro))


def run(
    trial: TrialConfig,
    packs: Packs,
    folder: Path,
    *,
    micro: int = 2,
    killed_at: int | None = None,
    samples: int = 0,
    sample_at: str = "end",
) -> Run:
    """Run a trial, or continue it; it is killed by its report of step `killed_at`."""
    reports: list[dict[str, Any]] = []

    def report(one: Report) -> None:
        reports.append(one.values())
        if one.metrics["step"] == killed_at:
            raise KilledError

    plan = plan_of(trial, packs, micro)
    spec = TrialSpec(
        "t0000", trial, plan, packs.root, str(folder), None, samples, sample_at=sample_at
    )
    try:
        run_trial(spec, report, CPU)
    except KilledError:
        assert killed_at is not None
    return Run(reports, TrialPaths(str(folder)))


def make_trainer(trial: TrialConfig, packs: Packs, folder: Path, micro: int = 2) -> Any:
    attention = possible_attentions(trial, CPU)[0]
    model = load_base(trial, CPU)
    use_attention(model, attention)
    return PackedSFTTrainer(
        model,
        load_tokenizer(trial, packs.chat_template),
        trial,
        plan_of(trial, packs, micro),
        packs,
        attention,
        TrialPaths(str(folder / "trial")),
        lambda report: None,
        folder,
    )


@pytest.fixture(scope="module")
def whole(small_packs: Packs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trial with dropout that was never interrupted."""
    return run(DROPOUT, small_packs, tmp_path_factory.mktemp("whole"), samples=2)


@pytest.fixture(scope="module")
def base() -> Any:
    return load_base(TRIAL, CPU).eval()


# what a trial computes


def test_a_trial_reports_every_evaluation_of_its_plan(whole: Run, small_packs: Packs) -> None:
    plan = plan_of(DROPOUT, small_packs)
    assert [report["step"] for report in whole.reports] == [0, *plan.eval_steps, plan.steps]
    assert whole.outcome == "completed"
    assert list(whole.losses) == list(range(1, plan.steps + 1))
    last = whole.reports[-1]
    assert last["rows"] == plan.rows
    assert 0 < last["supervised_tokens"] < last["tokens"] <= plan.rows * small_packs.max_length
    assert last["eval_loss"] < whole.eval_losses[0] - 0.5  # it has learned


def test_tokens_are_those_of_the_rows_that_were_trained_on(whole: Run, small_packs: Packs) -> None:
    rows = small_packs.dataset("train").with_format("numpy")
    order = row_stream(len(rows), len(rows), DROPOUT.seed)
    for report in whole.reports[1:]:
        seen = [rows[int(i)] for i in order[: report["rows"]]]
        assert report["supervised_tokens"] == sum((row["labels"] != -100).sum() for row in seen)
        documents = [row["seq_lengths"][: len(row["documents"])].sum() for row in seen]
        assert report["tokens"] == sum(documents)


def test_the_first_step_takes_the_first_rows_of_the_stream(
    base: Any, small_packs: Packs, tmp_path: Path
) -> None:
    # an untrained adapter is the base, so the loss of step 1 is the base's on rows 0 … B-1
    first = run(TRIAL, small_packs, tmp_path, killed_at=4)
    rows = small_packs.dataset("train")
    taken = rows.select(row_stream(len(rows), TRIAL.effective_batch_size, TRIAL.seed))
    expected = packed_eval_loss(base, taken, possible_attentions(TRIAL, CPU)[0], TRIAL)
    assert first.losses[1] == pytest.approx(expected, abs=1e-5)


def test_learning_rate_rises_then_falls_along_a_cosine(whole: Run, small_packs: Packs) -> None:
    plan = plan_of(DROPOUT, small_packs)
    rates = [entry[2] for report in whole.reports for entry in report.get("curve", [])]
    steps = np.arange(plan.steps)
    falling = (steps - plan.warmup_steps) / (plan.steps - plan.warmup_steps)
    expected = np.where(
        steps < plan.warmup_steps,
        steps / plan.warmup_steps,
        0.5 * (1 + np.cos(np.pi * falling)),
    )
    assert rates == pytest.approx((DROPOUT.learning_rate * expected).tolist(), abs=1e-9)


@pytest.mark.parametrize("micro", [1, 4])
def test_eval_loss_is_exact_and_does_not_depend_on_the_micro_batch(
    base: Any, small_packs: Packs, tmp_path: Path, micro: int
) -> None:
    trial = replace(TRIAL, effective_batch_size=4, num_train_epochs=1)
    begun = run(trial, small_packs, tmp_path, micro=micro, killed_at=0)
    rows = small_packs.dataset("eval")
    total, count = 0.0, 0
    for row in rows.with_format("numpy"):
        inputs = collate([row], "stacked")
        labels = inputs.pop("labels")[0, 1:]
        with torch.no_grad():
            logits = base(**inputs, use_cache=False).logits[0, :-1]
        total += float(functional.cross_entropy(logits, labels, reduction="sum"))
        count += int((labels != -100).sum())
    assert begun.eval_losses[0] == pytest.approx(total / count, abs=2e-6)


def test_the_kept_adapter_gives_the_reported_loss_under_plain_peft(
    whole: Run, small_packs: Packs
) -> None:
    best = min((loss, step) for step, loss in whole.eval_losses.items() if step)
    again = evaluate_adapter(
        Path(whole.paths.checkpoint(best[1])), DROPOUT, small_packs.dataset("eval")
    )
    assert again == pytest.approx(best[0], abs=1e-5)


@pytest.mark.exhaustive
def test_losses_do_not_depend_on_the_micro_batch(small_packs: Packs, tmp_path: Path) -> None:
    one = run(TRIAL, small_packs, tmp_path / "one", micro=1, killed_at=4)
    two = run(TRIAL, small_packs, tmp_path / "two", micro=2, killed_at=4)
    assert one.losses == pytest.approx(two.losses, abs=1e-5)
    assert one.eval_losses == pytest.approx(two.eval_losses, abs=1e-5)


def test_losses_are_the_same_with_the_documents_of_a_row_apart(
    small_packs: Packs, tmp_path: Path
) -> None:
    packed = run(TRIAL, small_packs, tmp_path / "packed", killed_at=4)
    apart = run(replace(TRIAL, attention="apart"), small_packs, tmp_path / "apart", killed_at=4)
    assert apart.reports[0]["attention"] == "apart"
    assert apart.losses == pytest.approx(packed.losses, abs=1e-5)
    assert apart.eval_losses == pytest.approx(packed.eval_losses, abs=1e-5)


def test_activation_checkpointing_changes_nothing_but_memory(
    small_packs: Packs, whole: Run, tmp_path: Path
) -> None:
    trial = replace(DROPOUT, activation_checkpointing=True)
    first = plan_of(trial, small_packs).eval_steps[0]
    recomputed = run(trial, small_packs, tmp_path, killed_at=first)
    assert recomputed.reports[0]["activation_checkpointing"] is True
    assert recomputed.losses == pytest.approx(
        {step: loss for step, loss in whole.losses.items() if step <= first}, abs=1e-5
    )


@pytest.mark.exhaustive
def test_a_trial_calls_nothing_that_a_library_gives_up(small_packs: Packs, tmp_path: Path) -> None:
    plan = plan_of(TRIAL, small_packs)
    plan = replace(plan, execution=replace(plan.execution, activation_checkpointing=True))
    bases = Bases()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.filterwarnings("error", category=DeprecationWarning, module=r"sftray\.")
        for name in ("t0000", "t0001"):  # the second on the base that the first has kept
            spec = TrialSpec(name, TRIAL, plan, small_packs.root, str(tmp_path / name), None, 1)
            run_trial(spec, lambda report: None, CPU, bases)


def test_samples_are_answers_to_held_out_prompts(whole: Run, small_packs: Packs) -> None:
    samples = read_samples(whole.paths.samples)
    prompts = small_packs.manifest["sample_prompts"]
    assert [s["messages"] for s in samples] == [p["messages"] for p in prompts[:2]]
    assert all(isinstance(sample["answer"], str) and sample["reference"] for sample in samples)
    assert whole.reports[-1]["answer_flags"] == [sample["flags"] for sample in samples]


# documents never see each other


def conversations(name: str) -> list[dict[str, Any]]:
    file = {"chats": FOLDER / "chats.jsonl", "gsm8k": SHARED / "data" / "gsm8k_train.jsonl"}[name]
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    with open(file, encoding="utf-8") as lines:
        return [json.loads(next(lines)) for _ in range(51)]


@pytest.mark.parametrize("name", ["chats", "gsm8k"])
def test_the_packed_loss_of_50_conversations_is_their_loss_one_by_one(
    base: Any, tmp_path: Path, name: str
) -> None:
    *rows, another = conversations(name)
    source, trained_on = tmp_path / "fifty.jsonl", tmp_path / "another.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    trained_on.write_text(json.dumps(another) + "\n", encoding="utf-8")
    data = DataConfig(str(trained_on), eval_source=str(source), max_length=1024)
    packs = build_packs_here(data, str(FOLDER), storage=str(tmp_path))
    counts = packs.manifest["splits"]["eval"]
    assert counts["conversations"] == 50
    assert counts["rows"] < 25  # they do share rows

    tokenizer = load_tokenizer(TRIAL, packs.chat_template)
    total, count = 0.0, 0
    for row in rows:
        encoded = tokenizer.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        tokens = torch.tensor([encoded["input_ids"]])
        trained = torch.tensor(encoded["assistant_masks"]).bool()[1:]
        with torch.no_grad():
            logits = base(input_ids=tokens, use_cache=False).logits[0, :-1]
        losses = functional.cross_entropy(logits[trained], tokens[0, 1:][trained], reduction="sum")
        total, count = total + float(losses), count + int(trained.sum())
    assert counts["supervised_tokens"] == count
    packed = packed_eval_loss(
        base, packs.dataset("eval"), possible_attentions(TRIAL, CPU)[0], TRIAL
    )
    assert packed == pytest.approx(total / count, abs=1e-4)


def test_changing_one_document_of_a_row_leaves_all_others_unchanged(
    base: Any, small_packs: Packs
) -> None:
    rows = small_packs.dataset("train").with_format("numpy")
    row = max(rows, key=lambda row: len(row["documents"]))
    starts = np.cumsum([0, *row["seq_lengths"]])
    before = logits_of(base, row)
    for changed in range(len(row["documents"])):
        inside = np.zeros(len(row["input_ids"]), dtype=bool)
        inside[starts[changed] : starts[changed + 1]] = True
        other = np.where(inside, (row["input_ids"] + 1) % 1000, row["input_ids"])
        after = logits_of(base, {**row, "input_ids": other})
        outside = torch.from_numpy(~inside)
        assert after[outside].equal(before[outside])  # bit for bit
        assert not after[~outside].equal(before[~outside])


@torch.no_grad()
def logits_of(model: Any, row: dict[str, Any]) -> torch.Tensor:
    inputs = collate([row], "stacked")
    del inputs["labels"]
    logits: torch.Tensor = model(**inputs, use_cache=False).logits[0]
    return logits


class Leaky(nn.Module):
    """A base whose documents see each other: it is told of no boundaries."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def config(self) -> Any:
        return self.model.config

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, **rest: Any) -> Any:
        return self.model(input_ids=input_ids, **rest)


def test_an_attention_that_leaks_is_refused(base: Any) -> None:
    attention = possible_attentions(TRIAL, CPU)[0]
    assert prove_isolation(base, attention, contextlib.nullcontext) == 0.0
    with pytest.raises(RuntimeError, match="'sdpa' lets the documents of a packed row see each"):
        prove_isolation(Leaky(base), attention, contextlib.nullcontext)


def test_the_proof_leaves_the_model_in_its_mode(base: Any) -> None:
    model = nn.Sequential(nn.Dropout())  # a mode of its own
    assert model.training
    base.train()
    prove_isolation(base, Attention("sdpa", "sdpa", "stacked"), contextlib.nullcontext)
    assert base.training
    base.eval()


# what is trained


def test_only_adapters_are_trained_and_the_base_stays_bit_identical(
    small_packs: Packs, tmp_path: Path
) -> None:
    trainer = make_trainer(replace(TRIAL, base_precision="nf4"), small_packs, tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train_from(None)
    moved = {n for n, p in trainer.model.named_parameters() if not p.detach().equal(before[n])}
    assert moved == set(trained_parameters(trainer.model))
    assert all("lora_" in name for name in moved)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_adapters_are_float32_on_any_base(
    small_packs: Packs, tmp_path: Path, precision: str
) -> None:
    trainer = make_trainer(replace(TRIAL, base_precision=precision), small_packs, tmp_path)
    require_float32(trainer.model)
    optimized = trainer.create_optimizer().param_groups[0]["params"]
    assert {parameter.dtype for parameter in optimized} == {torch.float32}


@pytest.mark.exhaustive
def test_adapters_are_float32_after_a_resume(small_packs: Packs, tmp_path: Path) -> None:
    trial = replace(TRIAL, base_precision="nf4")
    killed = run(trial, small_packs, tmp_path / "trial", killed_at=8)
    checkpoint = checkpoints.newest(killed.paths, tmp_path)
    assert checkpoint is not None
    trainer = make_trainer(trial, small_packs, tmp_path)
    trainer.progress.resume(checkpoint.state)
    trainer.train_from(checkpoint)
    require_float32(trainer.model)
    moments = [m for s in trainer.optimizer.optimizer.state.values() for m in s.values()]
    assert {moment.dtype for moment in moments} == {torch.float32}


def test_an_optimizer_is_never_made_over_adapters_that_are_not_float32(base: Any) -> None:
    model = get_peft_model(load_base(TRIAL, CPU), lora_config(TRIAL))
    next(iter(trained_parameters(model).values())).data = torch.zeros(1, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="1 trained weights are not float32"):
        require_float32(model)


def test_adapters_start_the_same_whatever_was_drawn_before() -> None:
    def adapters(seed: int) -> dict[str, torch.Tensor]:
        model = load_base(TRIAL, CPU)
        model = get_peft_model(model, lora_config(TRIAL))
        init_adapters(model, seed)
        return {name: p.detach() for name, p in trained_parameters(model).items()}

    torch.manual_seed(1)
    first = adapters(seed=0)
    torch.manual_seed(2)
    second, other = adapters(seed=0), adapters(seed=1)
    assert all(first[name].equal(second[name]) for name in first)
    assert all(first[n].equal(other[n]) == ("lora_B" in n) for n in first)
    assert all(bool((first[name] == 0).all()) == ("lora_B" in name) for name in first)


def test_an_evaluation_takes_no_gradient_from_a_4bit_base(small_packs: Packs) -> None:
    # pitfall P41: on some CPUs the first no-grad forward repacks Linear4bit for inference
    trial = replace(TRIAL, base_precision="nf4")
    attention = possible_attentions(trial, CPU)[0]
    model = load_base(trial, CPU)
    rows = small_packs.dataset("eval")

    def input_gradients() -> torch.Tensor:
        inputs = collate([rows.with_format("numpy")[0]], "stacked")
        embedded = model.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()
        model.train()(inputs_embeds=embedded, **inputs).loss.backward()
        assert embedded.grad is not None
        return embedded.grad

    before = input_gradients()
    assert before.abs().max() > 0
    packed_eval_loss(model.eval(), rows, attention, trial)
    assert input_gradients().equal(before)


# how it goes on, and how it ends


def test_a_killed_trial_ends_with_the_losses_of_one_that_was_not(
    whole: Run, small_packs: Packs, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"samples": 2, "sample_at": "evaluations"}  # which changes no loss
    killed = run(DROPOUT, small_packs, tmp_path, killed_at=8, **asked)
    again = run(DROPOUT, small_packs, tmp_path, **asked)
    assert [report["step"] for report in again.reports if "resumed_from_step" in report] == [8]
    assert again.outcome == "completed"
    losses = killed.losses | again.losses
    assert losses == pytest.approx(whole.losses, abs=1e-6)
    assert killed.eval_losses | again.eval_losses == pytest.approx(whole.eval_losses, abs=1e-6)
    for name in ("tokens", "supervised_tokens", "rows"):
        assert again.reports[-1][name] == whole.reports[-1][name]
    samples, steps = read_samples(again.paths.samples), plan_of(DROPOUT, small_packs).eval_steps
    assert [one["step"] for one in samples] == np.repeat(steps, 2).tolist()
    assert samples[-2:] == read_samples(whole.paths.samples)
    flags = [one["flags"] for one in samples if one["step"] == 8]
    assert killed.reports[-1]["answer_flags"] == flags


@pytest.mark.exhaustive
def test_a_trial_goes_on_from_where_it_was_saved_between_two_evaluations(
    whole: Run, small_packs: Packs, tmp_path: Path
) -> None:
    def report(one: Report) -> None:
        if one.metrics["step"] >= 8:
            raise KilledError

    spec = TrialSpec(
        "t0000", DROPOUT, plan_of(DROPOUT, small_packs), small_packs.root, str(tmp_path), None, 0
    )
    with contextlib.suppress(KilledError):
        run_trial(spec, report, CPU, stepped=lambda: True)
    paths = TrialPaths(spec.folder)
    files.remove(paths.checkpoint(8))
    kept = checkpoints.newest(paths, tmp_path / "scratch")
    assert kept is not None
    assert kept.step not in spec.plan.eval_steps
    again = run(DROPOUT, small_packs, tmp_path)
    assert [r["resumed_from_step"] for r in again.reports if "resumed_from_step" in r] == [
        kept.step
    ]
    after = {step: loss for step, loss in whole.losses.items() if step > 4}
    assert {s: loss for s, loss in again.losses.items() if s > 4} == pytest.approx(after, abs=1e-6)
    assert again.eval_losses == pytest.approx(whole.eval_losses, abs=1e-6)


@pytest.mark.exhaustive
def test_evaluations_that_died_on_their_way_to_the_journal_are_reported_again(
    whole: Run, small_packs: Packs, tmp_path: Path
) -> None:
    run(DROPOUT, small_packs, tmp_path, killed_at=8)  # none of its reports was journalled
    again = run(DROPOUT, small_packs, tmp_path)
    rungs = [rung.step for rung in plan_of(DROPOUT, small_packs, 2).rungs if rung.step < 8]
    since = max(rungs, default=-1)  # where it waits until the journal has the report
    expected = {step: loss for step, loss in whole.eval_losses.items() if step > since}
    assert again.eval_losses == pytest.approx(expected, abs=1e-6)
    steps = [report["step"] for report in again.reports]
    assert steps == sorted(steps)


@pytest.mark.exhaustive
def test_a_killed_trial_goes_on_at_the_next_row_with_half_the_micro_batch(
    small_packs: Packs, tmp_path: Path
) -> None:
    full = run(TRIAL, small_packs, tmp_path / "full")
    run(TRIAL, small_packs, tmp_path / "cut", micro=2, killed_at=4)
    again = run(TRIAL, small_packs, tmp_path / "cut", micro=1)
    assert {report["micro_batch_size"] for report in again.reports if report["step"] > 4} == {1}
    after = {step: loss for step, loss in full.losses.items() if step > 4}
    assert {s: loss for s, loss in again.losses.items() if s > 4} == pytest.approx(after, abs=1e-4)
    assert again.reports[-1]["eval_loss"] == pytest.approx(full.reports[-1]["eval_loss"], abs=1e-4)


@pytest.mark.exhaustive
def test_a_trial_with_a_damaged_checkpoint_starts_anew(small_packs: Packs, tmp_path: Path) -> None:
    killed = run(DROPOUT, small_packs, tmp_path, killed_at=4)
    folder = Path(killed.paths.checkpoint(4))
    spoil(folder, "truncated")
    again = run(DROPOUT, small_packs, tmp_path, killed_at=4)
    assert "resumed_from_step" not in again.reports[0]
    assert again.losses == killed.losses
    assert checkpoints.read(str(folder), tmp_path / "scratch").step == 4  # and it is whole now


def spoil(folder: Path, damage: str) -> None:
    optimizer = folder / checkpoints.OPTIMIZER
    match damage:
        case "truncated":
            optimizer.write_bytes(optimizer.read_bytes()[:-1])
        case "missing":
            optimizer.unlink()
        case "no manifest":
            (folder / checkpoints.MANIFEST).unlink()


@dataclass
class Saved:
    """An adapter that has taken one step, and what saves its checkpoints."""

    save: functools.partial[None]
    model: Any
    optimizer: torch.optim.Optimizer


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    model = get_peft_model(load_base(TRIAL, CPU), lora_config(TRIAL))
    init_adapters(model, seed=0)
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-3)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    adapter, moments = checkpoints.tensors(model, optimizer)
    config = model.peft_config["default"]
    save = functools.partial(checkpoints.save, TrialPaths(str(tmp_path)), config, adapter, moments)
    return Saved(save, model, optimizer)


def test_the_last_two_and_the_best_checkpoint_are_kept(saved: Saved, tmp_path: Path) -> None:
    paths = TrialPaths(str(tmp_path))
    kept = []
    for step, best in [(4, 4), (8, 4), (12, 4), (16, 4), (20, 20)]:
        saved.save({"step": step, "best": {"step": best, "eval_loss": 1.0}})
        kept.append([int(name[5:]) for name in files.list_names(paths.checkpoints)])
    assert kept == [[4], [4, 8], [4, 8, 12], [4, 12, 16], [16, 20]]


def test_the_newest_checkpoint_that_is_whole_is_taken(saved: Saved, tmp_path: Path) -> None:
    paths, scratch = TrialPaths(str(tmp_path)), tmp_path / "scratch"
    assert checkpoints.newest(paths, scratch) is None
    for step in (4, 8):
        saved.save({"step": step, "best": {"step": 4, "eval_loss": 1.0}})
    found = checkpoints.newest(paths, scratch)
    assert found is not None
    assert found.step == 8


@pytest.mark.parametrize("name", [*checkpoints.FILES, checkpoints.MANIFEST])
def test_a_checkpoint_with_any_file_damaged_is_passed_over_for_the_one_before(
    saved: Saved, tmp_path: Path, name: str
) -> None:
    paths, scratch = TrialPaths(str(tmp_path)), tmp_path / "scratch"
    for step in (4, 8):
        saved.save({"step": step, "best": {"step": 8, "eval_loss": 1.0}})
    file = Path(paths.checkpoint(8), name)
    for damage in damages(file.read_bytes()):
        whole = file.read_bytes()
        file.unlink()
        if damage is not None:
            file.write_bytes(damage)
        with pytest.raises(CheckpointError, match="step-0000008"):
            checkpoints.read(paths.checkpoint(8), scratch)
        found = checkpoints.newest(paths, scratch)
        assert found is not None
        assert found.step == 4
        file.write_bytes(whole)
    assert checkpoints.read(paths.checkpoint(8), scratch).step == 8


def test_moments_come_back_as_they_were(saved: Saved, tmp_path: Path) -> None:
    saved.save({"step": 4, "best": {"step": 4, "eval_loss": 1.0}})
    model, optimizer = saved.model, saved.optimizer
    checkpoint = checkpoints.read(TrialPaths(str(tmp_path)).checkpoint(4), tmp_path / "scratch")
    fresh = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-3)
    checkpoints.load_moments(model, fresh, checkpoint)
    for parameter, state in optimizer.state.items():
        assert fresh.state[parameter].keys() == state.keys()
        assert all(fresh.state[parameter][name].equal(state[name]) for name in state)


def test_the_checkpoint_of_another_rank_is_refused(saved: Saved, tmp_path: Path) -> None:
    saved.save({"step": 4, "best": {"step": 4, "eval_loss": 1.0}})
    checkpoint = checkpoints.read(TrialPaths(str(tmp_path)).checkpoint(4), tmp_path / "scratch")
    other = replace(TRIAL, lora_r=8)
    model = get_peft_model(load_base(other, CPU), lora_config(other))
    with pytest.raises(CheckpointError, match="holds another adapter than this trial's"):
        checkpoints.load_adapter(model, checkpoint)


def test_a_trial_that_blows_up_ends_as_diverged_and_says_where(
    small_packs: Packs, tmp_path: Path
) -> None:
    trial = replace(TRIAL, learning_rate=1e30, warmup_ratio=0.0)
    ended = run(trial, small_packs, tmp_path)
    assert ended.outcome == "diverged"
    message = ended.reports[-1]["message"]
    assert message.startswith("step 2: loss nan, gradient norm nan at learning rate ")
    assert "rows 2 to 3, after " in message


@pytest.mark.parametrize("changes", shortened([{"base_precision": "nf4"}, {}]))
def test_a_base_that_was_used_before_trains_as_one_loaded_anew(
    small_packs: Packs, tmp_path: Path, changes: dict[str, Any]
) -> None:
    trial = replace(DROPOUT, num_train_epochs=0.45, **changes)
    other = replace(trial, learning_rate=1e-2, lora_r=8, lora_dropout=0.0)
    bases, losses = Bases(), []
    for name, config, kept in (
        ("fresh", trial, None),
        ("before", replace(other, activation_checkpointing=True), bases),
        ("after", trial, bases),
    ):
        reports: list[dict[str, Any]] = []
        execution = Execution(2, resident=True)
        plan = plan_trial(
            config, small_packs.rows("train"), ladder=(), evals_per_trial=2, execution=execution
        )
        spec = TrialSpec(name, config, plan, small_packs.root, str(tmp_path / name), None, 0)
        run_trial(spec, into(reports), CPU, kept)
        losses.append(Run(reports, TrialPaths(spec.folder)).losses)
    fresh, _, after = losses
    assert fresh == after


def test_a_trial_that_was_stopped_leaves_its_base(small_packs: Packs, tmp_path: Path) -> None:
    bases, model = Bases(), []

    def stop(report: Report) -> None:
        model.append(report.metrics["startup_seconds"])
        raise StoppedError

    for name in ("first", "second"):
        plan = plan_of(TRIAL, small_packs)
        spec = TrialSpec(name, TRIAL, plan, small_packs.root, str(tmp_path / name), None)
        with pytest.raises(StoppedError):
            run_trial(spec, stop, CPU, bases)
    assert bases.take(TRIAL, CPU, small_packs.max_length, resident=False)[1].isolation == 0
    assert len(model) == 2


class Full:
    """A GPU that has room for so many rows at once, or for more under activation checkpointing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int, *, from_step: int = 0) -> None:
        self._rows, self._from_step = rows, from_step
        plain = PackedSFTTrainer.compute_loss

        def compute_loss(trainer: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            held = trainer.plan.micro_batch_size
            held *= 1 if trainer.plan.execution.activation_checkpointing else 2
            if held > 2 * self._rows and trainer.state.global_step >= self._from_step:
                raise torch.OutOfMemoryError(f"CUDA out of memory: {held} rows")
            return plain(trainer, model, inputs, *rest, **named)

        monkeypatch.setattr(PackedSFTTrainer, "compute_loss", compute_loss)


FOUR = replace(TRIAL, effective_batch_size=4, num_train_epochs=1.0)


@pytest.fixture(scope="module")
def four(small_packs: Packs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trial that fits."""
    return run(FOUR, small_packs, tmp_path_factory.mktemp("four"), micro=4)


def test_a_trial_without_memory_halves_its_micro_batch_and_keeps_its_batch(
    four: Run, small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Full(monkeypatch, rows=1)
    short = run(FOUR, small_packs, tmp_path, micro=4)
    assert short.outcome == "completed"
    assert short.losses == pytest.approx(four.losses, abs=1e-4)
    assert short.eval_losses == pytest.approx(four.eval_losses, abs=1e-4)
    told = [report for report in short.reports if "out_of_memory" in report][-1]
    assert told["out_of_memory"] == "CUDA out of memory: 4 rows"
    assert (told["micro_batch_size"], told["accumulation"]) == (1, 4)
    assert short.reports[-1]["micro_batch_size"] == 1


@pytest.mark.exhaustive
def test_a_trial_that_runs_out_of_memory_later_goes_on_at_the_step_it_was_at(
    four: Run, small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = plan_of(FOUR, small_packs, 4).eval_steps[0]
    Full(monkeypatch, rows=2, from_step=evaluated + 2)
    short = run(FOUR, small_packs, tmp_path, micro=4)
    steps = [entry[0] for report in short.reports for entry in report.get("curve", [])]
    assert steps == sorted(set(steps))  # none was taken twice, none is missing
    assert short.losses == pytest.approx(four.losses, abs=1e-4)
    assert short.eval_losses == pytest.approx(four.eval_losses, abs=1e-4)
    told = [report["step"] for report in short.reports if "out_of_memory" in report]
    assert told == [plan_of(FOUR, small_packs, 4).eval_steps[1]]
    assert short.reports[-1]["micro_batch_size"] == 2


def test_at_one_row_activations_are_recomputed_and_then_the_trial_ends(
    small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Full(monkeypatch, rows=0)
    ended = run(FOUR, small_packs, tmp_path, micro=2)
    assert ended.outcome == "out_of_memory"
    kept = json.loads(Path(ended.paths.execution).read_text(encoding="utf-8"))
    assert kept["execution"] == {
        "micro_batch_size": 1,
        "activation_checkpointing": True,
        "resident": False,
    }


@pytest.mark.exhaustive
def test_a_trial_that_is_started_again_begins_with_what_fits(
    small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Full(monkeypatch, rows=2)
    first = plan_of(FOUR, small_packs, 4).eval_steps[0]
    run(FOUR, small_packs, tmp_path, micro=4, killed_at=first)
    monkeypatch.undo()
    again = run(FOUR, small_packs, tmp_path, micro=4)
    (resumed,) = (report for report in again.reports if "resumed_from_step" in report)
    assert resumed["resumed_from_step"] == first
    assert resumed["micro_batch_size"] == 2
    assert resumed["out_of_memory"] == "CUDA out of memory: 8 rows"


@pytest.mark.exhaustive
def test_an_error_that_is_not_about_memory_is_not_caught(
    small_packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute_loss(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(PackedSFTTrainer, "compute_loss", compute_loss)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(FOUR, small_packs, tmp_path)
