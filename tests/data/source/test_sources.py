"""Files and Hub datasets give the same rows in whatever chunks, or an error that says where."""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sftray.data.source.conversations import conversation, unread_keys
from sftray.data.source.readers import read_chunk
from sftray.data.source.row_keys import BadRowError
from sftray.data.source.sources import (
    _pinned,
    check_spelling,
    check_unchanged,
    first_rows,
    open_source,
    sample_rows,
)
from sftray.errors import DataError

ROWS = [{"prompt": f"Question {k}: {'é' * (k % 7)}?", "completion": "x" * k} for k in range(40)]


def write_jsonl(path: Path, rows: list[Any], *, end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + end)
    return path


def rows_of(name: str | Path, **options: Any) -> list[dict[str, Any]]:
    source = open_source(str(name), split="train", **options)
    return [row for chunk in source.chunks for _, row in read_chunk(chunk)]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 97, 5000])
@pytest.mark.parametrize("end", ["\n", "", "\n\n\n"])
def test_every_line_is_in_exactly_one_chunk(tmp_path: Path, size: int, end: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS, end=end)
    assert rows_of(path, chunk_bytes=size) == ROWS


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert rows_of(path) == [{"a": 1}, {"a": 2}]


def test_a_glob_reads_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", ROWS[20:])
    write_jsonl(tmp_path / "a.jsonl", ROWS[:20])
    assert rows_of(tmp_path / "*.jsonl") == ROWS
    assert rows_of(f"file://{tmp_path}/*.jsonl") == ROWS
    assert rows_of(f"file://{tmp_path}/a.jsonl") == ROWS[:20]


def test_parquet_gives_the_same_rows_a_row_group_a_chunk(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=16)
    assert len(open_source(str(tmp_path / "a.parquet"), split="train").chunks) == 3
    assert rows_of(tmp_path / "a.parquet") == ROWS


SPOKEN = [{"prompt": f"Line {k},\n'{k}'", "completion": str(k)} for k in range(30)]


def csv_text(separator: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["prompt", "completion"], delimiter=separator)
    writer.writeheader()
    writer.writerows(SPOKEN)
    return out.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in SPOKEN).encode()
BYTES: dict[str, bytes] = {
    "array.json": json.dumps(SPOKEN).encode(),
    "pretty.json": b"\xef\xbb\xbf \n" + json.dumps(SPOKEN, indent=1).encode(),
    "array.jsonl": json.dumps(SPOKEN).encode(),
    "lines.json": LINES,
    "lines.ndjson": LINES,
    "a.csv": csv_text(",").encode(),
    "bom.CSV": b"\xef\xbb\xbf" + csv_text(",").encode(),
    "a.tsv": csv_text("\t").encode(),
    "a.csv.gz": gzip.compress(csv_text(",").encode()),
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES),
    "a.jsonl.zst": zstandard.compress(LINES),
    "array.json.gz": gzip.compress(json.dumps(SPOKEN).encode()),
}


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("name", BYTES)
def test_files_of_other_kinds_give_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BYTES[name])
    assert rows_of(tmp_path / name, chunk_rows=7) == SPOKEN


