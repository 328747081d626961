"""The best adapter collected into `best/`, and checked by plain transformers and PEFT.

Promise: `best/` is written from the best evaluation, not the last. What is in it was loaded again
with plain transformers and PEFT and had the recorded eval loss to 1e-3, or to what rounding to
bfloat16 makes of a short eval set, or the sweep says so loudly.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sftray.config import SweepConfig, TrialConfig
from sftray.config.config_json import to_json
from sftray.data.packs.manifest import counts_of
from sftray.data.packs.packs import Packs
from sftray.errors import CheckpointError, Log, SftrayError, last_line
from sftray.plan.lora_targets import INSIDE
from sftray.plan.rungs import rung_ladders
from sftray.results import Results
from sftray.results.confirmation import Confirmed
from sftray.results.leaderboard import answering
from sftray.results.leaderboard_text import recommended
from sftray.results.loss_by_kind import losses_by_kind
from sftray.results.records import TrialRecord
from sftray.storage import files as storage_files
from sftray.storage.checksums import MANIFEST, as_manifest
from sftray.storage.journal.event_types import Metrics
from sftray.storage.paths import SweepPaths, TrialPaths, join, name_of
from sftray.winner.adapter_format import CONFIG
from sftray.winner.bundle import (
    CARD,
    FACTS,
    REPEAT,
    BundleFacts,
    Searched,
    ShownTrial,
    open_bundle,
    seal,
)
from sftray.winner.check import Asking, Check, assemble
from sftray.winner.measured import Measured
from sftray.winner.model_card import model_card, repeat_file

WORKER_MINUTES = 60
"""How long the check may take, the wait for a free worker and the base's download included."""
POLL_SECONDS = 60
TRIES = 2
"""How often the check is asked for again whose process died over it."""

SHOWN_TRIALS = 5
"""Trials of the leaderboard that the card shows."""


def collect(
    sweep: SweepConfig,
    paths: SweepPaths,
    packs: Packs,
    found: Results,
    *,
    log: Log,
    submit: Callable[..., object],
    damaged: frozenset[str] = frozenset(),
) -> BundleFacts:
    """Write best/ from the sweep's best evaluation and check it; returns what sweep.json there has.
    The base, which is loaded for it, also answers the prompts that the trials have answered.

    `submit(function, *arguments)` runs a function where the trials ran, because the driver's
    machine may have no GPU, and gives Ray's reference to its result. The adapter of the same
    evaluation that is there already is kept, and only its texts are written again. Evaluations
    whose checkpoint is gone or `damaged` are passed over.
    """
    best, evaluation = _best_kept(sweep, paths, found, damaged, log)
    facts_with = partial(_facts, sweep, packs, found, best, evaluation, _searched(sweep, log))
    if old := _kept(paths.best, best.trial, evaluation, log):
        facts = facts_with(
            old.reloaded_eval_loss, old.verified, old.text_part, old.test, old.metric
        )
        if to_json(facts) != to_json(old):
            _rewrite(facts, paths.best)
        return facts
    checkpoint = _folder(paths, best).checkpoint(evaluation["step"])
    trial, asking = sweep.trial.at(best.point), Asking.of(sweep, packs)
    try:
        check = _wait(partial(submit, assemble, checkpoint, trial, packs.root, asking), log)
    except CheckpointError as error:
        log(f"best/: {last_line(str(error))}")
        damaged |= {checkpoint}
        return collect(sweep, paths, packs, found, log=log, submit=submit, damaged=damaged)
    if check.base_samples:
        storage_files.write_text(paths.base_samples, check.base_samples)
    difference = abs(check.eval_loss - evaluation["eval_loss"])
    text_part = INSIDE in (check.files.get(CONFIG) or b"").decode()
    verified = difference <= check.tolerance
    facts = facts_with(check.eval_loss, verified, text_part, check.test, check.metric)
    _write(facts, check, checkpoint, paths.best)
    log(_verdict(facts))
    return facts


