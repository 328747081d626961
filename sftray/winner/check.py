"""What the winner is, found where the trials ran: loaded again by plain transformers and PEFT,
measured beside its base, and its files taken.

Promise: losses and answers here are of none of the trainers' code. torch comes with the call, since
the driver imports this file.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.data.packs.manifest import SamplePrompt, counts_of
from sftray.data.packs.packs import Packs, open_packs
from sftray.metrics import answer_tokens, load_metric
from sftray.trial.samples import Prompt, Reply, as_lines, fixed_prompts, flagged, prompt_tokens
from sftray.winner.measured import Measured, of_metric, of_ratio

TOLERANCE = 1e-3
"""How far the reloaded adapter's eval loss may lie from the recorded one, in nats."""

BFLOAT16_TOLERANCE = 0.2
"""The same over the square root of the supervised tokens, where activations are bfloat16: another
order of the same products moves each token's loss by some 0.05 nats, up or down; four sigmas."""

FP8_TOLERANCE = 1.0
"""The same on an FP8 base, where another order comes to other codes: 0.23 nats a token between
float32 and bfloat16 by the same layers, on the bundled base."""


@dataclass(frozen=True)
class Check:
    """What a worker has found of a checkpoint."""

    eval_loss: float
    """When reloaded."""
    tolerance: float
    """How far that may be from the recorded loss."""
    base_samples: str
    """The base's answers, as lines of JSON."""
    test: Measured | None
    """The loss of base and winner on the test set; None where there is none."""
    metric: Measured | None
    """What the sweep's metric says of base and winner; None where it has none."""
    files: dict[str, bytes | None]
    """The bundle's, by name; None for what is too large to come by value and is copied from the
    checkpoint."""


@dataclass(frozen=True)
class Asking:
    """What base and winner are asked."""

    prompts: Sequence[Prompt]
    """Those whose answers by the base are kept."""
    data: DataConfig
    """Whose sources the eval loss is of."""
    metric: str | None = None
    num_metric_prompts: int = 0

    @classmethod
    def of(cls, sweep: SweepConfig, packs: Packs) -> Asking:
        prompts = fixed_prompts(packs, sweep.sample_prompts, sweep.num_samples_generated)
        return cls(prompts, sweep.data, sweep.metric, sweep.num_metric_prompts)


def assemble(checkpoint: str, trial: TrialConfig, packs: str, asking: Asking) -> Check:
    """On a worker, which may be another machine: reload what was trained, ask it and the base, and
    take the bundle's files with the tokenizer's."""
    from sftray.trial.base_model import computing_as, load_tokenizer
    from sftray.trial.checkpoint import export_weights, read
    from sftray.trial.eval_loss import (
        base_for_rows,
        conversation_losses,
        default_device,
        load_trained,
        load_untrained,
        packed_eval_loss,
    )
    from sftray.trial.generation import base_answers, end_with_turns, replies

    opened, prompts = open_packs(packs), asking.prompts
    end, scored = opened.end_of_turn, opened.manifest["sample_prompts"][: asking.num_metric_prompts]
    most = answer_tokens(one["reference_tokens"] for one in scored)
    questions = [one["input_ids"] for one in scored] if asking.metric else []
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as folder:
        export_weights(read(checkpoint, Path(scratch)).folder, Path(folder))
        tokenizer = load_tokenizer(trial, opened.chat_template)
        tokenizer.save_pretrained(folder)
        model, attention = load_trained(Path(folder), trial, opened.max_length)
        sources = opened.eval_sources(asking.data.mixture)
        loss = packed_eval_loss(model, opened.dataset("eval"), attention, trial, sources)
        whole, of_winner, of_base = trial.finetune == "full", [], []
        if tested := "test" in opened.manifest["splits"]:
            rows = opened.dataset("test")
            of_winner = conversation_losses(model, rows, attention, trial)
            if not whole:
                with model.disable_adapter():
                    of_base = conversation_losses(model, rows, attention, trial)
        with computing_as(trial, default_device()):
            trained = replies(model, tokenizer, questions, end, most)
        if whole:
            end_with_turns(model, opened.end_of_turn)
            model.generation_config.save_pretrained(folder)
            if tested:
                model, attention = base_for_rows(trial, opened.max_length)
                of_base = conversation_losses(model, rows, attention, trial)
            model = load_untrained(trial) if prompts or questions else None
        asked = prompt_tokens(opened, prompts)
        with computing_as(trial, default_device()):
            shown = base_answers(model, tokenizer, end, asked)
            base = base_answers(model, tokenizer, end, questions, most)
        samples = as_lines(flagged(prompts, 0, shown))
        test = _on_test_set(opened, asking.data, of_base, of_winner) if tested else None
        metric = _scored(asking.metric, scored, base, trained) if asking.metric else None
        files = {
            path.name: None if whole and path.suffix == ".safetensors" else path.read_bytes()
            for path in Path(folder).iterdir()
        }
        return Check(loss, _tolerance(trial, opened), samples, test, metric, files)


def _tolerance(trial: TrialConfig, packs: Packs) -> float:
    import torch

    from sftray.trial.base_model import compute_dtype
    from sftray.trial.eval_loss import default_device

    share = 0.0
    if trial.base_precision == "fp8":
        share = FP8_TOLERANCE
    elif compute_dtype(trial, default_device()) == torch.bfloat16:
        share = BFLOAT16_TOLERANCE
    supervised = counts_of(packs.manifest)["eval"]["supervised_tokens"]
    return max(TOLERANCE, share / math.sqrt(supervised))


def _scored(
    name: str,
    questions: Sequence[SamplePrompt],
    base: Sequence[Reply],
    winner: Sequence[Reply],
) -> Measured | None:
    """None where there are no questions."""
    if not questions:
        return None
    base_texts, winner_texts = ([text for text, _ in one] for one in (base, winner))
    references = [one["reference"] for one in questions]
    return of_metric(name, load_metric(name), base_texts, winner_texts, references)


def _on_test_set(
    packs: Packs,
    data: DataConfig,
    base: Sequence[tuple[int, int, float, int]],
    winner: Sequence[tuple[int, int, float, int]],
) -> Measured:
    """From `conversation_losses` of both: of several sources their weighted mean, as the eval loss
    is."""
    ends = np.cumsum(packs.source_rows("test"))
    weights = [one.weight for one in data.mixture] if len(ends) > 1 else [1.0]
    sources = np.searchsorted(ends, [row for row, *_ in base], side="right")
    tokens = np.bincount(sources, [count for *_, count in base], len(ends))
    sums: dict[tuple[int, int], list[float]] = {}
    for source, ours, theirs in zip(sources.tolist(), base, winner, strict=True):
        kept = sums.setdefault((source, ours[1]), [0.0, 0.0, 0.0])
        for place, value in enumerate((ours[2], theirs[2], ours[3])):
            kept[place] += value * weights[source] / tokens[source]
    return of_ratio("eval loss", *zip(*sums.values(), strict=True))