@pytest.mark.usefixtures("_cache")
def test_arrow_files_and_folders_of_save_to_disk_give_the_same_rows(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(SPOKEN)
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=dataset, test=dataset.select([3])).save_to_disk(tmp_path / "both")
    with pa.ipc.new_file(tmp_path / "a.arrow", dataset.data.schema) as writer:
        writer.write_table(dataset.data.table)
    for name in ("saved", "both", "a.arrow"):
        assert rows_of(tmp_path / name) == SPOKEN
    assert len(open_source(str(tmp_path / "both"), split="test").chunks) == 1
    with pytest.raises(DataError, match="has no split 'eval', must be one of train, test"):
        open_source(str(tmp_path / "both"), split="eval")


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"prompt,completion\na,b,c\n", "loss of data"),
        ("a.csv", b"prompt,completion\na,b\na,b,c\n", "Expected 2 fields in line 3, saw 3"),
        ("a.csv", b"prompt,completion\n\xe9,b\n", "can't decode byte 0xe9"),
        ("a.csv", b"", "No columns"),
        ("a.json", b"[]", "cannot be read as JSON"),
        ("a.json", b'[{"a": 1},', "cannot be read as JSON"),
        ("a.json", b"[" * 5000 + b"]" * 5000, "cannot be read as JSON"),
        ("a.jsonl.gz", gzip.compress(LINES)[:-9], "ended before the end-of-stream marker"),
        ("a.jsonl.gz", b"\x1f\x8bnot", "cannot be read"),
        ("a.jsonl.zst", b"(\xb5/\xfdnot", "cannot be read"),
        ("a.jsonl.xz", b"\xfd7zXZ\x00not", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(bytes(65 * 2**20)), "bytes without a line break"),
        ("a.parquet.gz", gzip.compress(b"PAR1"), "cannot be read as parquet"),
    ],
)
def test_a_table_that_loses_rows_or_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / name), split="train")


def test_a_table_on_a_uri_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(BYTES["a.csv"])
    with pytest.raises(DataError, match="got a URI, must be JSON lines or Parquet there"):
        open_source(f"file://{tmp_path}/a.csv", split="train")


def test_columns_are_called_as_the_mapping_says_and_no_other_is_taken_for_one(
    tmp_path: Path,
) -> None:
    rows = [{"question": "?", "answer": "!", "prompt": "x", "id": k} for k in range(9)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    names = {"question": "prompt", "answer": "completion"}
    source = open_source(str(path), split="train", columns=names, chunk_bytes=100)
    check_spelling(source, "auto")
    first = {"prompt": "?", "completion": "!", "prompt (not mapped)": "x", "id": 0}
    assert first_rows(source, 1) == [first]
    assert sample_rows(source, 100, "auto")[0][0][1] == first
    assert unread_keys(first, "auto").keys() == {"prompt (not mapped)"}
    with pytest.raises(DataError, match="got the columns prompt, answer"):
        check_spelling(replace(source, names=(("question", "prompt"),)), "auto")


def test_a_dataset_that_load_dataset_knows_is_read_by_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", ROWS)
    write_jsonl(folder / "test.jsonl", ROWS[:5])
    assert rows_of(folder, chunk_rows=16) == ROWS
    assert len(open_source(str(folder), split="test", chunk_rows=16).chunks) == 1
    with pytest.raises(DataError, match="split 'validation' could be loaded"):
        open_source(str(folder), split="validation")


@pytest.mark.parametrize("number", [1, 15, 16, 17, 40, 100])
def test_max_rows_reads_only_the_start(tmp_path: Path, number: int) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert rows_of(path, max_rows=number, chunk_bytes=300) == ROWS[:number]


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    path.write_text(path.read_text().replace('{"prompt": "Question 31', '{prompt: "Question 31'))
    with pytest.raises(DataError, match=r"a\.jsonl, line 32: not JSON"):
        first_rows(open_source(str(path), split="train", chunk_bytes=300), 1000)


@pytest.mark.parametrize("line", ["[1, 2]", '"text"', "\xff"])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: "):
        first_rows(open_source(str(path), split="train"), 1000)


def test_a_missing_file_an_empty_one_and_a_broken_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        open_source(str(tmp_path / "a.jsonl"), split="train")
    with pytest.raises(DataError, match="there is no such file"):
        open_source(f"file://{tmp_path}/*.parquet", split="train")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="the dataset is empty"):
        open_source(str(tmp_path / "empty.jsonl"), split="train")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="the dataset is empty"):
        check_spelling(open_source(str(tmp_path / "blank.jsonl"), split="train"), "auto")
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not a Parquet file"):
        open_source(str(tmp_path / "a.parquet"), split="train")


