"""Greedy answers of a finished trial to held-out prompts: kept to be read, and scored.

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


def answer_prompts(spec: TrialSpec, packs: Packs, step: int, answer: Answer) -> float | None:
    """Write trials/<id>/samples.jsonl, where the sweep wants any, and return its metric, if it has
    one."""
    scored = spec.num_metric_prompts if spec.metric else 0
    prompts = packs.manifest["sample_prompts"][: max(spec.num_samples_generated, scored)]
    if not prompts:
        return None
    answers = answer([prompt["messages"] for prompt in prompts])
    lines = [
        {"step": step, **prompt, "answer": text}
        for prompt, text in zip(prompts, answers, strict=True)
    ]
    kept = lines[: spec.num_samples_generated]
    if kept:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
        storage.write_text(TrialPaths(spec.folder).samples, text)
    if not spec.metric:
        return None
    references = [prompt["reference"] for prompt in prompts[:scored]]
    return float(load_metric(spec.metric)(answers[:scored], references))
