"""One trial on several Ray Train workers is the trial on one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from packs_here import build_packs_here
from reported import into

from sftray.config import SweepConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.ray_train.attempts import run_trial
from sftray.trainers.ray_train.mailbox import Mailbox
from sftray.trainers.ray_train.train_client import WorkerConfig, _fit, _work
from sftray.trainers.report_channel import next_report
from sftray.trial.trial_report import Report
from sftray.trial.trial_spec import TrialSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


class Workers:
    """A Ray Train run, and the client of its trials."""

    def __init__(self, workers: int, work: Callable[[WorkerConfig], None] = _work) -> None:
        self.mailbox = ray.remote(Mailbox).options(num_cpus=0, max_concurrency=64).remote(1)
        resources = {"CPU": 2 / workers - 0.01}
        scaling = {"num_workers": workers, "resources_per_worker": resources}
        self.run = threading.Thread(target=_fit, args=(self.mailbox, scaling, work), daemon=True)
        self.run.start()

    def train(self, spec: TrialSpec) -> list[dict[str, Any]]:
        """All that a trial reports."""
        ray.get(self.mailbox.send.remote(spec))
        reports, last = [], Report()
        while last.outcome is None:
            last = next_report(self.mailbox, spec.trial, last)
            reports.append(last.values())
        return reports

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        ray.get(self.mailbox.close.remote())
        self.run.join(timeout=600)
        assert not self.run.is_alive()


def work_with_faults(config: WorkerConfig) -> None:
    """A worker whose device has room for one row, that dies without a word at step 5 of a trial
    named "mortal", the first time, and that cannot train one named "broken"."""
    import os

    import torch

    from sftray.trainers.ray_train.sft_trainer import PackedSFTTrainer

    plain = PackedSFTTrainer.compute_loss

    def compute_loss(trainer: Any, *arguments: Any, **named: Any) -> Any:
        rows, folder = trainer.plan.micro_batch_size, Path(trainer.paths.root)
        second = trainer.args.process_index == 1
        if rows > 1 and second:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {rows} rows")
        died = folder.with_name("died")
        fifth = second and trainer.state.global_step == 5
        if folder.name == "mortal" and fifth and not died.exists():
            died.touch()
            os._exit(1)
        if folder.name == "broken" and second:
            raise ValueError("this trial cannot be trained")
        return plain(trainer, *arguments, **named)

    PackedSFTTrainer.compute_loss = compute_loss
    _work(config)


@pytest.fixture(scope="module")
def pair() -> Iterator[Workers]:
    """Two workers for all trials of two: starting them takes longer than a trial."""
    with Workers(2, work_with_faults) as crew:
        yield crew


STEPS = 10
"""Over which losses are compared."""


@pytest.fixture(scope="module")
def small_packs(small_sweep_config: SweepConfig) -> Packs:
    """As many evaluation rows as no number of workers shares evenly."""
    sweep = small_sweep_config
    data = replace(sweep.data, num_eval_conversations=30)
    return build_packs_here(data, sweep.trial.model, storage=sweep.storage)


@pytest.fixture(scope="module")
def trial(small_packs: Packs, small_sweep_config: SweepConfig) -> TrialConfig:
    rows = small_packs.rows("train")
    return replace(
        small_sweep_config.trial,
        effective_batch_size=4,
        lora_dropout=0.0,
        learning_rate=4e-3,
        num_train_epochs=4 * STEPS / rows,
    )


def spec_of(
    trial: TrialConfig, packs: Packs, folder: Path, rows: int = 1, samples: int = 0
) -> TrialSpec:
    plan = plan_trial(
        trial, packs.rows("train"), ladder=(), evals_per_trial=2, execution=Execution(rows)
    )
    return TrialSpec(folder.name, trial, plan, packs.root, str(folder), None, samples)


@pytest.fixture(scope="module")
def alone(
    trial: TrialConfig, small_packs: Packs, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What the trial reports that runs in one process."""
    reports: list[dict[str, Any]] = []
    folder = tmp_path_factory.mktemp("one") / "one"
    spec, cpu = spec_of(trial, small_packs, folder), torch.device("cpu")
    run_trial(spec, lambda report: reports.append(dict(report.values())), cpu)
    return reports


