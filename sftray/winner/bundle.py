"""The winner's folder: an ordinary PEFT adapter, checked, with its story beside it; or a whole
model, where all weights were trained. `BundleFacts` is that story, and best/sweep.json.

Promise: text and JSON only; neither ray, torch nor PEFT is imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.manifest import Counts
from sftray.errors import CheckpointError, SftrayError
from sftray.results.confirmation import Confirmed
from sftray.results.loss_by_kind import LossByKind
from sftray.storage import files
from sftray.storage.checksums import MANIFEST, as_manifest, damaged, read_sums, sums_of
from sftray.storage.paths import SweepPaths, is_uri, join
from sftray.winner.measured import Measured

WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
"""What a bundle has one of: an adapter, a model, or a model in many files."""
FACTS = "sweep.json"
CARD = "README.md"
REPEAT = "repeat.py"
OWN_TEXTS = (CARD, REPEAT)

_log = logging.getLogger("sftray")


@dataclass(frozen=True)
class ShownTrial:
    """A row of the leaderboard, as the card shows it."""

    trial: str
    point: Mapping[str, object]
    eval_loss: float | None
    tokens: int
    outcome: str | None


@dataclass(frozen=True)
class Searched:
    """What the sweep says that has found a bundle's point."""

    sweep: str
    says: str
    """In the words of its leaderboard."""
    eval_loss: float
    base_eval_loss: float
    epochs: float


@dataclass(frozen=True)
class BundleFacts:
    """What is known of a winner. Losses are in nats a supervised token."""

    sweep: str
    trial: str
    step: int
    """The optimizer step that the weights are of."""
    point: Mapping[str, object]
    eval_loss: float
    base_eval_loss: float
    """Of the untrained base."""
    confirmed: Confirmed | None
    """What repetitions with other seeds said of the point."""
    says: str
    """What is recommended, in the words of the leaderboard."""
    tokens: int
    """That the trial had trained on."""
    config: TrialConfig
    data: DataConfig
    packs: str
    packs_key: str
    data_counts: Mapping[str, Counts]
    """By split."""
    rungs: tuple[float, ...]
    """Shares of its rows at which the trial was evaluated besides."""
    grace_steps: int
    evals_per_trial: int
    end_of_turn: int
    """The token that ends an answer."""
    chat_format: Mapping[str, object]
    """What prompts are written with (`ChatFormat.to_json`)."""
    trials: int
    """How many the sweep had."""
    leaderboard: Sequence[ShownTrial]
    """The best of them."""
    versions: Mapping[str, str]
    git_revision: str | None
    reloaded_eval_loss: float
    """Of the folder, loaded again by plain transformers and PEFT."""
    verified: bool
    """Whether that is the recorded loss."""
    text_part: bool = False
    """Whether the base is the language model of a larger checkpoint."""
    by_kind: Sequence[LossByKind] = ()
    """Both losses apart by kind of token."""
    test: Measured | None = None
    """What base and winner lose on the test set; None where there is none."""
    metric: Measured | None = None
    """What the sweep's metric says of base and winner, by plain transformers."""
    searched: Searched | None = None
    """Of a last training."""
    energy_wh: float | None = None
    """That the trial's GPUs have counted; None where they do not."""

    @classmethod
    def read(cls, folder: str) -> BundleFacts:
        """The facts in a bundle's folder. Raises SftrayError where they are of another version."""
        path = join(folder, FACTS)
        values = json.loads(files.read_text(path))
        try:
            typed = {
                "config": TrialConfig(**values["config"]),
                "data": DataConfig(**values["data"]),
                "leaderboard": [ShownTrial(**row) for row in values["leaderboard"]],
                "searched": (of := values.get("searched")) and Searched(**of),
            }
            return cls(**{**values, **typed})
        except (KeyError, TypeError) as error:
            raise SftrayError(
                f"{path}: got other fields than a winner's ({error}), must be written by this "
                "version of sftray; run the sweep's command again to have it collected again"
            ) from error

    @property
    def is_whole(self) -> bool:
        """Whether the bundle holds a whole model, and no adapter."""
        return self.config.finetune == "full"

    @property
    def kind(self) -> str:
        """What the bundle holds."""
        return "model" if self.is_whole else "adapter"

    @property
    def loss_name(self) -> str:
        """What the bundle's loss is."""
        return "eval loss" if self.data.has_eval_loss else "loss on what was trained on"

    @property
    def loader(self) -> str:
        """What loads the bundle, and did so for its check."""
        return "plain transformers" if self.is_whole else "plain PEFT"

    def loading_code(self, folder: str) -> str:
        """Some lines of Python that load the bundle in `folder`."""
        if self.text_part:
            return (
                "from peft import PeftModel\nfrom transformers import AutoModelForImageTextToText\n"
                f"base = AutoModelForImageTextToText.from_pretrained({self.config.model!r})\n"
                f"model = PeftModel.from_pretrained(base, {folder!r})"
            )
        package, name = "peft", "AutoPeftModelForCausalLM"
        if self.is_whole:
            package, name = "transformers", "AutoModelForCausalLM"
        return f"from {package} import {name}\nmodel = {name}.from_pretrained({folder!r})"

    def require_adapter(self, folder: str) -> None:
        """Raise SftrayError where the bundle in `folder` holds a whole model."""
        if self.is_whole:
            raise SftrayError(
                f"{folder}: got a whole model (finetune='full'), must be an adapter; there is "
                "nothing to merge, transformers loads the bundle as it is (`sftray best` says how)"
            )

    def as_trained(self, folder: str, trust_remote_code: bool) -> TrialConfig:
        """The trial that the bundle in `folder` is of. A folder, which somebody else may have
        written, cannot have code run: whoever reads it allows that."""
        if self.config.trust_remote_code and not trust_remote_code:
            raise SftrayError(
                f"{folder}: its base {self.config.model} wants to run Python code of its "
                "repository, must be allowed here, too; read the code, then say --trust-remote-code"
            )
        return self.config


