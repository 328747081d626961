"""The best adapter collected into `best/`, and checked by plain transformers and PEFT."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sftray.config import SweepConfig, TrialConfig
from sftray.config.config_json import to_json
from sftray.data.packs.manifest import counts_of
from sftray.data.packs.packs import Packs, open_packs
from sftray.errors import CheckpointError, Log, SftrayError, last_line
from sftray.plan.rungs import rung_ladder
from sftray.results import Results
from sftray.results.leaderboard import answering
from sftray.results.records import TrialRecord
from sftray.storage import files as storage_files
from sftray.storage.journal.event_types import Metrics
from sftray.storage.paths import SweepPaths, TrialPaths, join
from sftray.trial.samples import as_lines, fixed_prompts, flagged
from sftray.winner.bundle import (
    BFLOAT16_TOLERANCE,
    POLL_SECONDS,
    SHOWN,
    SHOWN_TRIALS,
    TOLERANCE,
    WORKER_MINUTES,
    Files,
)
from sftray.winner.loading_code import loaded_with
from sftray.winner.model_card import CARD, REPEAT, model_card, repeat_file


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
    may have no GPU, and gives Ray's reference to its result. The adapter of the same evaluation
    that is there already is kept, and only what is told of it is written again. Evaluations whose
    checkpoint is gone or `damaged` are passed over.
    """
    best, evaluation = _best_kept(sweep, paths, found, damaged, log)
    trial = sweep.trial.at(best.point)
    recorded = evaluation["eval_loss"]
    ladder = rung_ladder(sweep, packs.rows("train"))
    facts: dict[str, Any] = {
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
        "packs_key": found.packs_key,
        "data_counts": counts_of(packs.manifest),
        "first_rung": ladder[0] if ladder else None,
        "evals_per_trial": sweep.evals_per_trial,
        "end_of_turn": packs.end_of_turn,
        "trials": len(found.records),
        "leaderboard": [
            {name: row[name] for name in SHOWN}
            for row in map(dict, found.leaderboard["trials"][:SHOWN_TRIALS])
        ],
        "versions": found.record["versions"],
        "git_revision": found.record["git_revision"],
    }
    old = _there(paths.best)
    if old is not None and all(old[name] == facts[name] for name in ("trial", "step", "eval_loss")):
        facts |= {name: old[name] for name in ("reloaded_eval_loss", "verified")}
        if json.loads(json.dumps(facts)) != old:
            for name, text in _texts(facts).items():
                storage_files.write_text(join(paths.best, name), text)
        return facts
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint = _folder(paths, best).checkpoint(evaluation["step"])
        prompts = fixed_prompts(packs, sweep.sample_prompts, sweep.num_samples_generated)
        arguments = (checkpoint, to_json(trial), packs.root, prompts)
        try:
            checked, tolerance, samples, files = _wait(submit(_assemble, *arguments), log)
        except CheckpointError as error:
            log(f"best/: {last_line(str(error))}")
            damaged |= {checkpoint}
            return collect(sweep, paths, packs, found, log=log, submit=submit, damaged=damaged)
        if samples:
            storage_files.write_text(paths.base_samples, samples)
        _write_files(files, checkpoint, folder)
        facts["reloaded_eval_loss"] = checked
        facts["verified"] = abs(checked - recorded) <= tolerance
        for name, text in _texts(facts).items():
            (folder / name).write_text(text, encoding="utf-8")
        storage_files.put_folder(folder, paths.best, last="sweep.json")
    plain = loaded_with(facts)
    if facts["verified"]:
        log(f"best/: reloaded with {plain}, eval loss {checked:.6f} (recorded {recorded:.6f})")
    else:
        log(
            f"WARNING: best/ was reloaded with {plain} and gave eval loss {checked:.6f}, but "
            f"{recorded:.6f} was recorded. Do not use it before the reason is known"
        )
    return facts


