"""A sweep as a user runs it, after a look at who could get into its Ray; for test_secrets."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import ray

from sftray.cli.launch import launch
from sftray.cluster.connect import connect
from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.demo import FOLDER


def main(data: str, storage: str, seen: str) -> None:
    connect(print, dashboard=True)
    Path(seen).write_text(json.dumps(look()))
    launch(sweep(data, storage), [])


def sweep(data: str, storage: str) -> SweepConfig:
    """Two trials of 12 steps on a bank, none of whose answers are kept."""
    return SweepConfig(
        name="secrets",
        data=DataConfig(data, max_length=256, eval_fraction=0.15, num_eval_conversations=22),
        trial=TrialConfig(
            str(FOLDER),
            base_precision="fp32",
            effective_batch_size=2,
            num_train_epochs=0.8,
            lora_r=4,
        ),
        points=({"learning_rate": 1e-2}, {"learning_rate": 1e-3}),
        scheduler="none",
        evals_per_trial=1,
        num_samples_generated=0,
        bank_slots=2,
        storage=storage,
        wandb="offline",
    )


def look() -> dict[str, object]:
    """Where the dashboard listens, and what it answers to who has no token."""
    url = str(ray._private.worker.get_dashboard_url())
    port = int(url.rpartition(":")[2])
    found = [
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    paths = ("/api/jobs/", "/api/v0/nodes", "/nodes?view=summary")
    token = Path.home() / ".ray" / "auth_token"
    return {
        "listens": found,
        "answers": [answer(f"http://{url}{path}") for path in paths],
        "token_mode": oct(token.stat().st_mode & 0o777),
    }


def answer(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=600) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    main(*sys.argv[1:])
