"""Numbers and messages on the pages are those of the code: they are computed or looked up again."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
from bases import LLAMA_8B
from doc_blocks import PAGES, ROOT
from ray.scripts.scripts import cli as ray_cli

from sftray.cli.launch import _sweep_parser
from sftray.cli.main import _parser
from sftray.config import DataConfig, SweepConfig, TrialConfig, loguniform
from sftray.config.overrides import override
from sftray.data.estimate import estimate_packs
from sftray.data.recipe import make_recipe
from sftray.demo import FOLDER
from sftray.plan.effective_batch import Execution
from sftray.plan.lr_schedule import scheduled_rate, warmup_steps
from sftray.plan.memory import NF4_BYTES, TRAINED_BYTES, train_memory
from sftray.plan.model_shape import ModelShape, adapter_parameters

SWEEP = SweepConfig(
    "docs", DataConfig("rows.jsonl"), TrialConfig("base"), {"lora_alpha_ratio": loguniform(1, 2)}
)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the rows of the table whose head begins with `first`, the head left out."""
    lines = text[text.index(f"\n| {first}") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_schedule_on_the_page_is_the_one_that_is_trained_with() -> None:
    ratios = (0.0, 0.03, 0.05, 0.1)
    rows = table(page("choosing_a_space.md"), "steps done")
    assert [row[0] for row in rows] == [f"{share} %" for share in (0, 1, 5, 10, 25, 50, 75, 100)]
    for share, *shown in rows:
        done = 10 * int(share.removesuffix(" %"))
        for ratio, multiple in zip(ratios, shown, strict=True):
            trial = TrialConfig("base", learning_rate=1.0, warmup_ratio=ratio)
            warmup = warmup_steps(trial, 1000)
            rate = scheduled_rate(trial, done + 1, steps=1000, warmup_steps=warmup)
            assert multiple == f"{rate:.3f}", (share, ratio)


def test_defaults_and_axes_on_the_page_are_those_of_the_code() -> None:
    rows = table(page("choosing_a_space.md"), "field")
    assert len(rows) >= 10
    defaults = {one.name: one.default for one in fields(TrialConfig)}
    for field, _, _, default, axis in rows:
        name = field.strip("`")
        assert float(default.strip("`")) == defaults[name], name
        if axis.startswith("`") and "fitting" not in axis:
            sweep = override(SWEEP, f"search_space.{name}={axis.strip('`')}")
            assert name in sweep.search_space


def test_the_grid_on_the_page_is_the_one_that_was_measured() -> None:
    trials = json.loads((ROOT / "benchmarks/grid.json").read_text())["trials"]
    best = {}
    for trial in trials:
        point = trial["point"]
        if point["lora_r"] == 8:
            at = (point["learning_rate"], point["effective_batch_size"])
            best[at] = min(evaluation[4] for evaluation in trial["evaluations"])
    rows = table(page("choosing_a_space.md"), "learning rate |")
    shown = {
        (float(rate), batch): loss
        for rate, *losses in rows
        for batch, loss in zip((8, 16, 64), losses, strict=True)
    }
    assert shown == {at: f"{loss:.3f}" for at, loss in best.items()}


def test_the_memory_on_the_page_is_what_the_plan_estimates() -> None:
    shape, trial = ModelShape.of(LLAMA_8B), TrialConfig("base")
    assert shape is not None
    text = page("memory.md")
    for number in (f"{NF4_BYTES} bytes", f"{TRAINED_BYTES} bytes",
                   f"{shape.linear / 1e9:.1f} billion", f"{shape.embedding / 1e9:.1f} in embedding",
                   f"{adapter_parameters(shape, 'all-linear', 16) / 1e6:.1f} million",
                   f"{TRAINED_BYTES * shape.parameters / 2**30:.0f} GiB"):  # fmt: skip
        assert number in text
    rows = table(text, "micro-batch × length")
    assert len(rows) == 7
    for size, how, *parts in rows:
        micro, length = (int(word.replace(",", "")) for word in size.split(" × "))
        mine = replace(
            trial,
            lora_r=64 if "rank 64" in how else 16,
            base_precision="bf16" if "bf16" in how else "nf4",
        )
        execution = Execution(micro, "checkpointing" in how, "dequantised" in how)
        found = train_memory(shape, mine, length, execution)
        bytes_of = (found.base, found.adapters, found.activations, found.logits, found.total)
        assert parts == [f"{part / 2**30:.1f}" for part in bytes_of], (size, how)


def test_packing_on_the_page_is_that_of_the_bundled_chats() -> None:
    data = DataConfig(
        str(FOLDER / "chats.jsonl"), max_length=512, eval_fraction=1e-9, test_fraction=0
    )
    facts = estimate_packs(make_recipe(data, str(FOLDER)), sample=10_000)["splits"]["train"]
    (row,) = [row for row in table(page("data.md"), "dataset") if row[0].startswith("bundled")]
    shown = [float(re.findall(r"[\d.]+", cell)[0]) for cell in row[4:]]
    longest = facts["waste_longest"]
    wanted = [facts["waste"], facts["waste_padded"], longest["8"], longest["16"]]
    assert shown == pytest.approx([100 * waste for waste in wanted], abs=0.1)


def test_messages_on_the_page_of_troubles_are_printed_by_the_code() -> None:
    said = [text for file in (ROOT / "sftray").rglob("*.py") for text in _texts(file)]
    quoted = [
        message
        for line in page("troubleshooting.md").splitlines()
        if line.startswith("| ")
        for message in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert len(quoted) >= 30
    parts = {message: [part.strip() for part in message.split("…")] for message in quoted}
    unsaid = [m for m in quoted if not any(_in_order(parts[m], text) for text in said)]
    assert unsaid == []


def _texts(file: Path) -> list[str]:
    """The strings of a source file, … for what an f-string fills in."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            found.append("".join(map(str, parts)))
    return found


def _in_order(fragments: list[str], text: str) -> bool:
    places = [text.find(fragment) for fragment in fragments if fragment.strip(".,;()")]
    return places[0] >= 0 and all(a < b for a, b in pairwise(places))


def test_every_flag_and_field_named_in_the_text_exists() -> None:
    sources = [*(ROOT / "benchmarks").glob("*.py"), ROOT / "sftray/cluster/spot_notice.py"]
    flags = set(_sweep_parser(SWEEP)._option_string_actions)
    for commands in _parser()._subparsers._group_actions:  # type: ignore[union-attr]
        for sub in commands.choices.values():  # type: ignore[union-attr, attr-defined]
            flags |= set(sub._option_string_actions)
    for source in sources:
        flags |= set(re.findall(r'"(--[\w-]+)"', source.read_text(encoding="utf-8")))
    submit = ray_cli.commands["job"].commands["submit"]  # type: ignore[attr-defined]
    start = ray_cli.commands["start"]  # type: ignore[attr-defined]
    for parameter in (*submit.params, *start.params):
        flags |= set(parameter.opts)
    flags |= {
        "--shm-size",
        "--enable-lora",
        "--max-lora-rank",
        "--lora-modules",
    }  # docker's, vLLM's
    known = {f"data.{one.name}" for one in fields(DataConfig)}
    known |= {f"trial.{one.name}" for one in fields(TrialConfig)}
    unknown = []
    for path in PAGES:
        for span in re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8")):
            flag = re.match(r"--[a-z][\w-]*", span)
            unknown += [f"{path.name}: {span}"] if flag and flag[0] not in flags else []
            named = re.findall(r"(?<![\w/.])(?:data|trial)\.[a-z_]+(?![\w/.(])", span)
            if path.name != "architecture.md":  # names modules
                unknown += [f"{path.name}: {field}" for field in named if field not in known]
    assert unknown == []
