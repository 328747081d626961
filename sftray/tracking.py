"""W&B for a sweep: one run a trial, by a process of its own that reads the journal.

Promise: nothing W&B does can stop, slow or kill a sweep. The driver starts that process (the
mirror), and at the end waits for it for a bounded time and says how to send what is left. Price:
one process of 100 MB and W&B's own of 35 MB beside the driver.
"""

from __future__ import annotations

import configparser
import hashlib
import netrc
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sftray import storage
from sftray.config import SweepConfig
from sftray.paths import SweepPaths, is_uri


class Tracking:
    """The mirror, as the driver holds it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | None,
        again: str,
        folder: Path,
        log: Callable[[str], None],
    ) -> None:
        self._process, self._again, self._folder, self._log = process, again, folder, log

    @classmethod
    def start(cls, sweep: SweepConfig, paths: SweepPaths, log: Callable[[str], None]) -> Tracking:
        """Start the mirror in the sweep's mode; without a key, or in trouble, one line and no W&B.

        The key stays where W&B finds it (environment, netrc): it is neither read nor passed on.
        """
        folder = local_folder(paths)
        mode = _mode(sweep.wandb, log)
        if mode == "disabled":
            return cls(None, "", folder, log)
        command = [sys.executable, "-m", "sftray.mirror", paths.root]
        command += ["--mode", mode, "--project", sweep.wandb_project]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / "mirror.log", "ab") as output:
                process = subprocess.Popen(
                    [*command, "--follow"],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is the driver's
                )
        except OSError as error:
            log(f"W&B: off, its process could not be started ({error}); the sweep goes on")
            return cls(None, "", folder, log)
        log(f"W&B: {mode}, project {sweep.wandb_project}, one run a trial, group {sweep.name}")
        return cls(process, shlex.join(["python", *command[1:]]), folder, log)

    def finish(self, timeout: float = 60.0) -> None:
        """Wait up to `timeout` seconds until the journal is mirrored, then end the mirror."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            process.communicate(b"finish\n", timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._log(f"W&B: not done after {timeout:g} s; `{self._again}` sends the rest")
            return
        if process.returncode != 0:
            why = f"its process ended with status {process.returncode}"
            log = self._folder / "mirror.log"
            self._log(f"W&B: {why}, see {log}; `{self._again}` sends the rest")
        elif left := left_offline(self._folder):
            self._log(left)


def _mode(wanted: str, log: Callable[[str], None]) -> str:
    """online, offline or disabled, with the line that says why where it was not asked for."""
    settings = _wandb_settings()
    if wanted == "auto":
        wanted = os.environ.get("WANDB_MODE") or settings.get("mode", "auto")
    if wanted in ("disabled", "offline"):
        return wanted
    if _has_key(settings):
        return "online"
    if wanted == "online":
        log("W&B: no API key found, so runs are kept offline; `wandb login` switches it online")
        return "offline"
    log("W&B: off, no API key found; `wandb login` switches it on, wandb='offline' keeps it local")
    return "disabled"


def key_present() -> bool:
    """Whether W&B has a key on this machine; the key itself is not read."""
    return _has_key(_wandb_settings())


def _wandb_settings() -> Mapping[str, str]:
    """W&B's own settings files: the user's, then the folder's."""
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([user / "settings", Path("wandb") / "settings"])
    except configparser.Error:
        return {}
    return parser["default"] if parser.has_section("default") else {}


def _has_key(settings: Mapping[str, str]) -> bool:
    """Whether wandb.init would find credentials."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    url = os.environ.get("WANDB_BASE_URL") or settings.get("base_url", "https://api.wandb.ai")
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return "api_key" in settings or urlsplit(url).netloc in netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def local_folder(paths: SweepPaths) -> Path:
    """Where W&B's files lie: in the sweep's folder, or on this machine if that is a URI."""
    if not is_uri(paths.root):
        return Path(storage.resolve(paths.tracking)[1])
    key = hashlib.sha256(paths.root.encode()).hexdigest()[:12]
    return Path.home() / ".cache" / "sftray" / key / "wandb"


def left_offline(folder: Path) -> str | None:
    """The line that says how to upload what is kept on the disk, if anything is."""
    if not any(folder.glob("offline-run-*")):
        return None
    return f"W&B: runs are kept offline; `wandb sync {shlex.quote(str(folder))}` uploads them"
