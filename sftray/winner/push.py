"""The winner's folder on the Hugging Face Hub.

Promise: nothing leaves the machine before it was listed and agreed to. Text of the dataset is not
among it, unless `with_samples`, nor paths of this machine, but for a base that is a local folder.
The token is huggingface_hub's business: it is neither read nor printed here.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sftray.data.source.sources import names_files
from sftray.errors import Log, SftrayError
from sftray.storage import files
from sftray.storage.checksums import MANIFEST
from sftray.storage.hub_errors import HUB_ERRORS, refusal
from sftray.storage.paths import SweepPaths, is_uri, name_of
from sftray.winner.bundle import FACTS, OWN_TEXTS, BundleFacts, open_bundle

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TEXTS = (FACTS, *OWN_TEXTS)
"""Files of ours, in which paths are cut to names."""


def push(
    folder: str,
    repo: str,
    *,
    private: bool = False,
    merged: bool = False,
    with_samples: bool = False,
    trust_remote_code: bool = False,
    agree: Callable[[str], bool],
    log: Log,
    api: HfApi | None = None,
) -> str | None:
    """Upload the adapter of a sweep's or a bundle's folder, or the model `merged` with it, to a
    repository "user/name", created if it does not exist; returns the commit,
    None where `agree` said no.

    `agree` is asked once, after the list of files was logged. `api` is an HfApi. Raises SftrayError
    where there is no token, no network or no permission.
    """
    from huggingface_hub import HfApi

    hub = api or HfApi()
    with tempfile.TemporaryDirectory(prefix="sftray-push-") as temporary:
        staged = Path(temporary) / "folder"
        if merged:
            from sftray.winner.merge import merge

            merge(folder, str(staged), check=False, log=log, trust_remote_code=trust_remote_code)
            _, facts = open_bundle(folder)
        else:
            local, facts = open_bundle(folder)
            # its sums are of the files before paths are cut
            shutil.copytree(local, staged, ignore=shutil.ignore_patterns(MANIFEST))
        if with_samples:
            _add_samples(folder, facts.trial, staged)
        _cut_paths(staged, facts)
        try:
            _list(staged, repo, hub.whoami()["name"], private, facts, log)
            if not agree(f"upload to {repo}?"):
                return None
            hub.create_repo(repo, private=private, exist_ok=True)
            message = f"{facts.sweep}: trial {facts.trial}"
            done = hub.upload_folder(repo_id=repo, folder_path=staged, commit_message=message)
        except HUB_ERRORS as error:
            raise SftrayError(f"{repo}: {refusal(error)}") from error
    return str(done.commit_url)


def _add_samples(folder: str, trial: str, staged: Path) -> None:
    """Prompts, references and answers: text of the dataset."""
    paths = SweepPaths(folder)
    for path in (paths.base_samples, paths.trial(trial).samples):
        if not files.exists(path):
            raise SftrayError(
                f"{path}: there is no such file; --with-samples is for a sweep's folder"
            )
        (staged / name_of(path)).write_bytes(files.read_bytes(path))


def _cut_paths(staged: Path, facts: BundleFacts) -> None:
    """Write local paths of data and storage as names in what sftray wrote."""
    data = facts.data
    sources = [one.path for one in data.mixture]
    known = [facts.packs, *sources, data.eval_source, data.test_source, data.chat_template]
    local = [path for path in known if path and "/" in path and _is_local(path)]
    for file in filter(Path.is_file, (staged / name for name in TEXTS)):
        text = file.read_text(encoding="utf-8")
        for path in sorted(local, key=len, reverse=True):
            text = text.replace(json.dumps(path)[1:-1], json.dumps(name_of(path))[1:-1])
        file.write_text(text, encoding="utf-8")


def _is_local(path: str) -> bool:
    return not is_uri(path) and (path.startswith(("/", "~", ".")) or names_files(path))


def _list(staged: Path, repo: str, user: str, private: bool, facts: BundleFacts, log: Log) -> None:
    seen = "private" if private else "PUBLIC"
    log(f"to {repo} as {user} ({seen} if it is made now; an older one stays as it is):")
    for path in sorted(staged.rglob("*")):
        if path.is_file():
            log(f"  {path.stat().st_size / 1e6:9.2f} MB  {path.relative_to(staged)}")
    if not facts.verified:
        log("WARNING: reloaded, it did not have the eval loss that was recorded")
    model = facts.config.model
    if Path(model).is_dir():
        log(f"WARNING: its base is a folder of this machine, {model}: others cannot load it")