def curve_of(reports: list[dict[str, Any]]) -> list[tuple[int, float, float, float]]:
    return [tuple(entry) for report in reports for entry in report.get("curve", [])]


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_four_workers_train_as_one_at_the_same_effective_batch(
    alone: list[dict[str, Any]], trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    four = replace(trial, num_workers=4)
    with Workers(4) as crew:
        found = crew.train(spec_of(four, small_packs, tmp_path / "more"))
    assert small_packs.rows("eval") % 4  # the workers' shares of an evaluation differ
    assert_same(found, alone)


@pytest.mark.timeout(1800)
def test_two_workers_train_as_one_one_trial_after_another(
    pair: Workers,
    alone: list[dict[str, Any]],
    trial: TrialConfig,
    small_packs: Packs,
    tmp_path: Path,
) -> None:
    two = replace(trial, num_workers=2)
    found = pair.train(spec_of(two, small_packs, tmp_path / "more"))
    assert small_packs.rows("eval") % 2
    assert_same(found, alone)
    # the same workers, and the base that they have loaded, for the next trial
    again = pair.train(spec_of(two, small_packs, tmp_path / "again"))
    assert_same(again, alone)
    assert again[0]["startup_seconds"] < found[0]["startup_seconds"]


@pytest.mark.timeout(1800)
def test_two_workers_train_all_weights_as_one(
    pair: Workers, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    full = replace(trial, finetune="full", learning_rate=1e-3)
    expected: list[dict[str, Any]] = []
    run_trial(spec_of(full, small_packs, tmp_path / "single"), into(expected), torch.device("cpu"))
    assert expected[-1]["eval_loss"] < expected[0]["eval_loss"] - 0.2
    both = spec_of(replace(full, num_workers=2), small_packs, tmp_path / "both")
    assert_same(pair.train(both), expected)


@pytest.mark.timeout(1800)
def test_a_base_spread_over_two_workers_trains_as_a_whole_one(
    pair: Workers, trial: TrialConfig, small_packs: Packs, tmp_path: Path
) -> None:
    whole = replace(trial, base_precision="nf4")
    alone: list[dict[str, Any]] = []
    one = spec_of(whole, small_packs, tmp_path / "one", samples=1)
    run_trial(one, into(alone), torch.device("cpu"))
    spread = replace(whole, num_workers=2, shard_base=True)
    found = pair.train(spec_of(spread, small_packs, tmp_path / "spread", samples=1))
    assert [m["step"] for m in found] == [m["step"] for m in alone]
    assert [m["eval_loss"] for m in found] == pytest.approx(
        [m["eval_loss"] for m in alone], abs=1e-4
    )
    losses, expected = ([entry[1] for entry in curve_of(part)] for part in (found, alone))
    assert losses == pytest.approx(expected, abs=1e-4)
    assert found[-1]["outcome"] == "completed"
    samples = (tmp_path / "spread" / "samples.jsonl").read_text(encoding="utf-8")
    assert samples == (tmp_path / "one" / "samples.jsonl").read_text(encoding="utf-8")


def assert_same(found: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    assert [m["step"] for m in found] == [m["step"] for m in alone]
    assert found[0]["eval_loss"] == pytest.approx(alone[0]["eval_loss"], abs=1e-6)
    for mine, expected in zip(found, alone, strict=True):
        assert mine["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-4)
        for name in ("rows", "tokens", "supervised_tokens"):
            assert mine[name] == expected[name]
    curve, expected_curve = curve_of(found), curve_of(alone)
    assert len(curve) >= STEPS
    for (step, loss, rate, norm), (step_1, loss_1, rate_1, norm_1) in zip(
        curve, expected_curve, strict=True
    ):
        assert (step, rate) == (step_1, rate_1)
        assert loss == pytest.approx(loss_1, abs=1e-5)
        assert norm == pytest.approx(norm_1, rel=1e-3)
    assert found[-1]["outcome"] == "completed"


@pytest.mark.timeout(1800)
def test_workers_of_whom_one_dies_start_again_and_a_trial_that_always_fails_ends(
    pair: Workers,
    alone: list[dict[str, Any]],
    trial: TrialConfig,
    small_packs: Packs,
    tmp_path: Path,
) -> None:
    two = replace(trial, num_workers=2)
    little = pair.train(spec_of(two, small_packs, tmp_path / "little", rows=2))
    assert little[-1]["outcome"] == "completed"
    assert little[-1]["micro_batch_size"] == 1
    assert little[-1]["eval_loss"] == pytest.approx(alone[-1]["eval_loss"], abs=1e-4)
    mortal = pair.train(spec_of(two, small_packs, tmp_path / "mortal"))
    assert (tmp_path / "died").exists()
    assert mortal[-1]["outcome"] == "completed"
    assert mortal[-1]["eval_loss"] == pytest.approx(alone[-1]["eval_loss"], abs=1e-4)
    broken = pair.train(spec_of(two, small_packs, tmp_path / "broken"))
    assert broken[-1]["outcome"] == "failed"
    assert broken[-1]["message"] == "ValueError: this trial cannot be trained"
