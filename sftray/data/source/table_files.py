"""What `datasets` reads: JSON arrays, CSV, TSV, Arrow, compressed files, folders, the Hub.

Promise: each becomes an Arrow table in the cache of `datasets`, once a node; rows that this would
lose, or that cannot be read, are a DataError. Price: the import of `datasets`, 1 s.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import lzma
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from sftray.errors import DataError, OutageError
from sftray.storage import files
from sftray.storage.hub import asked_patiently
from sftray.storage.paths import is_uri

if TYPE_CHECKING:
    import datasets

MAX_LINE_BYTES = 64 * 1024**2
"""A longer line is no conversation, but a file of another kind."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", *COMPRESSED)
"""Names of files end so."""


@contextlib.contextmanager
def readable(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise DataError where a source cannot be read, because of `what`."""
    caught: tuple[type[Exception], ...] = (ValueError, OSError, *errors)
    try:
        yield
    except OutageError:
        raise
    except caught as error:
        raise DataError(f"{what} ({error.__cause__ or error})") from error


def kind_of(path: str) -> str:
    """How a file is read, by its name; of JSON by its first character, too."""
    suffix, compressed = _suffix(path)
    if suffix == ".parquet" and not compressed:
        return "parquet"
    if compressed or suffix in (".csv", ".tsv", ".arrow"):
        return "table"
    return "table" if _whole_start(path).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" else "jsonl"


def _suffix(path: str) -> tuple[str, bool]:
    """What a file holds, by its name, and whether that is compressed."""
    stem, suffix = os.path.splitext(path.lower())
    if suffix not in COMPRESSED:
        return suffix, False
    return os.path.splitext(stem)[1], True


@files.patient
def _whole_start(path: str) -> bytes:
    filesystem, inner = files.resolve(path)
    with filesystem.open_input_stream(inner) as file:
        start: bytes = file.read(4096)
        return start


def load_hub(name: str, split: str, revision: str | None) -> datasets.Dataset:
    """A Hub dataset, or one in a folder. Raises DataError."""
    import datasets  # 1 s, and only Hub sources need it

    folder = Path(name).expanduser()
    if any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
        with readable(f"{name}: cannot be loaded as a folder of save_to_disk"):
            saved = datasets.load_from_disk(folder)
        if isinstance(saved, datasets.Dataset):
            return saved
        if split in saved:
            return saved[split]
        raise DataError(f"{name}: has no split {split!r}, must be one of {', '.join(saved)}")
    what = "is no file that is there (.jsonl, .csv, .parquet, …), nor a dataset whose split"
    errors = datasets.exceptions.DatasetsError
    with readable(f"{name}: {what} {split!r} could be loaded from the Hub", errors):
        return asked_patiently(lambda: datasets.load_dataset(name, split=split, revision=revision))


@functools.lru_cache(maxsize=4)
def load_table(path: str) -> datasets.Dataset:
    """A local file as `datasets` reads it; all columns of CSV are text. Raises DataError."""
    import datasets

    if is_uri(path):
        raise DataError(
            f"{path}: got a URI, must be JSON lines or Parquet there",
            "copy it to a local disk, or convert it",
        )
    suffix, compressed = _suffix(path)
    if compressed:
        _refuse_endless_line(path)
    builder = {".csv": "csv", ".tsv": "csv", ".arrow": "arrow", ".parquet": "parquet"}.get(suffix)
    options: dict[str, object] = {} if builder else {"encoding": "utf-8-sig"}
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    errors = (datasets.exceptions.DatasetsError, ImportError, EOFError, StopIteration, Warning)
    try:
        with readable(f"{path}: cannot be read as {builder or 'JSON'}", *errors):
            if builder == "csv":
                import pandas

                format_ = {"sep": "\t" if suffix == ".tsv" else ",", "encoding": "utf-8-sig"}
                names = pandas.read_csv(path, nrows=0, **format_).columns
                text = datasets.Features({name: datasets.Value("string") for name in names})
                options = {**format_, "features": text, "keep_default_na": False}
                options["index_col"] = False  # where a line has more columns than the first
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "Length of header or names does not match")
                return datasets.load_dataset(
                    builder or "json", data_files=path, split="train", **options
                )
    finally:
        if bars:
            datasets.enable_progress_bars()


def _refuse_endless_line(path: str) -> None:
    """Raise DataError where a compressed file begins with a line without end: `datasets` would read
    it into memory, however many GB of it there are. A JSON array may be one line."""
    import zstandard

    openers: dict[str, object] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    suffix = os.path.splitext(path.lower())[1]
    opener = cast("Callable[[str], IO[bytes]]", openers.get(suffix, zstandard.open))
    errors = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)
    with readable(f"{path}: cannot be read", *errors), opener(path) as file:
        block, seen = file.read(2**20), 0
        is_array = block.lstrip()[:1] == b"["
        while block and b"\n" not in block and not is_array:
            seen += len(block)
            if seen > MAX_LINE_BYTES:
                raise no_lines(path)
            block = file.read(2**20)


def no_lines(path: str) -> DataError:
    """Of a file without line breaks."""
    return DataError(
        f"{path}: got more than {MAX_LINE_BYTES:,} bytes without a line break, must be JSON, a "
        "conversation a line"
    )
