"""A trial as a run of W&B: its name and configuration, what is logged in it, and on which axis.

Promise: W&B gets the configuration, the metrics and, if the sweep says so, the samples; no console,
arguments, environment, git or code of the machine. Price: online, starting a run waits up to
`init_timeout` seconds, and ending one up to UPLOAD_SECONDS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb

from sftray.results import short

METRICS = (
    "rows",
    "tokens",
    "supervised_tokens",
    "epoch",
    "train_loss",
    "eval_loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "gpu_memory_gb",
    "seconds",
    "gpu_seconds",
    "data_wait",
)
"""What each evaluation logs, against rows: at equal rows all trials have seen the same data."""
CURVE = ("train/loss", "train/learning_rate", "train/grad_norm")
"""What each optimizer step logs, against steps."""

UPLOAD_SECONDS = 30.0  # for what is left of a run when it ends


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
) -> Any:
    """Start a trial's run, or go on with it: `sweep` (to_json) and its `uid` say which it is.

    W&B writes to `folder`/wandb. Raises wandb.errors.Error after `init_timeout` seconds.
    """
    return wandb.init(
        mode=mode,
        project=project,
        group=sweep["name"],
        job_type="trial",
        id=re.sub(r"[^A-Za-z0-9._-]", "-", f"{sweep['name']}-{uid}-{trial}"),
        name=_title(trial, point),
        config=_config(sweep, trial, point),
        dir=str(folder),
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(
            init_timeout=init_timeout,
            finish_timeout=UPLOAD_SECONDS,
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
    """Draw evaluations against rows and the curve against optimizer steps."""
    run.define_metric("step")
    run.define_metric("rows")
    for metric in METRICS[1:]:
        run.define_metric(metric, step_metric="rows")
    for metric in CURVE:
        run.define_metric(metric, step_metric="step")


def log_result(run: Any, step: int, metrics: Mapping[str, Any], *, after: int) -> None:
    """Log the evaluation at `step`, and what its curve has of the steps `after`."""
    if step == 0:  # what the trial runs with: attention, device, …
        known = (*METRICS, "step", "curve")
        run.summary.update({k: v for k, v in metrics.items() if k not in known})
    for at, *values in metrics.get("curve", []):
        if at > after:
            entry = dict(zip(CURVE, values, strict=False))
            entry |= {"step": at, "rows": metrics["rows"] * at // step}
            run.log(entry, step=at)
    entry = {name: metrics[name] for name in METRICS if name in metrics}
    run.log({"step": step, **entry}, step=step, commit=True)


def log_samples(run: Any, text: str, *, step: int) -> None:
    """Log samples.jsonl as a table; what is not a plain value is shown as JSON."""
    samples = [json.loads(line) for line in text.splitlines()]
    columns = list(dict.fromkeys(name for sample in samples for name in sample))
    data = [[_plain(sample.get(name)) for name in columns] for sample in samples]
    table = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
    run.log({"samples": table}, step=step)


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
