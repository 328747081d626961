"""W&B and TensorBoard for a sweep, each by a process of its own that reads the journal.

Promise: nothing that they do can stop, slow or kill a sweep. The driver starts the processes (the
mirrors), and at the end waits for them for a bounded time and says how to send what is left. Price:
for W&B one process of 100 MB and its own of 35 MB beside the driver.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import netrc
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sftray.config import SweepConfig
from sftray.errors import Log
from sftray.storage import files
from sftray.storage.paths import SweepPaths, is_uri, name_of


class Tracking:
    """The mirrors of a sweep, as the driver holds them."""

    def __init__(self, mirrors: Sequence[MirrorProcess], log: Log) -> None:
        self._mirrors, self._log = list(mirrors), log

    @classmethod
    def start(cls, sweep: SweepConfig, paths: SweepPaths, log: Log) -> Tracking:
        """Start what the sweep asks for: W&B in its mode, without a key, or in trouble, one line
        and no W&B; TensorBoard's event files.

        W&B's key stays where W&B finds it (environment, netrc): it is neither read nor passed on.
        """
        started = [_start_wandb(sweep, paths, log)]
        if sweep.tensorboard:
            folder = local_folder(paths.root, paths.tensorboard)
            about = f"event files; `tensorboard --logdir {shlex.quote(str(folder))}` shows them"
            started.append(
                _start("TensorBoard", about, "tensorboard_files", [paths.root], folder, log)
            )
        return cls([mirror for mirror in started if mirror], log)

    def finish(self, timeout: float = 60.0) -> None:
        """Wait up to `timeout` seconds until the journal is mirrored, then end the mirrors."""
        mirrors, self._mirrors = self._mirrors, []
        for mirror in mirrors:
            mirror.ask()
        end = time.monotonic() + timeout
        for mirror in mirrors:
            mirror.finish(max(0.0, end - time.monotonic()), timeout, self._log)


@dataclass(frozen=True)
class MirrorProcess:
    """A process that follows the journal until it is asked to finish."""

    name: str
    process: subprocess.Popen[bytes]
    again: str
    """The command that does the same after the sweep."""
    folder: Path

    def ask(self) -> None:
        """Have it come to its end."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended by itself
            self.process.stdin.write(b"finish\n")
            self.process.stdin.close()

    def finish(self, left: float, timeout: float, log: Log) -> None:
        """Wait for its end, and say what is missing."""
        try:
            status = self.process.wait(left)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            log(f"{self.name}: not done after {timeout:g} s; `{self.again}` sends the rest")
            return
        if status != 0:
            reason = f"its process ended with status {status}, see {self.folder / 'mirror.log'}"
            log(f"{self.name}: {reason}; `{self.again}` sends the rest")
        elif left_behind := left_offline(self.folder):
            log(left_behind)


def _start_wandb(sweep: SweepConfig, paths: SweepPaths, log: Log) -> MirrorProcess | None:
    mode = _mode(sweep.wandb, log)
    if mode == "disabled":
        return None
    arguments = [paths.root, "--mode", mode, "--project", sweep.wandb_project]
    arguments += ["--samples" if sweep.wandb_samples else "--no-samples"]
    arguments += ["--adapter" if sweep.wandb_adapter else "--no-adapter"]
    about = f"{mode}, project {sweep.wandb_project}, one run a trial, group {sweep.name}"
    folder = local_folder(paths.root, paths.tracking)
    return _start("W&B", about, "wandb_mirror", arguments, folder, log)


def _start(
    name: str, about: str, module: str, arguments: Sequence[str], folder: Path, log: Log
) -> MirrorProcess | None:
    """The process of a module, and its line; only a line where it does not start."""
    command = ["-m", f"sftray.views.tracking.{module}", *arguments]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "mirror.log", "ab") as output:
            process = subprocess.Popen(
                [sys.executable, *command, "--follow"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is the driver's
            )
    except OSError as error:
        log(f"{name}: off, its process could not be started ({error}); the sweep continues")
        return None
    log(f"{name}: {about}")
    return MirrorProcess(name, process, shlex.join(["python", *command]), folder)


def _mode(wanted: str, log: Log) -> str:
    """online, offline or disabled, with the line that says why where it was not asked for."""
    if wanted == "auto":
        wanted = os.environ.get("WANDB_MODE") or _wandb_settings().get("mode", "auto")
    if wanted in ("disabled", "offline"):
        return wanted
    if key_present():
        return "online"
    if wanted == "online":
        log("W&B: no API key found, so runs are kept offline; `wandb login` switches it online")
        return "offline"
    log("W&B: off, no API key found; `wandb login` switches it on, wandb='offline' keeps it local")
    return "disabled"


def _wandb_settings() -> Mapping[str, str]:
    """W&B's own settings files: the user's, then the folder's."""
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([user / "settings", Path("wandb") / "settings"])
    except configparser.Error:
        return {}
    return parser["default"] if parser.has_section("default") else {}


def key_present() -> bool:
    """Whether wandb.init would find credentials on this machine; the key itself is not read."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    settings = _wandb_settings()
    url = os.environ.get("WANDB_BASE_URL") or settings.get("base_url", "https://api.wandb.ai")
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return "api_key" in settings or urlsplit(url).netloc in netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def local_folder(root: str, folder: str) -> Path:
    """Where the files of a mirror lie that would be in `folder` of the sweep `root`: there, or on
    this machine if that is a URI."""
    if not is_uri(root):
        return Path(files.resolve(folder)[1])
    key = hashlib.sha256(root.encode()).hexdigest()[:12]
    return Path.home() / ".cache" / "sftray" / key / name_of(folder)


def left_offline(folder: Path) -> str | None:
    """The line that says how to upload what is kept on the disk, if anything is."""
    if not any(folder.glob("offline-run-*")):
        return None
    return f"W&B: runs are kept offline; `wandb sync {shlex.quote(str(folder))}` uploads them"
