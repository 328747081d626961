"""`--fresh`: the sweep of a name is deleted, last of all and by nobody while it runs.

Promise: nothing is deleted before all that is to take its place has been checked, nor while a
driver runs it. A deletion that was cut off is finished by the
next start, so that no trial continues from a checkpoint of the sweep before.
"""

from __future__ import annotations

from sftray.errors import JournalError, Log
from sftray.storage import files
from sftray.storage.journal import held, read_events
from sftray.storage.journal.event_types import EventName
from sftray.storage.paths import SweepPaths, join, name_of


def finished_trials(paths: SweepPaths) -> int | None:
    """How many trials would be lost; None where the journal cannot be read."""
    try:
        events = read_events(paths.journal)
    except JournalError:
        return None
    return sum(event["event"] == EventName.TRIAL_ENDED for event in events)


def require_whole(paths: SweepPaths, *, begun: bool) -> None:
    """Raise JournalError where a part of the folder is missing: the record of what trials that have
    `begun` were made from, or the journal of what lies in trials/, whose checkpoints another sweep
    would continue from."""
    what = ""
    if begun and not files.exists(paths.sweep):
        what = f"{paths.sweep}: missing, but the journal beside it has trials"
    elif not begun and files.list_names(paths.trials):
        what = f"{paths.trials}: is not empty, but the journal beside it has no trials"
    if what:
        raise JournalError(what, "restore what is missing, or begin again with --fresh")


def delete_sweep(paths: SweepPaths, log: Log) -> None:
    """Delete all that a sweep has left but its lock or lease, which a driver that wakes up still
    meets. Raises JournalError where a driver runs it."""
    if not files.exists(paths.root):
        return
    with held(paths.journal, log=log):
        files.write_text(paths.deleting, "")
        kept = {name_of(path) for path in (paths.lock, paths.lease, paths.deleting)}
        for name in files.list_names(paths.root):
            if name not in kept:
                files.remove(join(paths.root, name))
        files.remove(paths.deleting)