def _best_kept(
    sweep: SweepConfig, paths: SweepPaths, found: Results, damaged: frozenset[str], log: Log
) -> tuple[TrialRecord, Metrics]:
    """The best evaluation whose checkpoint is there: a stopped trial's worker may have continued
    for a moment, and put a newer one in the place of one that was reported. Where the last weights
    count, the newest."""
    place = {row["trial"]: number for number, row in enumerate(found.leaderboard["trials"])}

    def order(evaluation: tuple[TrialRecord, Metrics]) -> tuple[bool, float, str, int]:
        trial, result = evaluation
        other = trial.trial != found.leaderboard["best"]
        if sweep.takes_last:
            return (other, place[trial.trial], "", -result["step"])
        return (other, result["eval_loss"], trial.trial, result["step"])

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


def _rungs(sweep: SweepConfig, trial: TrialConfig, rows: int) -> tuple[float, ...]:
    """The shares of a trial's rows at which the sweep has evaluated it, whatever the batch sizes of
    the others."""
    epochs = trial.num_train_epochs
    ladder = rung_ladders(sweep, rows).get(epochs, ())
    return tuple(round(at / round(epochs * rows), 6) for at in ladder)


def _facts(
    sweep: SweepConfig,
    packs: Packs,
    found: Results,
    best: TrialRecord,
    evaluation: Metrics,
    searched: Searched | None,
    reloaded_eval_loss: float,
    verified: bool,
    text_part: bool,
    test: Measured | None,
    metric: Measured | None,
) -> BundleFacts:
    board = found.leaderboard
    base = board["base"]["eval_loss"]
    if base is None:
        raise SftrayError(f"{found.folder}: a trial has an eval loss and the base has none")
    return BundleFacts(
        sweep=sweep.name,
        trial=best.trial,
        step=evaluation["step"],
        point=best.point,
        eval_loss=evaluation["eval_loss"],
        base_eval_loss=base,
        by_kind=losses_by_kind({**board, "best": best.trial}),
        confirmed=_confirmed(found),
        says=recommended({**board, "best": best.trial}),
        tokens=evaluation["tokens"],
        config=sweep.trial.at(best.point),
        data=sweep.data,
        packs=f"../../packs/{name_of(packs.root)}",
        packs_key=found.packs_key,
        data_counts=counts_of(packs.manifest),
        rungs=_rungs(sweep, sweep.trial.at(best.point), packs.rows("train")),
        grace_steps=sweep.grace_steps,
        evals_per_trial=sweep.evals_per_trial,
        end_of_turn=packs.end_of_turn,
        chat_format=packs.manifest["chat_format"],
        trials=len(found.records),
        leaderboard=[
            ShownTrial(
                trial=row["trial"],
                point=row["point"],
                eval_loss=row["eval_loss"],
                tokens=row["tokens"],
                outcome=row["outcome"],
            )
            for row in board["trials"][:SHOWN_TRIALS]
        ],
        versions=found.record["versions"],
        git_revision=found.record["git_revision"],
        reloaded_eval_loss=reloaded_eval_loss,
        verified=verified,
        text_part=text_part,
        test=test,
        metric=metric,
        searched=searched,
        energy_wh=best.energy_wh,
    )


def _searched(sweep: SweepConfig, log: Log) -> Searched | None:
    """What is known of the point from where it was found."""
    if sweep.searched_in is None:
        return None
    try:
        facts = BundleFacts.read(SweepPaths(sweep.searched_in).best)
    except (OSError, SftrayError) as error:
        log(f"warning: the card has no loss of the search, because it cannot be read: {error}")
        return None
    epochs = facts.config.num_train_epochs
    return Searched(facts.sweep, facts.says, facts.eval_loss, facts.base_eval_loss, epochs)


