"""The bank on a GPU: CUDA graphs against eager steps, isolation, and the `train` trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reported import into
from torch.nn.attention import SDPBackend, sdpa_kernel

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.packs import MappedRows, Packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe
from sftray.demo import FOLDER
from sftray.plan.bank_settings import BankSettings
from sftray.plan.effective_batch import Execution
from sftray.plan.model_shape import PROJECTIONS
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.adapters import Adapters, fresh_row, lay_out
from sftray.trainers.bank.batches import read_row
from sftray.trainers.bank.cuda_graphs import Graphs
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.evaluation import EvalPass
from sftray.trainers.bank.frozen_base import load_model, take_base
from sftray.trainers.bank.greedy_answers import LOOKS, greedy_answers
from sftray.trainers.bank.micro_steps import Steps, capacities
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trial.base_model import load_tokenizer
from sftray.trial.trial_spec import TrialSpec

pytestmark = pytest.mark.gpu

TRIAL = TrialConfig(str(FOLDER), learning_rate=4e-3, effective_batch_size=2, lora_r=8)
FP8 = replace(TRIAL, base_precision="fp8")
SLOTS = 4
GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def packs(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Packs:
    data = DataConfig(
        str(FOLDER / "chats.jsonl"), max_length=512, num_eval_conversations=50, eval_fraction=0.02
    )
    return packs_from(
        make_recipe(data, str(FOLDER)), storage=str(tmp_path_factory.mktemp("storage"))
    )


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("attention", "recompute", "trial"),
    [(None, False, TRIAL), (None, True, TRIAL), ("sdpa", False, TRIAL), (None, False, FP8)],
)
def test_replayed_graphs_equal_eager_steps_over_100_batches(
    packs: Packs, deterministic: None, attention: str | None, recompute: bool, trial: TrialConfig
) -> None:
    rows = MappedRows(packs.dataset("train"))
    sizes = capacities(rows, SLOTS)
    decoder, eager = _bank(packs.max_length, attention=attention, trial=trial)
    _, captured = _bank(packs.max_length, decoder)
    losses = [torch.zeros(SLOTS, device=GPU) for _ in range(2)]
    both = [
        Steps(
            decoder,
            adapters,
            loss,
            rows=1,
            recompute=recompute,
            capacities=sizes,
            graphs=graphs,
        )
        for adapters, loss, graphs in zip((eager, captured), losses, (None, Graphs()), strict=True)
    ]
    with sdpa_kernel(SDPBackend.MATH):  # cuDNN's backward pass never gives the same bits twice
        for number in range(100):
            batch = [read_row(rows[(number * SLOTS + k) % len(rows)]) for k in range(SLOTS)]
            for steps in both:
                steps.run(batch)
            assert torch.equal(losses[0], losses[1]), number
            assert torch.equal(eager.grad, captured.grad), number
    assert float(losses[0].min()) > 0


@pytest.mark.parametrize("attention", [None, "varlen", "sdpa"])
def test_a_replayed_evaluation_equals_the_eager_one(packs: Packs, attention: str | None) -> None:
    decoder, adapters = _bank(packs.max_length, attention=attention)
    rows, sources = MappedRows(packs.dataset("eval")), packs.source_rows("eval")
    eager, replayed = (
        EvalPass(decoder, rows, sources, 3, graphs).losses(adapters.work)
        for graphs in (None, Graphs())
    )
    assert eager == replayed
    assert len({loss.mean for loss in eager}) == SLOTS


def test_recorded_passes_answer_what_eager_ones_do(packs: Packs) -> None:
    decoder, adapters = _bank(packs.max_length)
    tokenizer = load_tokenizer(TRIAL, packs.chat_template)
    prompts = [one["input_ids"] for one in packs.manifest["sample_prompts"][:8]]
    eager, recorded = (
        greedy_answers(decoder, adapters.work, tokenizer, prompts, [packs.end_of_turn], most)
        for most in (LOOKS, 4 * LOOKS)
    )
    for short, long in zip(eager, recorded, strict=True):
        assert all(b.startswith(a) for (a, _), (b, _) in zip(short, long, strict=True))
    assert any(len(b) > len(a) for (a, _), (b, _) in zip(eager[0], recorded[0], strict=True))


def test_a_slot_that_is_not_a_number_leaves_the_others_bit_identical(
    packs: Packs, deterministic: None, tmp_path: Path
) -> None:
    good = _spec(packs, TRIAL, tmp_path / "alone")
    alone = _run_bank(packs, [good])[0]
    bad = replace(TRIAL, learning_rate=1e30, warmup_ratio=0.0)
    beside, diverged = _run_bank(
        packs, [_spec(packs, TRIAL, tmp_path / "beside"), _spec(packs, bad, tmp_path / "bad")]
    )
    assert diverged[-1]["outcome"] == "diverged"
    assert [r["eval_loss"] for r in alone] == [r["eval_loss"] for r in beside]
    assert alone[-1]["outcome"] == "completed"


@pytest.mark.parametrize("trial", [TRIAL, FP8], ids=["nf4", "fp8"])
def test_a_trial_learns_in_the_bank_what_it_learns_by_sfttrainer(
    packs: Packs, tmp_path: Path, trial: TrialConfig
) -> None:
    spec = _spec(packs, replace(trial, num_train_epochs=0.5), tmp_path / "bank")
    by_bank = _run_bank(packs, [spec])[0]
    expected: list[dict[str, Any]] = []
    run_trial(replace(spec, folder=str(tmp_path / "train")), into(expected), GPU)
    assert by_bank[-1]["eval_loss"] < by_bank[0]["eval_loss"] - 1
    for ours, theirs in zip(by_bank, expected, strict=True):
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=0.05)


def _bank(
    max_length: int,
    decoder: Decoder | None = None,
    attention: str | None = None,
    trial: TrialConfig = TRIAL,
) -> tuple[Decoder, Adapters]:
    """A bank of random adapters, the same every time."""
    if decoder is None:
        base = take_base(load_model(trial, GPU), torch.bfloat16, resident=True)
        layout = lay_out(base.shape, PROJECTIONS, TRIAL.lora_r)
        decoder = Decoder(base, layout, max_length, attention)
    adapters = Adapters(decoder.layout, SLOTS, torch.bfloat16, GPU)
    generator = torch.Generator().manual_seed(0)
    for slot in range(SLOTS):
        row = fresh_row(decoder.layout, TRIAL.lora_r, slot, PROJECTIONS)
        row.param[decoder.layout.split :].normal_(0, 0.02, generator=generator)
        adapters.admit(slot, row, 2.0)
    return decoder, adapters


def _spec(packs: Packs, trial: TrialConfig, folder: Path) -> TrialSpec:
    if trial.num_train_epochs == 1.0:
        trial = replace(trial, num_train_epochs=0.2)
    rows = packs.rows("train")
    plan = plan_trial(trial, rows, ladder=(), evals_per_trial=4, execution=Execution(1))
    return TrialSpec(folder.name, trial, plan, packs.root, str(folder), None, 0)


def _run_bank(packs: Packs, specs: list[TrialSpec]) -> list[list[dict[str, Any]]]:
    settings = BankSettings(
        slots=SLOTS,
        micro_batch_size=1,
        lora_r=8,
        dropout=False,
        resident=True,
        activation_checkpointing=False,
        memory_gb=0.0,
    )
    trial = specs[0].config
    engine = Engine(load_model(trial, GPU), trial, packs, settings, GPU)
    reports: list[list[dict[str, Any]]] = [[] for _ in specs]
    for spec, found in zip(specs, reports, strict=True):
        engine.admit(engine.prepare(spec, into(found)))
    while engine.advance():
        pass
    return reports
