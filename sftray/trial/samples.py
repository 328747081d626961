"""Greedy answers of a finished trial to held-out prompts, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sftray import storage
from sftray.data.packs import Packs
from sftray.paths import TrialPaths
from sftray.trial.spec import TrialSpec

Answer = Callable[[Sequence[Any]], list[str]]
"""Conversations of messages (role, content) → an answer to each."""


def write_samples(spec: TrialSpec, packs: Packs, step: int, answer: Answer) -> None:
    """Write trials/<id>/samples.jsonl, where the sweep wants any."""
    prompts = packs.manifest["sample_prompts"][: spec.num_samples_generated]
    if not prompts:
        return
    answers = answer([prompt["messages"] for prompt in prompts])
    lines = [
        {"step": step, **prompt, "answer": text}
        for prompt, text in zip(prompts, answers, strict=True)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    storage.write_text(TrialPaths(spec.folder).samples, text)
