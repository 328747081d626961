"""The winner's folder: an ordinary PEFT adapter, checked, mergeable, with its story beside it.

Promise: `best/` is written from the best evaluation, not the last, and the adapter in it has been
loaded again with plain PEFT and given the recorded eval loss to 1e-3, or to what rounding to
bfloat16 makes of a short eval set, or the sweep says so loudly.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sftray import storage
from sftray.config import SweepConfig, TrialConfig
from sftray.config_io import to_json
from sftray.data.manifest import counts_of
from sftray.data.packs import Packs, open_packs
from sftray.errors import CheckpointError, SftrayError
from sftray.paths import SweepPaths, TrialPaths, join
from sftray.results import Results, TrialRecord, answering
from sftray.trial.samples import as_lines, fixed_prompts, flagged

TOLERANCE = 1e-3
"""How far the reloaded adapter's eval loss may lie from the recorded one, in nats."""

BFLOAT16_TOLERANCE = 0.2
"""The same over the square root of the supervised tokens, where activations are bfloat16: another
order of the same products moves each token's loss by some 0.05 nats, up or down; four sigmas."""

WORKER_MINUTES = 60
"""How long the check may take, the wait for a free worker and the base's download included."""

_POLL_SECONDS = 60

Log = Callable[[str], None]
Files = dict[str, bytes]


