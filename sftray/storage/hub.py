"""What comes from the Hugging Face Hub: a model's files, fetched once a node.

Promise: of the processes of a node that want the same model one downloads it, and the others read
the cache; a Hub that is busy (429, 5xx, timeouts) is asked again for PATIENCE_SECONDS, which is
said once. huggingface_hub tries each file five times by itself and waits as long as the Hub's
Retry-After says; it does not when it asks which commit a revision is. A folder of the user's own
costs nothing.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sftray.errors import OutageError
from sftray.storage import outages
from sftray.storage.faults import plainly
from sftray.storage.paths import node_cache

T = TypeVar("T")

PATIENCE_SECONDS = 900.0
"""Three of the five minutes for which the Hub counts requests."""
DOWNLOAD_HOURS = 6
"""How long to wait for another process of this node that downloads the same model."""

_MODEL = ("*.json", "*.jinja", "*.txt", "*.model", "model*.safetensors")
_BUSY = {408, 429, 500, 502, 503, 504}
_LOST_ON_THE_WAY = {"ReadTimeout", "WriteTimeout", "ReadError", "RemoteProtocolError"}
"""Of httpx. Where there is no connection at all the Hub is not waited for: a machine without
internet would wait for a model whose name is misspelt."""

_log = logging.getLogger("sftray")


@functools.lru_cache(maxsize=8)
def fetched(model: str, revision: str | None, *, code: bool = False) -> dict[str, Any]:
    """What to load a model with by `from_pretrained`, after its files have come to this node."""
    if Path(model).expanduser().is_dir():
        return {"revision": revision}
    patterns = [*_MODEL, "*.py"] if code else list(_MODEL)
    folder = snapshot(model, revision, patterns)
    if not any(folder.glob("*.safetensors")):  # transformers says so
        return {"revision": revision}
    return {"revision": folder.name, "local_files_only": True}


def snapshot(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """This node's folder of a model's files, downloaded as far as they are not there.

    Raises OutageError where the Hub stays busy, and what huggingface_hub raises.
    """
    from huggingface_hub import snapshot_download

    def download() -> Path:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))

    with _alone(model):
        return asked_patiently(download)


def asked_patiently(question: Callable[[], T]) -> T:
    """What the Hub answers, asked again as long as it is busy."""
    with outages.patience(PATIENCE_SECONDS):
        return outages.patiently(
            "the Hub",
            question,
            passes=is_busy,
            advice="log in for a higher limit (HF_TOKEN), or wait",
        )


def is_busy(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, a Hub that has too much to do."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in _BUSY:
            return True
        if type(error).__name__ in _LOST_ON_THE_WAY:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _alone(model: str) -> Iterator[None]:
    """Hold this node's lock of a model."""
    from filelock import FileLock, Timeout

    name = re.sub(r"[^\w.-]", "--", model)
    folder = node_cache() / "hub"
    with plainly(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        try:
            try:
                lock.acquire(timeout=1)
            except Timeout:
                _log.warning("%s: another process of this machine fetches it; waiting", model)
                lock.acquire(timeout=DOWNLOAD_HOURS * 3600)
        except Timeout as error:
            raise OutageError(
                f"{model}: another process of this machine has not fetched it in {DOWNLOAD_HOURS} "
                "hours",
                hint="see whether the Hub can be reached, and run the same command to continue",
            ) from error
    try:
        yield
    finally:
        lock.release()
