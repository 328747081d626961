"""A trial as a run of W&B: its name and configuration, what is logged in it, and on which axis.

Promise: W&B gets the configuration, the metrics, the leaderboard and, if the sweep says so, the
samples and the best adapter; no console, arguments, environment, git or code of the machine. Price:
online, starting a run waits up to `init_timeout` seconds, and ending one up to `finish_timeout`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import wandb

from sftray.config import SweepConfig
from sftray.config.config_json import to_json
from sftray.config.points import Point, short
from sftray.storage.journal.event_types import Metrics
from sftray.views.tracking.tracked_metrics import (
    BY_KIND,
    CURVE,
    METRICS,
    Answer,
    MetricRow,
    TrackedTrial,
)

UPLOAD_SECONDS, ADAPTER_SECONDS = 30.0, 3600.0
"""For what is left of a run when it ends; of one with the adapter."""


def start_run(
    sweep: SweepConfig,
    uid: str,
    project: str,
    folder: Path,
    init_timeout: float,
    trial: TrackedTrial,
    mode: Literal["online", "offline"],
    finish_timeout: float,
) -> wandb.Run:
    """Start a trial's run, or continue it; `sweep` and its `uid` say which it is.

    W&B writes to `folder`/wandb. Raises wandb.errors.Error after `init_timeout` seconds.
    """
    run = wandb.init(
        mode=mode,
        project=project,
        group=sweep.name,
        job_type="trial",
        id=_name(f"{sweep.name}-{uid}-{trial.name}"),
        name=_title(trial.name, trial.point),
        config=_config(sweep, trial.name, trial.point),
        dir=str(folder),
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(
            init_timeout=init_timeout,
            finish_timeout=finish_timeout,
            finish_timeout_raises=True,
            use_dot_wandb=False,
            silent=True,
            symlink=False,  # `wandb sync` would send latest-run twice
            # of the machine nothing: no console, arguments, environment, git or code
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
    # evaluations are drawn against tokens and the curve against optimizer steps; every row has
    # step, rows and tokens, so that a panel can be switched to any of them
    for axis in ("step", "rows", "tokens"):
        run.define_metric(axis)
    for metric in (*METRICS, f"{BY_KIND}/*"):
        if metric not in ("rows", "tokens"):
            run.define_metric(metric, step_metric="tokens")
    for metric in CURVE:
        run.define_metric(metric, step_metric="step")
    return run


def log_start(run: wandb.Run, metrics: Metrics) -> None:
    """What the trial runs with: attention, device, …"""
    known = (*METRICS, "step", "curve", "eval_loss_by_kind", "eval_loss_by_source")
    run.summary.update({k: v for k, v in metrics.items() if k not in known})


def log_row(run: wandb.Run, row: MetricRow) -> None:
    """A row of the history; an evaluation is sent off at once."""
    run.log(row.flat(), step=row.step, commit="eval_loss" in row.values or None)


def log_samples(run: wandb.Run, answers: Sequence[Answer], *, step: int) -> None:
    """Answers as a table by prompt and step."""
    data = [list(answer.values()) for answer in answers]
    table = wandb.Table(columns=list(answers[0]), data=data)
    run.log({"samples": table}, step=step)


def log_leaderboard(run: wandb.Run, sweep: str, board: Mapping[str, Any], *, step: int) -> None:
    """The leaderboard as a table of the run, and as an artifact of the sweep's name."""

    def plain(value: object) -> object:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value

    axes = list(dict.fromkeys(name for row in board["trials"] for name in row["point"]))
    facts = [name for name in _LEADERBOARD if any(name in row for row in board["trials"])]
    data = [
        [
            row["trial"],
            *(plain(row["point"].get(axis)) for axis in axes),
            *(plain(row.get(name)) for name in facts),
        ]
        for row in board["trials"]
    ]
    table = wandb.Table(columns=["trial", *axes, *facts], data=data, allow_mixed_types=True)
    run.log({"leaderboard": table}, step=step)
    about = {"best": board["best"], "base_eval_loss": board["base"]["eval_loss"]}
    artifact = wandb.Artifact(f"{_name(sweep)}-leaderboard", type="leaderboard", metadata=about)
    artifact.add(table, "leaderboard")
    run.log_artifact(artifact)


def log_adapter(run: wandb.Run, sweep: str, folder: Path, best: Mapping[str, object]) -> None:
    """The best adapter, as PEFT loads it, as an artifact of the sweep's name."""
    about = {name: best[name] for name in ("trial", "step", "eval_loss", "point")}
    artifact = wandb.Artifact(f"{_name(sweep)}-adapter", type="model", metadata=about)
    artifact.add_dir(str(folder))
    run.log_artifact(artifact)


_LEADERBOARD = (
    "eval_loss", "by_source", "metric", "step", "tokens", "seconds", "gpu_seconds", "outcome",
    "verdict", "advice",
)  # fmt: skip


def _name(text: str) -> str:
    """As W&B wants the names of runs and artifacts."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def _title(trial: str, point: Mapping[str, object]) -> str:
    """`003 learning_rate=0.00012 effective_batch_size=32`, at most W&B's 128 characters."""
    values = (f"{name}={short(value)}" for name, value in point.items())
    return " ".join([trial, *values])[:128]


def _config(sweep: SweepConfig, trial: str, point: Point) -> dict[str, object]:
    """Every TrialConfig field at the trial's point, every DataConfig field as data_…"""
    data = {f"data_{name}": value for name, value in to_json(sweep.data).items()}
    return {"trial": trial, **to_json(sweep.trial.at(point)), **data}
