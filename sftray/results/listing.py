"""The sweeps of a storage, a line each."""

from __future__ import annotations

from sftray.errors import SftrayError
from sftray.results.load import load
from sftray.storage import files
from sftray.storage.paths import PACKS, SweepPaths, join


def listing(storage: str) -> str:
    """Name, state, trials, best eval loss and start of each. Raises SftrayError where there is no
    sweep."""
    names = [] if files.is_file(storage) else files.list_names(storage)
    found = [name for name in names if files.exists(SweepPaths.of(storage, name).sweep)]
    if not found:
        raise SftrayError(
            f"{storage}: got no sweep there, must be a folder of sweeps, as --storage of a sweep",
            "name it: sftray list FOLDER",
        )
    lines = [["sweep", "state", "trials", "best eval_loss", "started"]]
    lines += [_line(storage, name) for name in found if name != PACKS]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _line(storage: str, name: str) -> list[str]:
    try:
        sweep = load(join(storage, name))
    except SftrayError as error:
        return [name, f"unreadable: {error.message}", "", "", ""]
    board = sweep.leaderboard
    state = "ended" if sweep.ended else board.get("budget_spent") or "not ended"
    ended = sum(trial.outcome is not None for trial in sweep.records)
    of = max(sweep.config.total_trials, len(sweep.records))
    losses = [row["eval_loss"] for row in board["trials"] if row["trial"] == board["best"]]
    best = "".join(f"{loss:.4f}" for loss in losses if loss is not None)
    return [name, state, f"{ended} of {of}", best, sweep.record["started"]]
