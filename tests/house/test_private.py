"""What libraries do not promise to keep stands in one file a library, and an upgrade that takes a
piece of it away fails here, by the piece's name."""

from __future__ import annotations

import ast
import importlib
import inspect
import operator
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from sftray.cluster import ray_private
from sftray.data.chat import transformers_private
from sftray.trainers.ray_train import trl_private

ROOT = Path(__file__).parents[2] / "sftray"
FILES = (ray_private, transformers_private, trl_private)
PRIVATE = ("ray.core", "ray.dashboard", "ray.tune.execution", "trl.trainer.utils")
"""Modules without an underscore that their libraries keep to themselves all the same."""
LIBRARIES = ("accelerate", "bitsandbytes", "datasets", "optuna", "peft", "ray", "tokenizers")
LIBRARIES += ("torch", "transformers", "trl", "wandb")
USED = [
    ("ray._raylet", "InnerGcsClient.drain_node"),  # GcsClient passes all on to it
    ("ray._raylet", "InnerGcsClient.get_all_node_info"),
    ("ray._raylet", "InnerGcsClient.report_cluster_config"),
    ("ray._private.state", "state.get_draining_nodes"),
    ("ray._private.state", "state.get_max_resources_from_cluster_config"),
    ("ray.core.generated.gcs_pb2", "GcsNodeInfo.ALIVE"),
]
"""What is used of pieces."""


def pieces() -> list[FunctionType]:
    return [
        function
        for file in FILES
        for _, function in inspect.getmembers(file, inspect.isfunction)
        if function.__module__ == file.__name__ and function is not ray_private.use_token
    ]


@pytest.mark.parametrize("piece", pieces(), ids=lambda piece: piece.__name__)
def test_a_private_piece_is_there(piece: FunctionType) -> None:
    found = piece()
    assert found is not None
    assert found is not False
    assert "When it moves:" in " ".join((piece.__doc__ or "").split())


@pytest.mark.parametrize(("module", "name"), USED)
def test_what_is_used_of_a_private_piece_is_there(module: str, name: str) -> None:
    operator.attrgetter(name)(importlib.import_module(module))


def test_preempted_is_a_reason_to_drain_a_node() -> None:
    assert "DRAIN_NODE_REASON_PREEMPTION" in ray_private.drain_reason().DESCRIPTOR.values_by_name


def test_groups_of_machines_are_what_a_cluster_s_limits_are_made_of() -> None:
    group = ray_private.cluster_config()().node_group_configs.add()
    group.name, group.max_count = "gpu", 2
    group.resources.update({"GPU": 1})


@pytest.mark.parametrize("name", trl_private.OVERRIDDEN)
def test_a_method_that_the_trainer_overrides_is_called_by_the_library(name: str) -> None:
    from transformers import Trainer
    from trl import SFTTrainer

    assert hasattr(SFTTrainer, name), f"SFTTrainer has no {name} any more: see trl_private.py"
    called = "".join(inspect.getsource(file) for file in map(inspect.getmodule, (Trainer,)) if file)
    assert f"self.{name}(" in called, f"nothing in transformers' trainer calls {name} any more"


def test_what_the_trainer_overrides_in_private_is_listed() -> None:
    from trl import SFTTrainer

    from sftray.trainers.ray_train.sft_trainer import PackedSFTTrainer

    ours = {name for name in vars(PackedSFTTrainer) if name.startswith("_") and name[1] != "_"}
    overridden = {name for name in ours if hasattr(SFTTrainer, name)}
    assert overridden <= set(trl_private.OVERRIDDEN)


def test_private_modules_are_imported_in_their_files_only() -> None:
    kept = {Path(inspect.getfile(file)) for file in FILES}
    found = [
        f"{path.relative_to(ROOT.parent)}: {name}"
        for path in sorted(ROOT.rglob("*.py"))
        if path not in kept
        for name in imported(path)
        if is_private(name)
    ]
    assert found == []


def imported(path: Path) -> Iterator[str]:
    """What a file imports, in functions too, with the module before it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name: str) -> bool:
    library, *parts = name.split(".")
    if library not in LIBRARIES:
        return False
    return any(part.startswith("_") for part in parts) or f"{name}.".startswith(
        tuple(f"{module}." for module in PRIVATE)
    )


def test_a_private_import_is_told_from_a_public_one() -> None:
    assert is_private("ray._raylet.GcsClient")
    assert is_private("ray.core.generated.gcs_pb2.GcsNodeInfo")
    assert is_private("transformers.utils.chat_template_utils._compile_jinja_template")
    assert not is_private("ray.tune.Trainable")
    assert not is_private("sftray.demo._pools.DAYS")
