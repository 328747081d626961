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

from sftray.config.points import short
from sftray.trial.samples import Sample
from sftray.views.tracking.tracked_metrics import CURVE, METRICS, MetricRow, answers_of

UPLOAD_SECONDS, ADAPTER_SECONDS = 30.0, 3600.0
"""For what is left of a run when it ends; of one with the adapter."""


def start_run(
    sweep: Mapping[str, Any],
    uid: str,
    trial: str,
    point: Mapping[str, Any],
    *,
    mode: Literal["online", "offline"],
    project: str,
    folder: Path,
    init_timeout: float,
    finish_timeout: float = UPLOAD_SECONDS,
) -> Any:
    """Start a trial's run, or go on with it: `sweep` (to_json) and its `uid` say which it is.

    W&B writes to `folder`/wandb. Raises wandb.errors.Error after `init_timeout` seconds.
    """
    return wandb.init(
        mode=mode,
        project=project,
        group=sweep["name"],
        job_type="trial",
        id=_name(f"{sweep['name']}-{uid}-{trial}"),
        name=_title(trial, point),
        config=_config(sweep, trial, point),
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


def define_axes(run: Any) -> None:
    """Draw evaluations against tokens and the curve against optimizer steps. Every row has step,
    rows and tokens, so that a panel can be switched to any of them."""
    for axis in ("step", "rows", "tokens"):
        run.define_metric(axis)
    for metric in METRICS:
        if metric not in ("rows", "tokens"):
            run.define_metric(metric, step_metric="tokens")
    for metric in CURVE:
        run.define_metric(metric, step_metric="step")


def log_start(run: Any, metrics: Mapping[str, Any]) -> None:
    """What the trial runs with: attention, device, …"""
    known = (*METRICS, "step", "curve")
    run.summary.update({k: v for k, v in metrics.items() if k not in known})


def log_row(run: Any, row: MetricRow) -> None:
    """A row of the history; an evaluation is sent off at once."""
    run.log(row, step=row["step"], commit="eval_loss" in row or None)


def log_samples(run: Any, samples: Sequence[Sample], base: Sequence[Sample], *, step: int) -> None:
    """Answers beside the reference and the untrained base's, as a table by prompt and step."""
    rows = list(answers_of(samples, base))
    table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    run.log({"samples": table}, step=step)


def log_leaderboard(run: Any, sweep: str, board: Mapping[str, Any], *, step: int) -> None:
    """The leaderboard as a table of the run, and as an artifact of the sweep's name."""
    axes = list(dict.fromkeys(name for row in board["trials"] for name in row["point"]))
    facts = [name for name in _LEADERBOARD if any(name in row for row in board["trials"])]
    data = [
        [row["trial"], *(_plain(row["point"].get(axis)) for axis in axes), *map(row.get, facts)]
        for row in board["trials"]
    ]
    table = wandb.Table(columns=["trial", *axes, *facts], data=data, allow_mixed_types=True)
    run.log({"leaderboard": table}, step=step)
    about = {"best": board["best"], "base_eval_loss": board["base"]["eval_loss"]}
    artifact = wandb.Artifact(f"{_name(sweep)}-leaderboard", type="leaderboard", metadata=about)
    artifact.add(table, "leaderboard")
    run.log_artifact(artifact)


def log_adapter(run: Any, sweep: str, folder: Path, best: Mapping[str, Any]) -> None:
    """The best adapter, as PEFT loads it, as an artifact of the sweep's name."""
    about = {name: best[name] for name in ("trial", "step", "eval_loss", "point")}
    artifact = wandb.Artifact(f"{_name(sweep)}-adapter", type="model", metadata=about)
    artifact.add_dir(str(folder))
    run.log_artifact(artifact)


_LEADERBOARD = (
    "eval_loss", "metric", "step", "tokens", "seconds", "gpu_seconds", "outcome", "verdict",
    "advice",
)  # fmt: skip


def _name(text: str) -> str:
    """As W&B wants the names of runs and artifacts."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def _title(trial: str, point: Mapping[str, Any]) -> str:
    """`003 learning_rate=0.00012 effective_batch_size=32`, at most W&B's 128 characters."""
    values = (f"{name}={short(value)}" for name, value in point.items())
    return " ".join([trial, *values])[:128]


def _config(sweep: Mapping[str, Any], trial: str, point: Mapping[str, Any]) -> dict[str, Any]:
    """Flat: every TrialConfig field at the trial's point, every DataConfig field as data_…"""
    data = {f"data_{name}": value for name, value in sweep["data"].items()}
    return {"trial": trial, **sweep["trial"], **point, **data}


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