def _best_kept(
    sweep: SweepConfig,
    paths: SweepPaths,
    found: Results,
    damaged: frozenset[str],
    log: Log,
) -> tuple[TrialRecord, Metrics]:
    """The best evaluation whose checkpoint is there: a stopped trial's worker may have gone on for
    a moment, and put a newer one in the place of one that was reported. A metric is one of a
    trial's last weights."""
    place = {row["trial"]: number for number, row in enumerate(found.leaderboard["trials"])}

    def order(evaluation: tuple[TrialRecord, Metrics]) -> tuple[Any, ...]:
        trial, result = evaluation
        if sweep.objective == "metric":
            return (place[trial.trial], -result["step"])
        return (result["eval_loss"], trial.trial, result["step"])

    candidates = answering(found.records)
    for trial, result in sorted(((t, r) for t in candidates for r in t.trained), key=order):
        loss, name, step = result["eval_loss"], trial.trial, result["step"]
        folder = _folder(paths, trial)
        if folder.checkpoint(step) in damaged:
            what = "damaged"
        elif storage_files.exists(folder.checkpoint_manifest(step)):
            return trial, result
        elif trial.best is not None and step != trial.best["step"]:
            continue  # of a trial that has ended only the best is kept
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
    return next((one for one in points if one["trial"] == told["winner"]), None)


def _folder(paths: SweepPaths, trial: TrialRecord) -> TrialPaths:
    return paths.trial(trial.trial) if trial.folder is None else TrialPaths(trial.folder)


def _there(folder: str) -> dict[str, Any] | None:
    """What the bundle in a folder says of itself; None where there is none."""
    marker = join(folder, "sweep.json")
    if not storage_files.exists(marker):
        return None
    facts: dict[str, Any] = json.loads(storage_files.read_text(marker))
    return facts


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is told of the adapter, by file, in the order in which it is written."""
    told = {CARD: model_card(facts), REPEAT: repeat_file(facts)}
    return {**told, "sweep.json": json.dumps(facts, indent=1)}


def _assemble(
    checkpoint: str, config: dict[str, Any], packs: str, prompts: list[dict[str, Any]]
) -> tuple[float, float, str, Files]:
    """On a worker: the eval loss of what was trained when reloaded, how far it may be from the
    recorded one, the base's answers to `prompts`, and the bundle's files with the tokenizer's. The
    worker may be another machine: they come by value.
    """
    import torch

    from sftray.trial.base_model import compute_dtype, load_tokenizer
    from sftray.trial.checkpoint import export_weights, read
    from sftray.trial.eval_loss import (
        computing_as,
        default_device,
        load_trained,
        load_untrained,
        packed_eval_loss,
    )
    from sftray.trial.generation import base_answers, end_with_turns

    trial, opened = TrialConfig(**config), open_packs(packs)
    tolerance = TOLERANCE
    if compute_dtype(trial, default_device()) == torch.bfloat16:
        supervised = counts_of(opened.manifest)["eval"]["supervised_tokens"]
        tolerance = max(tolerance, BFLOAT16_TOLERANCE / supervised**0.5)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as folder:
        export_weights(read(checkpoint, Path(scratch)).folder, Path(folder))
        tokenizer = load_tokenizer(trial, opened.chat_template)
        tokenizer.save_pretrained(folder)
        model, attention = load_trained(Path(folder), trial)
        loss = packed_eval_loss(model, opened.dataset("eval"), attention, trial)
        whole = trial.finetune == "full"
        if whole:
            end_with_turns(model, opened.end_of_turn)
            model.generation_config.save_pretrained(folder)
            model = load_untrained(trial) if prompts else None
        asked = [prompt["messages"] for prompt in prompts]
        with computing_as(trial, default_device()):
            replies = base_answers(model, tokenizer, opened.end_of_turn, asked)
        samples = as_lines(flagged(prompts, 0, replies))
        files = {
            path.name: None if whole and path.suffix == ".safetensors" else path.read_bytes()
            for path in Path(folder).iterdir()
        }
        return loss, tolerance, samples, files


def _write_files(files: Files, checkpoint: str, folder: Path) -> None:
    """Write what `_assemble` has given into a local folder."""
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    if copied := [name for name, content in files.items() if content is None]:
        with tempfile.TemporaryDirectory() as scratch:
            local = storage_files.get_folder(checkpoint, Path(scratch))
            for name in copied:
                shutil.copy(local / name, folder / name)


def _wait(result: Any, log: Log) -> tuple[float, float, str, Files]:
    """What a worker has answered; said every minute, and not for ever."""
    import ray

    for waited in range(0, WORKER_MINUTES * 60, POLL_SECONDS):
        done, _ = ray.wait([result], timeout=POLL_SECONDS)
        if done:
            loss, tolerance, samples, files = ray.get(result)
            return float(loss), float(tolerance), samples, files
        log(f"best/: checking the winner on a worker, {waited + POLL_SECONDS} s so far")
    raise SftrayError(
        f"best/: no worker has checked the winner in {WORKER_MINUTES} minutes; free a GPU or CPU "
        "of the cluster and run the same command again"
    )
