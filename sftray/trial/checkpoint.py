"""A trial's checkpoint: the adapter as PEFT writes it, or the model as transformers does where all
weights are trained; AdamW's moments, and where the trial stands.

Promise: no pickle is written or read (safetensors and JSON only), a damaged or half-written
checkpoint is never used (`manifest.json`, with a SHA-256 of every file, is written last), and a
trial that continues from one has the same losses as one that never stopped. No random state is
kept: dropout is a function of the trial's seed and its place in the stream of rows.
Price: three times what is trained on disk, for the last, the one before it (should the last be
damaged) and the best.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from sftray.errors import CheckpointError
from sftray.storage import files
from sftray.storage.checksums import MANIFEST, as_manifest, damaged, read_sums, sums_of
from sftray.storage.faults import plainly
from sftray.storage.paths import TrialPaths, join
from sftray.trial.lora_adapter import trained_parameters
from sftray.trial.progress import TrialState

ADAPTER = "adapter_model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FILES = (ADAPTER, "adapter_config.json", OPTIMIZER, STATE)
MODEL_CONFIG = "config.json"
"""Only the checkpoint of a whole model has it."""
SHARD = "5GB"
"""A larger model's weights are cut into files of this size."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in a local folder."""

    folder: Path
    state: TrialState

    @property
    def step(self) -> int:
        return self.state["step"]


def save(
    paths: TrialPaths,
    config: LoraConfig,
    adapter: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    state: TrialState,
) -> None:
    """Write the checkpoint of `state["step"]` and then drop all others but the best and the one
    before. Raises OutageError where the disk is full; the others stay then.

    adapter: tensors on the CPU under the names PEFT saves them by; moments: AdamW's under
    `<parameter name>/<moment>`.
    """

    def write_adapter(folder: Path) -> None:
        config.save_pretrained(str(folder))
        save_file(dict(adapter), folder / ADAPTER)

    _save(paths, write_adapter, moments, state)


def save_model(
    paths: TrialPaths,
    model: PreTrainedModel,
    moments: Mapping[str, torch.Tensor],
    state: TrialState,
    max_shard_size: str = SHARD,
) -> None:
    """As `save`, of a transformers model all of whose weights are trained."""

    def write_model(folder: Path) -> None:
        used, model.config.use_cache = model.config.use_cache, True  # off in training only
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        model.config.use_cache = used

    _save(paths, write_model, moments, state)


def _save(
    paths: TrialPaths,
    write_weights: Callable[[Path], None],
    moments: Mapping[str, torch.Tensor],
    state: TrialState,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with plainly(temporary):
            write_weights(folder)
            save_file(dict(moments), folder / OPTIMIZER)
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
            (folder / MANIFEST).write_text(as_manifest(sums_of(folder)), encoding="utf-8")
        files.put_folder(folder, paths.checkpoint(state["step"]), last=MANIFEST)
    there = [join(paths.checkpoints, name) for name in files.list_names(paths.checkpoints)]
    last, best = paths.checkpoint(state["step"]), paths.checkpoint(state["best"]["step"])
    before = max((other for other in there if other < last), default=last)
    for other in there:
        if other not in (last, best, before):
            files.remove(other)


def newest(paths: TrialPaths, scratch: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, fetched into `scratch` where storage is remote.

    A damaged one is passed over for the one before; None where there is none.
    """
    for name in reversed(files.list_names(paths.checkpoints)):
        try:
            return read(join(paths.checkpoints, name), scratch / name)
        except CheckpointError:
            continue
    return None


def read(folder: str, scratch: Path) -> Checkpoint:
    """The checkpoint in `folder`, every file checked against its sum. Raises CheckpointError."""
    if not files.exists(join(folder, MANIFEST)):
        raise CheckpointError(f"{folder}: no {MANIFEST}, so it was not written to its end")
    local = files.get_folder(folder, scratch)
    sums = read_sums(local, folder)
    for name in damaged(local, sums, (OPTIMIZER, STATE) if MODEL_CONFIG in sums else FILES):
        raise CheckpointError(f"{folder}: {name} is missing or differs from its checksum")
    return Checkpoint(local, json.loads((local / STATE).read_text(encoding="utf-8")))


def tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The adapter and AdamW's moments of a PEFT model, as `save` takes them."""
    adapter = get_peft_model_state_dict(model)
    return {k: v.detach().cpu().contiguous() for k, v in adapter.items()}, moments(model, optimizer)


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts, as `save` and `save_model` take them."""
    return {
        f"{name}/{moment}": torch.as_tensor(optimizer.state[p][moment]).detach().cpu().clone()
        for name, p in trained_parameters(model).items()
        for moment in _MOMENTS
    }


def load_tensors(
    checkpoint: Checkpoint,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The adapter and the moments, as `save` took them."""
    return load_file(checkpoint.folder / ADAPTER), load_file(checkpoint.folder / OPTIMIZER)


def load_adapter(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put the checkpoint's adapter weights into `model`. Raises CheckpointError on any mismatch."""
    weights = load_file(checkpoint.folder / ADAPTER)
    expected = {k: v.shape for k, v in get_peft_model_state_dict(model).items()}
    if {k: v.shape for k, v in weights.items()} != expected:
        raise CheckpointError(f"{checkpoint.folder}: holds another adapter than this trial's")
    set_peft_model_state_dict(model, weights)


def load_model(model: PreTrainedModel, checkpoint: Checkpoint) -> None:
    """Put the checkpoint's weights into `model`, all of them. Raises CheckpointError on any
    mismatch.

    transformers reads what it has written: names in files may differ from those in the model, and
    tied weights are there once.
    """
    saved = type(model).from_pretrained(
        checkpoint.folder, dtype=torch.float32, use_safetensors=True
    )
    ours, theirs = dict(model.named_parameters()), dict(saved.named_parameters())
    if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        raise CheckpointError(f"{checkpoint.folder}: holds another model than this trial's")
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(theirs[name])


def load_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint
) -> None:
    """Put AdamW's moments and step counts back."""
    tensors = load_file(checkpoint.folder / OPTIMIZER)
    names = {id(p): name for name, p in trained_parameters(model).items()}
    current = optimizer.state_dict()
    ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    current["state"] = {
        index: {moment: tensors[f"{name}/{moment}"] for moment in _MOMENTS}
        for index, name in enumerate(ordered)
    }
    optimizer.load_state_dict(current)


def export_weights(folder: Path, target: Path) -> None:
    """Copy what makes a checkpoint an ordinary folder of a PEFT adapter, or of a model."""
    target.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.name not in (OPTIMIZER, STATE, MANIFEST):
            shutil.copy(file, target / file.name)