def collect(
    sweep: SweepConfig,
    paths: SweepPaths,
    packs: Packs,
    found: Results,
    *,
    log: Log,
    submit: Callable[..., Any],
    damaged: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Write best/ from the sweep's best evaluation and check it; returns what sweep.json there has.
    The base, which is loaded for it, also answers the prompts that the trials have answered.

    `submit(function, *arguments)` runs a function where the trials ran, for the driver's machine
    may have no GPU, and gives Ray's reference to its result. A bundle of the same evaluation that
    is there already is kept. Evaluations whose checkpoint is gone or `damaged` are passed over.
    """
    best, evaluation = _best_kept(sweep, paths, found, damaged, log)
    trial = sweep.trial.at(best.point)
    recorded = evaluation["eval_loss"]
    facts = {
        "sweep": sweep.name,
        "trial": best.trial,
        "step": evaluation["step"],
        "point": best.point,
        "eval_loss": recorded,
        "base_eval_loss": found.leaderboard["base"]["eval_loss"],
        "confirmed": _confirmed(found.leaderboard),
        "tokens": evaluation["tokens"],
        "config": to_json(trial),
        "data": to_json(sweep.data),
        "packs": packs.root,
        "end_of_turn": packs.end_of_turn,
        "versions": found.record["versions"],
        "git_revision": found.record["git_revision"],
    }
    if _is_there(paths.best, facts):
        return facts
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint = _folder(paths, best).checkpoint(evaluation["step"])
        prompts = fixed_prompts(packs, sweep.sample_prompts, sweep.num_samples_generated)
        arguments = (checkpoint, to_json(trial), packs.root, prompts)
        try:
            checked, tolerance, samples, files = _wait(submit(_assemble, *arguments), log)
        except CheckpointError as error:
            said = str(error).splitlines()[-1]  # Ray puts the worker's traceback before it
            log(f"best/: {said}")
            damaged |= {checkpoint}
            return collect(sweep, paths, packs, found, log=log, submit=submit, damaged=damaged)
        if samples:
            storage.write_text(paths.base_samples, samples)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        facts["reloaded_eval_loss"] = checked
        facts["verified"] = abs(checked - recorded) <= tolerance
        (folder / "sweep.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        (folder / "README.md").write_text(_model_card(facts), encoding="utf-8")
        storage.put_folder(folder, paths.best, last="sweep.json")
    if facts["verified"]:
        log(f"best/: reloaded with plain PEFT, eval loss {checked:.6f} (recorded {recorded:.6f})")
    else:
        log(
            f"WARNING: best/ was reloaded with plain PEFT and gave eval loss {checked:.6f}, but "
            f"{recorded:.6f} was recorded. Do not use this adapter before the reason is known"
        )
    return facts


def merge(folder: str, out: Path, *, log: Log) -> tuple[float, float]:
    """Merge the adapter of a sweep's or a bundle's folder into a bf16 base, saved in `out`.

    Returns the eval loss of the adapter on its base as trained (a 4-bit one quantised), and that
    of the merged model: dequantising and rounding to bfloat16 moves it a little.
    """
    from sftray.evaluate import evaluate_adapter, merge_adapter

    local, facts = open_bundle(folder)
    if out.exists() and any(out.iterdir()):
        raise SftrayError(f"{out}: got a folder with files in it, must be new or empty")
    trial = TrialConfig(**facts["config"])
    before = evaluate_adapter(local, trial, facts["packs"])
    log(f"eval loss before: {before:.6f} (adapter on its {trial.base_precision} base)")
    after = merge_adapter(local, trial, facts["packs"], out)
    log(f"eval loss after:  {after:.6f} (merged, bfloat16), saved in {out}")
    return before, after


def answer(folder: str, prompt: str, max_new_tokens: int) -> dict[str, str]:
    """Greedy answers of the untrained base and of the adapter to one user turn."""
    from sftray.evaluate import generate, load_adapter
    from sftray.model import saved_tokenizer

    local, facts = open_bundle(folder)
    trial = TrialConfig(**facts["config"])
    model, _ = load_adapter(local, trial)
    tokenizer = saved_tokenizer(local, trial)
    messages = [{"role": "user", "content": prompt}]
    with model.disable_adapter():
        base = generate(model, tokenizer, messages, facts["end_of_turn"], max_new_tokens)
    adapted = generate(model, tokenizer, messages, facts["end_of_turn"], max_new_tokens)
    return {"base": base, "adapter": adapted}


def open_bundle(folder: str) -> tuple[Path, dict[str, Any]]:
    """A local copy of a bundle and its sweep.json; `folder` is the bundle or its sweep."""
    for candidate in (folder, join(folder, "best")):
        if storage.exists(join(candidate, "adapter_model.safetensors")):
            local = storage.get_folder(candidate)
            facts: dict[str, Any] = json.loads((local / "sweep.json").read_text(encoding="utf-8"))
            return local, facts
    raise SftrayError(
        f"{folder}: got no adapter_model.safetensors there nor in best/, must be a finished "
        "sweep's folder or its best/"
    )


def _best_kept(
    sweep: SweepConfig,
    paths: SweepPaths,
    found: Results,
    damaged: frozenset[str],
    log: Log,
) -> tuple[TrialRecord, dict[str, Any]]:
    """The best evaluation whose checkpoint is there: a stopped trial's worker may have gone on for
    a moment, and put a newer one in the place of one that was reported. A metric is one of a
    trial's last weights."""
    place = {row["trial"]: number for number, row in enumerate(found.leaderboard["trials"])}

    def order(evaluation: tuple[TrialRecord, dict[str, Any]]) -> tuple[Any, ...]:
        trial, result = evaluation
        if sweep.objectives[0] == "metric":
            return (place[trial.trial], -result["step"])
        return (result["eval_loss"], trial.trial, result["step"])

    candidates = answering(found.records)
    for trial, result in sorted(((t, r) for t in candidates for r in t.trained), key=order):
        loss, name, step = result["eval_loss"], trial.trial, result["step"]
        folder = _folder(paths, trial)
        if folder.checkpoint(step) in damaged:
            what = "damaged"
        elif storage.exists(folder.checkpoint_manifest(step)):
            return trial, result
        else:
            what = "gone"
        log(f"best/: {name} had {loss:.4f} at step {step}, whose checkpoint is {what}; the next")
    raise SftrayError(f"{paths.root}: no evaluation has a checkpoint; was trials/ cleaned up?")


def _confirmed(board: Mapping[str, Any]) -> dict[str, Any] | None:
    """What repetitions with other seeds said of the best point."""
    told = board.get("confirmed")
    if told is None:
        return None
    points: list[dict[str, Any]] = told["points"]
    return next(one for one in points if one["trial"] == told["winner"])


def _folder(paths: SweepPaths, trial: TrialRecord) -> TrialPaths:
    return paths.trial(trial.trial) if trial.folder is None else TrialPaths(trial.folder)


def _is_there(folder: str, facts: Mapping[str, Any]) -> bool:
    marker = join(folder, "sweep.json")
    if not storage.exists(marker):
        return False
    old = json.loads(storage.read_text(marker))
    return all(old.get(name) == facts[name] for name in ("trial", "step", "eval_loss"))


def _assemble(
    checkpoint: str, config: dict[str, Any], packs: str, prompts: list[dict[str, Any]]
) -> tuple[float, float, str, Files]:
    """On a worker: the adapter's eval loss when reloaded, how far it may be from the recorded one,
    the base's answers to `prompts`, and the adapter's files with the tokenizer's. The worker may be
    another machine: they come by value.
    """
    import torch

    from sftray.evaluate import base_answers, default_device, load_adapter, packed_eval_loss
    from sftray.model import compute_dtype, load_tokenizer
    from sftray.trial.checkpoint import export_adapter, read

    trial, opened = TrialConfig(**config), open_packs(packs)
    tolerance = TOLERANCE
    if compute_dtype(trial, default_device()) == torch.bfloat16:
        supervised = counts_of(opened.manifest)["eval"]["supervised_tokens"]
        tolerance = max(tolerance, BFLOAT16_TOLERANCE / supervised**0.5)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as folder:
        export_adapter(read(checkpoint, Path(scratch)).folder, Path(folder))
        tokenizer = load_tokenizer(trial, opened.chat_template)
        tokenizer.save_pretrained(folder)
        model, attention = load_adapter(Path(folder), trial)
        loss = packed_eval_loss(model, opened.dataset("eval"), attention, trial)
        asked = [prompt["messages"] for prompt in prompts]
        replies = base_answers(model, tokenizer, opened.end_of_turn, asked)
        samples = as_lines(flagged(prompts, 0, replies))
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return loss, tolerance, samples, files


def _wait(result: Any, log: Log) -> tuple[float, float, str, Files]:
    """What a worker has answered; said every minute, and not for ever."""
    import ray

    for waited in range(0, WORKER_MINUTES * 60, _POLL_SECONDS):
        done, _ = ray.wait([result], timeout=_POLL_SECONDS)
        if done:
            loss, tolerance, samples, files = ray.get(result)
            return float(loss), float(tolerance), samples, files
        log(f"best/: checking the winner on a worker, {waited + _POLL_SECONDS} s so far")
    raise SftrayError(
        f"best/: no worker has checked the winner in {WORKER_MINUTES} minutes; free a GPU or CPU "
        "of the cluster and run the same command again"
    )


def _confirmed_row(confirmed: Mapping[str, Any] | None) -> str:
    if confirmed is None:
        return ""
    mean, interval, runs = (confirmed[name] for name in ("mean", "interval", "eval_losses"))
    width = f" ± {interval[1] - mean:.4f}" if interval else ""
    return f"| its point, mean of {len(runs)} other seeds (95 %) | {mean:.4f}{width} |\n"


def _model_card(facts: Mapping[str, Any]) -> str:
    point = "\n".join(f"| {name} | {value} |" for name, value in facts["point"].items())
    config = facts["config"]
    return f"""---
base_model: {config["model"]}
library_name: peft
tags: [sft, lora, sftray]
---

# {facts["sweep"]}: the best adapter

LoRA adapter for `{config["model"]}` (base held as {config["base_precision"]}), trial
`{facts["trial"]}` of the sweep `{facts["sweep"]}`, taken at optimizer step {facts["step"]}.

| | eval loss (nats a supervised token) |
|---|---|
| untrained base | {facts["base_eval_loss"]:.4f} |
| this adapter | {facts["eval_loss"]:.4f} |
| this adapter, reloaded with plain PEFT | {facts["reloaded_eval_loss"]:.4f} |
{_confirmed_row(facts["confirmed"])}
| hyper-parameter | value |
|---|---|
{point}

Trained on {facts["tokens"]:,} tokens of `{facts["data"]["source"]}`; only the assistant's tokens
count in the loss. The resolved configuration and all versions are in `sweep.json`.

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("path/of/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```
"""
