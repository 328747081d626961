"""Packs built by Ray Data: whole, the same whatever the CPUs, opened again, refused when bad."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damages
from data_templates import DEMO
from packs_here import build_packs_here
from tokenizers import Tokenizer

from sftray.config import DataConfig
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.loss_mask import Document, encode
from sftray.data.chat.tokenizer import read_tokenizer
from sftray.data.estimate import estimate_packs
from sftray.data.packs.inspect import inspect_json, inspect_text
from sftray.data.packs.packs import Packs, check_sums, local_parts, open_packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import Recipe, find_packs, make_recipe
from sftray.data.source.conversations import conversation
from sftray.data.source.row_keys import BadRowError
from sftray.errors import DataError, PacksError

SHARED = Path(__file__).parents[4] / "shared" / "data"
WORDS = ["lamp", "of", "river", "stone", "quick", "blue", "when", "under", "seven", "light", "the"]
ALWAYS_BAD = {"empty_assistant", "other_role", "repeated_role", "no_user", "no_messages"}
"""Reasons of dirty_rows.jsonl for which a row must go."""
HARMLESS = {"placeholder", "cjk", "mojibake", "exact_duplicate", "has_duplicate", "under_4_words"}
HARMLESS |= {"literal_backslash_n", "last_not_assistant", "zero_width_or_bidi", "control_char"}
"""Reasons with which a row must stay; an unanswered last turn is taken off it."""
SIZES = {"chunk_bytes": 40_000, "part_positions": 2**15}
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def talk(number: int, rng: random.Random) -> dict[str, Any]:
    turns = []
    for exchange in range(rng.choice([1, 1, 1, 2, 3])):
        for role, most in (("user", 20), ("assistant", 50)):
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, most)))
            turns.append({"role": role, "content": f"{number}.{exchange} {text}"})
    return {"messages": turns}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "talks.jsonl"
    rows = [talk(k, rng) for k in range(1200)]
    rows[700]["messages"][-1]["content"] = ""
    rows[701]["messages"].append({"role": "user", "content": "Still there?"})
    rows[702] = rows[703]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe_of(data: DataConfig) -> Recipe:
    """A dozen chunks and several parts, from a file of half a megabyte."""
    return make_recipe(data, str(DEMO), **SIZES)


def build_packs(data: DataConfig, *, storage: str | Path, **options: Any) -> Packs:
    return packs_from(recipe_of(data), storage=str(storage), **options)


def config(source: Path, **changes: Any) -> DataConfig:
    data = DataConfig(str(source), max_length=256, eval_fraction=0.05, test_fraction=0.0)
    return replace(data, **changes)


@pytest.fixture(scope="module")
def packs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Packs:
    return build_packs(config(source), storage=tmp_path_factory.mktemp("s"))


def documents(packs: Packs, split: str) -> dict[int, tuple[list[int], list[int]]]:
    """Ids and labels of every conversation in a split, by its ordinal."""
    found = {}
    for row in packs.dataset(split):
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["seq_lengths"]) == 256
        starts = np.cumsum([0, *row["seq_lengths"]])
        pads = len(row["seq_lengths"]) - len(row["documents"])
        assert pads == (0 if starts[len(row["documents"])] == 256 else 1)
        for k, ordinal in enumerate(row["documents"]):
            span = slice(starts[k], starts[k + 1])
            assert ordinal not in found
            found[ordinal] = (row["input_ids"][span], row["labels"][span])
            assert row["labels"][starts[k]] == -100
        tail = starts[len(row["documents"])]
        assert set(row["labels"][tail:]) <= {-100}
        assert set(row["input_ids"][tail:]) <= {packs.manifest["pad_token_id"]}
    return found


def bytes_of(packs: Packs) -> dict[str, bytes]:
    root = Path(packs.root)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.glob("*/*.arrow"))}


def test_packs_hold_every_conversation_once_with_its_own_tokens(packs: Packs, source: Path) -> None:
    chat = choose_format(read_tokenizer(str(DEMO)), template=None, date="2025-01-01", samples=[])
    wanted = {}
    for ordinal, line in enumerate(source.read_text().splitlines()):
        try:
            turns, _ = conversation(json.loads(line), "messages")
        except BadRowError:
            continue
        (document,) = encode(chat, [turns], 256)
        if isinstance(document, Document):
            labels = np.where(document.trained, document.input_ids, -100)
            wanted[ordinal] = (document.input_ids.tolist(), labels.tolist())
    train, held_out = documents(packs, "train"), documents(packs, "eval")
    assert {**train, **held_out} == wanted
    assert not set(train) & set(held_out)


def test_the_manifest_counts_what_the_packs_hold(packs: Packs) -> None:
    for split in ("train", "eval"):
        facts = packs.manifest["splits"][split]
        held = documents(packs, split)
        dataset = packs.dataset(split)
        supervised = sum(label != -100 for row in dataset for label in row["labels"])
        assert facts["conversations"] == len(held)
        assert facts["rows"] == len(dataset) == packs.rows(split)
        assert facts["tokens"] == sum(len(ids) for ids, _ in held.values())
        assert facts["supervised_tokens"] == supervised
        assert facts["waste"] == pytest.approx(1 - facts["tokens"] / (facts["rows"] * 256))
    assert len(packs.manifest["splits"]["train"]["parts"]) > 1


def test_dropped_rows_are_counted_with_file_and_line(packs: Packs, source: Path) -> None:
    facts = packs.manifest["splits"]["train"]
    assert facts["read"] == 1200
    assert facts["dropped"]["empty answer"] == 1
    (example,) = facts["examples"]["empty answer"]
    assert (example["file"], example["line"]) == (str(source), 701)
    assert facts["lost_last_user_turn"] == 1
    assert (
        sum(facts["dropped"].values())
        + sum(packs.manifest["splits"][split]["conversations"] for split in ("train", "eval"))
        == facts["read"]
    )


def test_duplicates_are_on_one_side(packs: Packs) -> None:
    sides = [
        split for split in ("train", "eval") for k in documents(packs, split) if k in (702, 703)
    ]
    assert len(sides) == 2
    assert len(set(sides)) == 1


def test_held_out_prompts_are_in_the_manifest(packs: Packs) -> None:
    prompts = packs.manifest["sample_prompts"]
    assert len(prompts) == packs.manifest["splits"]["eval"]["conversations"] == 60
    held = documents(packs, "eval")
    # of a conversation that is cut to a row's length the last answer is not in the packs
    whole = [one for one in prompts if len(one["input_ids"]) + one["reference_tokens"] < 250]
    assert len(whole) > 30
    for prompt in whole:
        assert prompt["messages"][-1]["role"] == "user"
        assert prompt["prompt"].endswith("<|im_start|>assistant\n")
        assert prompt["reference"]
        size = len(prompt["input_ids"])
        assert any(ids[:size] == prompt["input_ids"] for ids, _ in held.values())


def test_the_same_input_gives_the_same_bytes_on_one_cpu(
    packs: Packs, source: Path, tmp_path: Path
) -> None:
    import ray

    @ray.remote(num_cpus=1)
    class Idle:
        def ready(self) -> None: ...

    idle = Idle.remote()
    ray.get(idle.ready.remote())
    assert ray.available_resources()["CPU"] == 1
    alone = build_packs(config(source), storage=tmp_path)
    ray.kill(idle)
    assert alone.key == packs.key
    assert bytes_of(alone) == bytes_of(packs)


def test_packs_built_here_are_those_of_ray(packs: Packs, source: Path, tmp_path: Path) -> None:
    """Which the tests that need packs and no Ray rest on."""
    here = build_packs_here(config(source), str(DEMO), storage=str(tmp_path), **SIZES)
    assert here.key == packs.key
    assert bytes_of(here) == bytes_of(packs)


def test_packs_are_built_once(packs: Packs, source: Path) -> None:
    storage = str(Path(packs.root).parent.parent)
    before = {path: path.stat().st_mtime_ns for path in Path(packs.root).rglob("*")}
    lines: list[str] = []
    again = build_packs(config(source), storage=storage, log=lines.append)
    assert again.manifest == packs.manifest
    assert {path: path.stat().st_mtime_ns for path in Path(packs.root).rglob("*")} == before
    assert lines == []
    found = find_packs(recipe_of(config(source)), storage=storage)
    assert found is not None
    assert found.key == packs.key


def test_a_pack_with_any_file_damaged_is_detected_and_rebuilt(
    ray_cluster: None, source: Path, tmp_path: Path
) -> None:
    small = config(source, max_conversations=100)
    built = build_packs(small, storage=tmp_path)
    whole, root = bytes_of(built), Path(built.root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    assert [path.name for path in files].count("00000.arrow") == 2
    assert {path.name for path in files} == {"00000.arrow", "manifest.json", "tokenizer.json"}
    for file in files:
        before = file.read_bytes()
        for damage in damages(before):
            file.unlink()
            if damage is not None:
                file.write_bytes(damage)
            with pytest.raises(PacksError, match=f"{root}.*{file.name}"):
                check_sums(open_packs(built.root))
            file.write_bytes(before)
        file.write_bytes(before[:-1])
        lines: list[str] = []
        again = build_packs(small, storage=tmp_path, log=lines.append)
        assert "building again" in lines[0]
        assert bytes_of(again) == whole
    (root / "manifest.json").unlink()
    assert find_packs(recipe_of(small), storage=str(tmp_path)) is None


def test_a_damaged_copy_of_a_part_is_made_again_and_a_damaged_part_is_refused(
    packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTRAY_CACHE", str(tmp_path / "cache"))
    root = Path(shutil.copytree(packs.root, tmp_path / "packs"))
    remote = open_packs(f"file://{root}")
    (copy, *_) = local_parts(remote, "eval")
    whole = copy.read_bytes()
    for damage in damages(whole):
        copy.unlink()
        if damage is not None:
            copy.write_bytes(damage)
        assert local_parts(remote, "eval")[0].read_bytes() == whole
    copy.unlink()
    (root / "eval" / copy.name).write_bytes(whole[:-1] + b"?")
    with pytest.raises(PacksError, match="damaged"):
        local_parts(remote, "eval")


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 128},
        {"hold_out": False},
        {"seed": 1},
        {"eval_fraction": 0.1},
        {"num_eval_conversations": 9},
        {"max_conversations": 10},
        {"template_date": "2025-01-02"},
        {"columns": "messages"},
    ],
    ids=str,
)
def test_whatever_changes_bytes_changes_the_key(
    packs: Packs, source: Path, change: dict[str, Any]
) -> None:
    storage = str(Path(packs.root).parent.parent)
    changed = recipe_of(config(source, **change))
    assert find_packs(changed, storage=storage) is None


def test_a_template_file_changes_the_key(packs: Packs, source: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text((DEMO / "chat_template.jinja").read_text() + "\n")
    storage = str(Path(packs.root).parent.parent)
    changed = recipe_of(config(source, chat_template=str(template)))
    assert find_packs(changed, storage=storage) is None


def test_too_many_bad_rows_are_refused_with_the_table(tmp_path: Path) -> None:
    rows = [talk(k, random.Random(k)) for k in range(11)]
    rows[2] = {"messages": [{"role": "user", "content": "?"}]}
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"1 of 11 rows are bad \(9.1 %\)") as caught:
        build_packs(config(path), storage=tmp_path)
    assert "no assistant turn" in str(caught.value)
    assert f"{path}:3" in str(caught.value)
    assert list((tmp_path / "packs").glob("*/manifest.json")) == []
    tolerant = config(path, max_bad_fraction=0.1)
    assert build_packs(tolerant, storage=tmp_path).rows("train") >= 1
    with pytest.raises(DataError, match="1 of 11 rows are bad"):
        build_packs(config(path), storage=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 1101: not JSON"), ('{"text": "x"}', "line 1101: got the columns text, must")],
)
def test_a_broken_line_deep_in_a_file_is_named(
    source: Path, tmp_path: Path, line: str, message: str
) -> None:
    lines = source.read_text().splitlines()
    lines[1100] = line
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        build_packs(config(path), storage=tmp_path)
    assert list((tmp_path / "packs").glob("*/tmp-*")) == []


def test_a_dataset_without_one_good_row_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"messages": []}\n' * 3)
    with pytest.raises(DataError, match="none of 3 conversations can be trained on: 3 no assist"):
        build_packs(config(path, max_bad_fraction=1.0), storage=tmp_path)


def test_an_evaluation_set_of_its_own_is_taken_whole(source: Path, tmp_path: Path) -> None:
    given = tmp_path / "eval.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()[:30]]
    for row in rows[3:]:
        row["messages"][-1]["content"] += " indeed"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = config(source, eval_source=str(given))
    for _ in ("built", "found"):
        lines: list[str] = []
        packs = build_packs(data, storage=tmp_path, log=lines.append)
        (line,) = [line for line in lines if line.startswith("overlap: ")]
        assert "30 training conversations begin like" in line
        assert "3 of its 30 are in the training data word for word, and left out there" in line
    assert line in inspect_text(packs, rows=0)
    overlap = {"training": 30, "duplicates": 3, "near": 30, "evaluated": 30}
    assert inspect_json(packs)["overlaps"] == {"eval": overlap}
    assert set(documents(packs, "eval")) == set(range(30))
    assert packs.manifest["splits"]["train"]["conversations"] == 1196


def test_an_evaluation_set_above_a_tenth_of_which_is_trained_on_is_refused(
    source: Path, tmp_path: Path
) -> None:
    given = tmp_path / "eval.jsonl"
    rows = [talk(k, random.Random(-k)) for k in range(5000, 5026)]
    lines = [*source.read_text().splitlines()[:4], *map(json.dumps, rows)]
    given.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"4 of 30 conversations \(13 %\) are in the training data"):
        build_packs(config(source, eval_source=str(given)), storage=tmp_path)
    assert list((tmp_path / "packs").glob("*/manifest.json")) == []


def test_calls_that_cannot_be_written_and_keys_that_nobody_reads_are_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [talk(k, random.Random(k)) for k in range(20)]
    for number, key in ((3, "tool_calls"), (5, "reasoning_content"), (9, "tool_calls")):
        rows[number]["messages"][-1][key] = "used"
    rows[4]["messages"][-1]["tool_calls"] = None
    for number in (0, 1):
        rows[number]["messages"][0]["mood"] = "glad"
    rows[2] |= {"id": "a", "colour": 1}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = config(path, max_bad_fraction=0.5)
    lines: list[str] = []
    packs = build_packs(data, storage=tmp_path, log=lines.append)
    train = packs.manifest["splits"]["train"]
    assert any("mood (2 rows" in line and "colour (1 row" in line for line in lines), lines
    assert "mood (2 rows" in inspect_text(packs, rows=0)
    assert train["dropped"] == {"tool call without a name and an object of arguments": 2}
    assert "2  tool call without a name" in inspect_text(packs, rows=0)
    assert f"{path}:4" in inspect_text(packs, rows=0)
    assert train["conversations"] == 17  # the thought of row 5 is trained


def test_the_references_that_a_metric_is_held_against_are_counted_in_tokens(packs: Packs) -> None:
    tokenizer = Tokenizer.from_str(Path(packs.root, "tokenizer.json").read_text())
    for prompt in packs.manifest["sample_prompts"]:
        tokens = tokenizer.encode(prompt["reference"], add_special_tokens=False).ids
        assert prompt["reference_tokens"] == len(tokens)


def test_packs_on_a_uri_are_the_same_and_copied_once_a_node(
    packs: Packs, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTRAY_CACHE", str(tmp_path / "node"))
    remote = build_packs(
        replace(config(source), source=f"file://{source}"),
        storage=f"file://{tmp_path}/bucket",
    )
    assert remote.root.startswith("file://")
    assert documents(remote, "train") == documents(packs, "train")
    copies = sorted((tmp_path / "node").rglob("*.arrow"))
    assert [copy.read_bytes() for copy in copies] == [
        data for name, data in bytes_of(packs).items() if name.startswith("train")
    ]
    copies[0].unlink()
    part = tmp_path / "bucket" / "packs" / remote.key / "train" / copies[0].name
    part.write_bytes(bytes(len(part.read_bytes())))
    with pytest.raises(PacksError, match="checksum"):
        remote.dataset("train")


def test_an_estimate_is_near_the_packs(packs: Packs, source: Path) -> None:
    estimated = estimate_packs(recipe_of(config(source)), sample=600)
    assert estimated["key"] == packs.key
    for split in ("train", "eval"):
        for name in ("conversations", "rows", "tokens", "supervised_tokens"):
            wanted = packs.manifest["splits"][split][name]
            assert estimated["splits"][split][name] == pytest.approx(wanted, rel=0.2)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_every_dirty_row_is_accounted_for(tmp_path: Path) -> None:
    path = SHARED / "dirty_rows.jsonl"
    with pytest.raises(DataError, match="of 1,199 rows are bad"):
        build_packs(config(path, max_length=2048), storage=tmp_path)
    packs = build_packs(config(path, max_length=2048, max_bad_fraction=1.0), storage=tmp_path)
    facts = packs.manifest["splits"]["train"]
    held = [row["documents"] for split in ("train", "eval") for row in packs.dataset(split)]
    kept = {ordinal for ordinals in held for ordinal in ordinals}
    assert sum(facts["dropped"].values()) + len(kept) == facts["read"] == 1199
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for ordinal, row in enumerate(rows):
        reasons = set(row["reason"])
        if reasons & ALWAYS_BAD:
            assert ordinal not in kept, (ordinal, reasons)
        if reasons <= HARMLESS and row["words"] < 400:  # fits into 2,048 tokens
            assert ordinal in kept, (ordinal, reasons)
    assert facts["dropped"]["empty answer"] >= 188
    assert facts["lost_last_user_turn"] > 0
    assert facts["lost_exchanges"] > 0


def test_the_entropy_of_the_targets_is_that_of_their_frequencies(small_packs: Packs) -> None:
    labels = np.concatenate(
        [row["labels"] for row in small_packs.dataset("train").with_format("numpy")]
    )
    _, counts = np.unique(labels[labels >= 0], return_counts=True)
    shares = counts / counts.sum()
    assert small_packs.target_entropy() == pytest.approx(-(shares * np.log(shares)).sum())