def _confirmed(found: Results) -> Confirmed | None:
    """What repetitions with other seeds said of the best point."""
    board = found.leaderboard.get("confirmed")
    if board is None:
        return None
    return next((point for point in board["points"] if point["trial"] == board["winner"]), None)


def _kept(folder: str, trial: str, evaluation: Metrics, log: Log) -> BundleFacts | None:
    """The facts in `folder`, if its bundle is whole and of this evaluation."""
    if not storage_files.exists(folder):
        return None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _, facts = open_bundle(folder, Path(scratch))
    except SftrayError as error:
        log(f"best/ is made again: {error.message}")
        return None
    wanted = (trial, evaluation["step"], evaluation["eval_loss"])
    return facts if (facts.trial, facts.step, facts.eval_loss) == wanted else None


def _folder(paths: SweepPaths, trial: TrialRecord) -> TrialPaths:
    return paths.trial(trial.trial) if trial.folder is None else TrialPaths(trial.folder)


def _texts(facts: BundleFacts) -> dict[str, str]:
    """The facts by file, for people, for Python and for programs; in the order of writing."""
    return {
        CARD: model_card(facts),
        REPEAT: repeat_file(facts),
        FACTS: json.dumps(to_json(facts), indent=1),
    }


def _rewrite(facts: BundleFacts, target: str) -> None:
    """Write the texts of a bundle anew, which is not ready meanwhile."""
    sums = json.loads(storage_files.read_text(join(target, MANIFEST)))["sha256"]
    storage_files.remove(join(target, MANIFEST))
    texts = _texts(facts)
    for name, text in texts.items():
        storage_files.write_text(join(target, name), text)
    sums[FACTS] = hashlib.sha256(texts[FACTS].encode()).hexdigest()
    storage_files.write_text(join(target, MANIFEST), as_manifest(sums))


def _write(facts: BundleFacts, check: Check, checkpoint: str, target: str) -> None:
    """Write the bundle to `target`, its manifest last."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, scratch = Path(temporary, "bundle"), Path(temporary, "checkpoint")
        folder.mkdir()
        copied = None in check.files.values()
        local = storage_files.get_folder(checkpoint, scratch) if copied else scratch
        for name, content in check.files.items():
            if content is None:
                shutil.copy(local / name, folder / name)
            else:
                (folder / name).write_bytes(content)
        for name, text in _texts(facts).items():
            (folder / name).write_text(text, encoding="utf-8")
        seal(folder)
        storage_files.put_folder(folder, target, last=MANIFEST)


def _verdict(facts: BundleFacts) -> str:
    loss, recorded = facts.reloaded_eval_loss, facts.eval_loss
    if facts.verified:
        return (
            f"best/: reloaded with {facts.loader}, {facts.loss_name} {loss:.6f} "
            f"(recorded {recorded:.6f})"
        )
    return (
        f"WARNING: best/ was reloaded with {facts.loader} and gave {facts.loss_name} {loss:.6f}, "
        f"but {recorded:.6f} was recorded. Do not use it before the reason is known"
    )


def _wait(ask: Callable[[], object], log: Log) -> Check:
    """A worker's answer, with a line every minute of waiting, and not for ever. It is asked again
    where its process dies."""
    import ray
    from ray.exceptions import RayActorError

    result, deaths = ask(), 0
    for waited in range(0, WORKER_MINUTES * 60, POLL_SECONDS):
        done, _ = ray.wait([result], timeout=POLL_SECONDS)
        if not done:
            log(f"best/: checking the winner on a worker, {waited + POLL_SECONDS} s so far")
            continue
        try:
            check: Check = ray.get(result)
            return check
        except RayActorError:
            deaths += 1
            if deaths > TRIES:
                raise
            result = ask()
    raise SftrayError(
        f"best/: no worker has checked the winner in {WORKER_MINUTES} minutes; free a GPU or CPU "
        "of the cluster and run the same command again"
    )
