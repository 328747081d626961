"""The loop that every worker of a trial runs: load the base, train the adapter, report.

`run_trial` is the whole of a trial and knows no Ray, so that a test or `--local` can call it in
its own process; `train_worker` is the same inside a Ray Train worker.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sftray.config import TrialConfig
from sftray.data.packs import open_packs
from sftray.evaluate import generate
from sftray.model import choose_attention, load_base, load_tokenizer, prove_isolation
from sftray.paths import TrialPaths
from sftray.train.trainer import PackedSFTTrainer
from sftray.trial import checkpoint as checkpoints
from sftray.trial.progress import DivergedError
from sftray.trial.samples import write_samples
from sftray.trial.spec import TrialSpec

Report = Callable[[dict[str, Any]], None]


def train_worker(config: dict[str, Any]) -> None:
    """What Ray Train calls on every worker with `TrialSpec.to_json()`."""
    import ray.train
    import ray.train.torch

    def report(metrics: dict[str, Any]) -> None:
        ray.train.report(metrics)

    run_trial(TrialSpec.from_json(config), report, ray.train.torch.get_device())


def run_trial(spec: TrialSpec, report: Report, device: torch.device) -> None:
    """Run a trial from its newest checkpoint, or from the start, to its end.

    Every evaluation is reported with the metrics of docs/architecture.md; the last report carries
    "outcome" (completed, diverged, out_of_memory) and "message".
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        trainer, facts = _prepare(spec, report, device, scratch)
        checkpoint = checkpoints.newest(TrialPaths(spec.folder), scratch / "checkpoints")
        facts["startup_seconds"] = time.perf_counter() - started
        if checkpoint is None:
            report(_first_metrics(trainer, spec, facts))
        else:
            resumed = {"resumed_from_step": checkpoint.step}
            report({**checkpoint.state["metrics"], **facts, **resumed})
        try:
            trainer.train_from(checkpoint)
            outcome, message = "completed", ""
        except DivergedError as error:
            outcome, message = "diverged", str(error)
        except torch.OutOfMemoryError as error:
            outcome, message = "out_of_memory", str(error).splitlines()[0]
        if outcome == "completed" and trainer.is_world_process_zero():
            packs = open_packs(spec.packs)
            answer = functools.partial(_answer, trainer, packs.end_of_turn)
            write_samples(spec, packs, trainer.state.global_step, answer)
        report(trainer.progress.ended(outcome, message))


def _prepare(
    spec: TrialSpec, report: Report, device: torch.device, scratch: Path
) -> tuple[PackedSFTTrainer, dict[str, Any]]:
    trial = spec.config
    packs = open_packs(spec.packs)
    attention = choose_attention(trial, device)
    model = load_base(trial, device, attention)
    isolation = prove_isolation(model, attention)
    trainer = PackedSFTTrainer(
        model,
        load_tokenizer(trial, packs.chat_template),
        trial,
        spec.plan,
        {split: packs.dataset(split).with_format("numpy") for split in ("train", "eval")},
        attention,
        TrialPaths(spec.folder),
        report,
        scratch,
        activation_checkpointing=_checkpoint_activations(trial, model, device),
    )
    facts = {
        "attention": attention.name,
        "isolation_max_change": isolation,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "activation_checkpointing": trainer.args.gradient_checkpointing,
        "accumulation": spec.plan.accumulation,
        "placement_group": _placement_group(),
    }
    return trainer, facts


def _checkpoint_activations(trial: TrialConfig, model: Any, device: torch.device) -> bool:
    """As the trial says; else on for bases of over a billion parameters on a GPU."""
    if trial.activation_checkpointing is not None:
        return trial.activation_checkpointing
    return device.type == "cuda" and model.num_parameters() > 1e9


def _placement_group() -> str | None:
    """The id of the worker's placement group, by which the driver frees it if Ray does not."""
    import ray
    from ray.util import get_current_placement_group

    group = get_current_placement_group() if ray.is_initialized() else None
    return None if group is None else str(group.id.hex())


def _first_metrics(
    trainer: PackedSFTTrainer, spec: TrialSpec, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Step 0: the base's eval loss, and what the trial runs with."""
    loss = _known_base_loss(spec)
    if loss is None:
        loss = trainer.evaluate()["eval_loss"]
    return {**trainer.progress.start(loss), **facts}


def _known_base_loss(spec: TrialSpec) -> float | None:
    """What the leaderboard says, as the first worker reads it: it may be written meanwhile, and
    all workers must evaluate or none."""
    found = [spec.known_base_loss()]
    if dist.is_initialized():
        dist.broadcast_object_list(found, src=0)
    return found[0]


@torch.no_grad()
def _answer(trainer: PackedSFTTrainer, end_of_turn: int, prompts: Sequence[Any]) -> list[str]:
    model = trainer.model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=trainer.args.bf16):
        tokenizer = trainer.processing_class
        return [generate(model, tokenizer, messages, end_of_turn) for messages in prompts]