def seal(folder: Path) -> None:
    """Write the manifest of a bundle's local folder, as the last of its files. The texts that its
    owner is asked to complete, or may train from again, have no sums."""
    (folder / MANIFEST).write_text(as_manifest(sums_of(folder, but=OWN_TEXTS)), encoding="utf-8")


def open_bundle(folder: str, scratch: Path | None = None) -> tuple[Path, BundleFacts]:
    """A local copy of a bundle whose files have their sums, and its facts; `folder` is the bundle
    or its sweep. A copy lies in `scratch`, by default a new temporary folder.

    A damaged file is restored where the trial's checkpoint has the same. Raises SftrayError where
    there is no bundle, where it is being written, or where it cannot be restored.
    """
    if files.is_file(folder):
        raise SftrayError(f"{folder}: got a file, must be a sweep's folder or its best/")
    for candidate in (folder, SweepPaths(folder).best):
        names = files.list_names(candidate)
        if any(name in names for name in WEIGHTS) or {MANIFEST, FACTS} <= {*names}:
            local = _whole(candidate, scratch)
            return local, BundleFacts.read(str(local))
    if names:
        raise _not_ready(candidate)
    if files.exists(SweepPaths(folder).journal):
        raise SftrayError(
            f"{folder}: the sweep is not finished, so it has no winner yet",
            hint="the sweep's own command continues it; `sftray results` shows what it has",
        )
    raise SftrayError(
        f"{folder}: got no {' or '.join(WEIGHTS[:2])} there nor in best/, must be a finished "
        "sweep's folder or its best/"
    )


def _whole(folder: str, scratch: Path | None) -> Path:
    before = _manifest(folder)
    if before is None:
        raise _not_ready(folder)
    local = files.get_folder(folder, scratch)
    try:
        sums = read_sums(local, folder)
        wrong = damaged(local, sums)
        if wrong and _manifest(folder) != before:
            raise _not_ready(folder)
        for name in wrong:
            _restore(folder, local, name, sums[name])
    except CheckpointError as error:
        raise SftrayError(
            error.message, hint="run the sweep's command again, which makes best/ again"
        ) from error
    return local


def _manifest(folder: str) -> bytes | None:
    try:
        return files.read_bytes(join(folder, MANIFEST))
    except FileNotFoundError:
        return None


def _restore(folder: str, local: Path, name: str, digest: str) -> None:
    """Take a file of a bundle from the trial's checkpoint, where that has the same: it lies in the
    sweep's folder, as the bundle does if nobody has moved it. Raises CheckpointError."""
    sweep = os.path.dirname(folder.rstrip("/") if is_uri(folder) else os.path.abspath(folder))
    try:
        facts = BundleFacts.read(str(local))
        checkpoint = SweepPaths(sweep).trial(facts.trial).checkpoint(facts.step)
        content = files.read_bytes(join(checkpoint, name))
        if hashlib.sha256(content).hexdigest() != digest:
            raise CheckpointError(f"that of {checkpoint} is another")
        for target in dict.fromkeys((folder, str(local))):
            files.write_bytes(join(target, name), content)
    except (OSError, ValueError, KeyError, SftrayError) as error:
        why = "has none" if isinstance(error, FileNotFoundError) else f"does not help: {error}"
        raise CheckpointError(
            f"{folder}: {name} is missing or differs from its checksum, and the trial's checkpoint "
            f"{why}"
        ) from error
    _log.warning("%s: %s was damaged; restored from %s", folder, name, checkpoint)


def _not_ready(folder: str) -> SftrayError:
    return SftrayError(
        f"{folder}: not ready: there is no {MANIFEST}, which is written last",
        hint="wait for the sweep that writes it; where none runs, run its command again",
    )
