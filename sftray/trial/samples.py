"""Greedy answers to held-out prompts, of each finished trial and, once a sweep, of the untrained
base: kept to be read, and scored.

One JSON object a line: the step, the prompt, the reference and the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sftray import storage
from sftray.data.packs import Packs
from sftray.metrics import load_metric
from sftray.paths import TrialPaths
from sftray.trial.spec import TrialSpec

Answer = Callable[[Sequence[Any]], list[str]]
"""Conversations of messages (role, content) → an answer to each."""

WINDOW, FEW_WINDOWS = 3, 10
"""An answer is looked at in windows of three words; ten of them can say something."""
FRESH = 0.5
"""Where fewer than half of the windows are new, an answer goes round in circles: in the demo's
answers that do so 0.07 to 0.36 are, in the answers of the bundled chats at least 0.83."""


def answer_prompts(spec: TrialSpec, packs: Packs, step: int, answer: Answer) -> float | None:
    """Write trials/<id>/samples.jsonl, where the sweep wants any, and return its metric, if it has
    one."""
    scored = spec.num_metric_prompts if spec.metric else 0
    samples = answered(packs, max(spec.num_samples_generated, scored), step, answer)
    kept = samples[: spec.num_samples_generated]
    if kept:
        storage.write_text(TrialPaths(spec.folder).samples, as_lines(kept))
    if not spec.metric or not samples:
        return None
    answers = [sample["answer"] for sample in samples[:scored]]
    references = [sample["reference"] for sample in samples[:scored]]
    return float(load_metric(spec.metric)(answers, references))


def answered(packs: Packs, number: int, step: int, answer: Answer) -> list[dict[str, Any]]:
    """The first `number` prompts with their answers."""
    prompts = packs.manifest["sample_prompts"][:number]
    answers = answer([prompt["messages"] for prompt in prompts]) if prompts else []
    return [
        {"step": step, **prompt, "answer": text}
        for prompt, text in zip(prompts, answers, strict=True)
    ]


def as_lines(samples: Sequence[dict[str, Any]]) -> str:
    """The samples as they are written."""
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def read_samples(path: str) -> list[dict[str, Any]]:
    """The samples in a file; none where it is not there."""
    if not storage.exists(path):
        return []
    # not splitlines(): it also cuts at separators that JSON leaves within its strings
    return [json.loads(line) for line in storage.read_text(path).split("\n") if line]


def repeats_itself(answer: str) -> bool:
    """Whether an answer says the same three words again and again."""
    words = answer.split()
    if len(answer) > 20 * len(words):  # a script without spaces
        words = list(answer)
    windows = [tuple(words[at : at + WINDOW]) for at in range(len(words) - WINDOW + 1)]
    return len(windows) >= FEW_WINDOWS and len(set(windows)) < FRESH * len(windows)