DEEP = '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"
DIGITS = '{"prompt": "?", "completion": "!", "n": ' + "9" * 6000 + "}"
DOUBLED = '{"prompt": "?", "prompt": "??", "completion": "!"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (DEEP, "values nested too deep"),
        (DIGITS, "number of thousands of digits"),
        (DOUBLED, "one key twice"),
    ],
)
@pytest.mark.parametrize("place", [0, 7])
def test_a_line_beyond_what_python_reads_is_dropped_for_its_reason(
    tmp_path: Path, line: str, reason: str, place: int
) -> None:
    lines = [json.dumps(row) for row in ROWS[1:10]]
    lines.insert(place, line)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    source = open_source(str(path), split="train")
    assert first_rows(source, 100) == ROWS[1:10]
    check_spelling(source, "auto")
    rows = [row for _, row in source.read(0)]
    assert len(rows) == 10
    with pytest.raises(BadRowError, match=reason):
        conversation(rows[place], "prompt_completion")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    source = open_source(str(path), split="train", chunk_bytes=300)
    check_unchanged(source)
    path.write_text(path.read_text()[:500])
    with pytest.raises(DataError, match=r"a\.jsonl: became shorter while it was read"):
        first_rows(source, 1000)
    with pytest.raises(DataError, match=r"a\.jsonl: changed while it was read"):
        check_unchanged(source)


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    for name, kind in (("folder", "is a folder"), ("pipe", "is no regular file")):
        with pytest.raises(DataError, match=f"{name}.jsonl: {kind}, must be a file"):
            open_source(str(tmp_path / f"{name}.jsonl"), split="train")
    with pytest.raises(DataError, match="there is no such file"):
        open_source(str(tmp_path / "loop.jsonl"), split="train")


def test_a_file_without_line_breaks_ends_at_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(2**30)  # zeros that take no room
    with pytest.raises(DataError, match="bytes without a line break, must be JSON"):
        first_rows(open_source(str(path), split="train"), 1)


def test_files_have_no_splits(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match=r"files have no splits, got 'test'"):
        open_source(str(path), split="test")


def test_a_dataset_that_is_nowhere_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"nobody/nothing: is no file that is there"):
        open_source("nobody/nothing", split="train")


def test_a_missing_column_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    source = open_source(str(path), split="train")
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: got the columns text, must have one"):
        check_spelling(source, "auto")
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: has no column messages"):
        check_spelling(source, "messages")


def test_a_column_that_only_a_later_line_lacks_is_named_with_its_file_and_line(
    tmp_path: Path,
) -> None:
    rows = [{"promt" if k == 21 else "prompt": "a", "completion": "b"} for k in range(40)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    source = open_source(str(path), split="train", chunk_bytes=500)
    with pytest.raises(DataError, match=r"a\.jsonl, line 22: has no column prompt"):
        sample_rows(source, 4000, "prompt_completion")


def test_the_fingerprint_follows_the_content_and_not_the_path(tmp_path: Path) -> None:
    a = open_source(str(write_jsonl(tmp_path / "a.jsonl", ROWS)), split="train")
    b = open_source(str(write_jsonl(tmp_path / "b.jsonl", ROWS)), split="train")
    c = open_source(str(write_jsonl(tmp_path / "b.jsonl", ROWS[:-1])), split="train")
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_a_sample_says_how_many_rows_there_may_be(tmp_path: Path) -> None:
    even = [{"prompt": f"{k:06d}", "completion": "x" * 40} for k in range(1000)]
    path = str(write_jsonl(tmp_path / "a.jsonl", even))
    many, one = (open_source(path, split="train", chunk_bytes=size) for size in (2000, 100_000))
    rows, total = sample_rows(many, 40, "prompt_completion")
    assert len(rows) == 40
    assert total == pytest.approx(1000, rel=0.05)
    assert sample_rows(one, 40, "prompt_completion")[1] == 1000


def test_without_a_network_a_hub_dataset_is_looked_for_at_the_revision_as_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere = functools.partial(huggingface_hub.HfApi, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.HfApi", nowhere)
    assert _pinned("some/dataset", "v1") == "v1"
