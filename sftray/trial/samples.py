"""Greedy answers to fixed prompts, of each trial and, once a sweep, of the untrained base: kept to
be read side by side, flagged where they are bad whatever the loss says, and scored.

Promise: samples.jsonl has one JSON object a line, and each step once: what a trial that continues
from a checkpoint says again takes the place of what it had said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypedDict

from sftray.data.chat.asking import prompt_ids, prompt_text
from sftray.data.packs.packs import Packs
from sftray.data.source.turns import Message
from sftray.metrics import ANSWER_TOKENS, answer_tokens, load_metric
from sftray.storage import files
from sftray.storage.paths import TrialPaths
from sftray.trial.answer_flags import flags_of
from sftray.trial.trial_report import Answers
from sftray.trial.trial_spec import TrialSpec

Reply = tuple[str, bool]
"""An answer, and whether it came to its end by itself before it was cut off."""


class Prompt(TypedDict):
    messages: list[Message]
    prompt: str
    """To be read."""
    reference: str | None


class Sample(Prompt):
    """A line of samples.jsonl."""

    step: int
    answer: str
    flags: list[str]


def prompts_at(spec: TrialSpec, packs: Packs, step: int) -> list[Prompt]:
    """What a trial is asked after `step`: the prompts given, then those of the eval set, as many as
    the metric wants where it is scored. Empty where it is not asked then."""
    scored = spec.num_metric_prompts if scored_at(spec, step) else 0
    if not _sampled_at(spec, step):
        return fixed_prompts(packs, (), scored)
    return fixed_prompts(packs, spec.sample_prompts, max(spec.num_samples_generated, scored))


def scored_at(spec: TrialSpec, step: int) -> bool:
    """Whether the metric is of its answers after `step`."""
    at_rung = spec.metric_at == "rungs" and any(rung.step == step for rung in spec.plan.rungs)
    return spec.metric is not None and (at_rung or step == spec.plan.steps)


def _sampled_at(spec: TrialSpec, step: int) -> bool:
    """Whether samples are kept of them."""
    return step == spec.plan.steps or spec.sample_at == "evaluations"


def tokens_at(spec: TrialSpec, packs: Packs, step: int) -> int:
    """How many tokens an answer after `step` may have: as the references want where the metric
    scores it."""
    if not scored_at(spec, step):
        return ANSWER_TOKENS
    scored = packs.manifest["sample_prompts"][: spec.num_metric_prompts]
    return answer_tokens(one["reference_tokens"] for one in scored)


def fixed_prompts(packs: Packs, given: Sequence[str], number: int) -> list[Prompt]:
    """The questions `given`, without a reference, and the first `number` of the eval set's."""
    asked: list[Prompt] = [
        {"messages": [{"role": "user", "content": text}], "prompt": text, "reference": None}
        for text in given
    ]
    held_out = packs.manifest["sample_prompts"][:number]
    return asked + [
        {"messages": one["messages"], "prompt": one["prompt"], "reference": one["reference"]}
        for one in held_out
    ]


def prompt_tokens(packs: Packs, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The prompts as a model is asked: those of the eval set as the packs have them, others as the
    packs' renderer writes them."""
    held_out = {one["prompt"]: one["input_ids"] for one in packs.manifest["sample_prompts"]}
    return [
        prompt_ids(packs.chat, prompt_text(packs.chat, prompt["messages"]))
        if prompt["reference"] is None
        else held_out[prompt["prompt"]]
        for prompt in prompts
    ]


def question(messages: Sequence[Message]) -> str:
    """A prompt to be read: the user's words, or all turns of a longer one."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def judged(
    spec: TrialSpec, prompts: Sequence[Prompt], step: int, replies: Sequence[Reply]
) -> tuple[list[Sample], Answers]:
    """The samples to keep of the replies to `prompts_at`, and what is reported of them: the flags
    of each, and where it is scored the metric."""
    samples, sampled = flagged(prompts, step, replies), _sampled_at(spec, step)
    extra = len(spec.sample_prompts) if sampled else 0
    kept = samples[: extra + spec.num_samples_generated] if sampled else []
    metric = None
    if spec.metric and scored_at(spec, step) and len(samples) > extra:
        scored = samples[extra : extra + spec.num_metric_prompts]
        answers = [one["answer"] for one in scored]
        references = [one["reference"] or "" for one in scored]
        metric = float(load_metric(spec.metric)(answers, references))
    return kept, Answers([one["flags"] for one in kept], metric)


def keep(folder: str, samples: Sequence[Sample]) -> None:
    """Write samples of one step behind those of earlier steps in a trial's samples.jsonl."""
    if not samples:
        return
    path, step = TrialPaths(folder).samples, samples[0]["step"]
    before = [sample for sample in read_samples(path) if sample["step"] < step]
    files.write_text(path, as_lines([*before, *samples]))


def flagged(prompts: Sequence[Prompt], step: int, replies: Sequence[Reply]) -> list[Sample]:
    """The prompts with their answers, as samples.jsonl has them."""
    return [
        {"step": step, **prompt, "answer": text, "flags": flags_of(text, ended=ended)}
        for prompt, (text, ended) in zip(prompts, replies, strict=True)
    ]


def as_lines(samples: Sequence[Sample]) -> str:
    """The samples as they are written."""
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def read_samples(path: str) -> list[Sample]:
    """The samples in a file; none where it is not there. A damaged last line is left out."""
    if not files.exists(path):
        return []
    # not splitlines(): it also cuts at separators that JSON leaves within its strings
    lines = [line for line in files.read_bytes(path).split(b"\n") if line]
    samples: list[Sample] = []
    for number, line in enumerate(lines, start=1):
        try:
            samples.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise
    return samples
