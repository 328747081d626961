"""The process that writes a sweep's journal as TensorBoard's event files, while it runs or after.

`python -m sftray.tensorboard SWEEP_FOLDER`, then `tensorboard --logdir SWEEP_FOLDER/tensorboard`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sftray.storage.paths import SweepPaths
from sftray.views.tracking.journal_follower import follow, take_lock
from sftray.views.tracking.mirror_processes import local_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Write event files; 0 if all of the journal was read."""
    parser = argparse.ArgumentParser("python -m sftray.tensorboard", description=__doc__)
    parser.add_argument("folder", help="the sweep's folder or URI")
    parser.add_argument(
        "--follow", action="store_true", help="go on until a line or the end comes on stdin"
    )
    given = parser.parse_args(arguments)
    # tensorboardX loads torch where there is one, only to know a tensor when it sees one
    sys.modules["torch"] = None  # type: ignore[assignment]
    from sftray.views.tracking.tensorboard_files import EventFiles

    paths = SweepPaths(given.folder)
    folder = local_folder(paths.root, paths.tensorboard)
    lock = take_lock(folder)
    files = EventFiles(paths, folder)
    all_read = follow(paths, files, until_told=given.follow)
    files.close()
    os.close(lock)
    return 0 if all_read else 1


if __name__ == "__main__":
    sys.exit(main())
