"""TensorBoard's event files have every metric of every step once, also after a kill."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from events import an_event
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event as Entry
from tensorboardX.proto.event_pb2 import SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tracked_sweep import SWEEP, TRIALS, begin, evaluate_all, record_of, result

from sftray.storage import files as storage_files
from sftray.storage.journal import Journal, read_events
from sftray.storage.paths import SweepPaths
from sftray.trial.samples import as_lines
from sftray.views.tracking.journal_follower import follow
from sftray.views.tracking.mirror_processes import Tracking
from sftray.views.tracking.tensorboard_files import EventFiles
from sftray.views.tracking.tracked_metrics import CURVE, METRICS


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    return new_sweep(str(tmp_path / "results"))


def new_sweep(storage_folder: str) -> SweepPaths:
    paths = SweepPaths.of(storage_folder, SWEEP.name)
    record = record_of(SWEEP)
    storage_files.write_text(paths.sweep, json.dumps(record))
    return paths


def test_every_metric_stands_against_steps_and_tokens(paths: SweepPaths) -> None:
    sampled = {"messages": [{"role": "user", "content": "6 × 7?"}], "reference": "42", "flags": []}
    answers = [{**sampled, "step": step, "answer": "41" * step} for step in (2, 4)]
    storage_files.write_text(paths.trial("0000").samples, as_lines(answers))
    storage_files.write_text(
        paths.base_samples, as_lines([{**sampled, "step": 0, "answer": "# no"}])
    )
    with Journal(paths.journal) as journal:
        evaluate_all(journal)
        journal.append(an_event("trial_ended", "0000", outcome="completed", message=""))
        lost = {"last_curve": [[5, math.nan, 1e-4, 0.5]]}
        journal.append(
            an_event("trial_ended", "0001", outcome="diverged", message="loss nan", **lost)
        )
    write(paths)

    entries = read(paths, "0000")
    assert entries[0].file_version == "brain.Event:2"
    scalars, texts = by_tag(entries)
    for name in METRICS:
        expected = [float(result(step)[name]) for step in (0, 2, 4)]
        assert [scalars[name][step] for step in (0, 2, 4)] == pytest.approx(expected), name
    assert [scalars[name][3] for name in CURVE] == pytest.approx([1.0, 1e-4, 0.5])
    tokens = [int(result(step)["tokens"]) for step in (0, 2, 4)]
    assert scalars["by_tokens/eval_loss"] == dict(zip(tokens, (4.0, 3.5, 3.0), strict=True))
    between = sorted(scalars["by_tokens/train/loss"])
    assert between == [101, 201, 301, 401]
    assert scalars["hparam/eval_loss"] == {4: 3.0}
    assert sorted(texts["samples/1/text_summary"]) == [2, 4]
    told = texts["samples/1/text_summary"][2]
    for said in ("6 × 7?", "    4141", "    42", "    # no"):
        assert said in told
    assert texts["outcome/text_summary"] == {4: "completed"}

    scalars, texts = by_tag(read(paths, "0001"))
    assert math.isnan(scalars["train/loss"][5])
    assert texts["outcome/text_summary"] == {4: "diverged: loss nan"}


def test_a_trials_point_is_its_hparams(paths: SweepPaths) -> None:
    with Journal(paths.journal) as journal:
        begin(journal)
        journal.append(an_event("trial_ended", "0000", outcome="failed", message=""))
    write(paths)
    plugins = {}
    for entry in read(paths, "0000"):
        for value in entry.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                content = value.metadata.plugin_data.content
                plugins[value.tag] = HParamsPluginData.FromString(content)
    start = plugins["_hparams_/session_start_info"].session_start_info
    assert start.hparams["learning_rate"].number_value == TRIALS["0000"]
    (metric,) = plugins["_hparams_/experiment"].experiment.metric_infos
    assert metric.name.tag == "hparam/eval_loss"
    assert "_hparams_/session_end_info" in plugins


def test_a_resumed_sweep_has_no_step_twice(
    paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    lines: list[str] = []
    sweep = replace(SWEEP, wandb="disabled", tensorboard=True)
    with Journal(paths.journal) as journal:
        begin(journal)
        journal.append(an_event("result", "0000", step=2, metrics=result(2)))
        Tracking.start(sweep, paths, lines.append).finish(600)  # interrupted
        (file,) = Path(paths.tensorboard).glob("0000/*")
        with file.open("ab") as cut_off:
            cut_off.write(b"cut off by a kill")
        tracking = Tracking.start(sweep, paths, lines.append)
        journal.append(an_event("result", "0000", step=4, metrics=result(4)))
        journal.append(an_event("trial_ended", "0000", outcome="completed", message=""))
        tracking.finish(600)
    assert (
        lines
        == [f"TensorBoard: event files; `tensorboard --logdir {paths.tensorboard}` shows them"] * 2
    )
    entries = read(paths, "0000")
    assert entries[2].session_log.status == SessionLog.START  # who had read the file forgets it
    scalars, _ = by_tag(entries)
    assert sorted(scalars["eval_loss"]) == [2, 4]
    assert sorted(scalars["train/loss"]) == [1, 2, 3, 4]
    assert (Path(paths.tensorboard) / "mirror.log").read_bytes() == b""


def test_on_a_uri_a_trials_file_is_copied_there(tmp_path: Path) -> None:
    paths = new_sweep(f"file://{tmp_path}/bucket")
    with Journal(paths.journal) as journal:
        begin(journal)
        journal.append(an_event("result", "0000", step=2, metrics=result(2)))
        journal.append(an_event("trial_ended", "0000", outcome="completed", message=""))
    files = EventFiles(paths, tmp_path / "here", SWEEP, "1f2e3d4c")
    for event in read_events(paths.journal):
        files.apply(event)
    there = SweepPaths(f"{tmp_path}/bucket/{SWEEP.name}")
    assert sorted(by_tag(read(there, "0000"))[0]["eval_loss"]) == [2]
    assert not (Path(there.tensorboard) / "0001").exists()
    files.close()
    assert len(read(there, "0001")) == 5


def write(paths: SweepPaths) -> None:
    folder = Path(paths.tensorboard)
    assert follow(paths, folder, partial(EventFiles, paths, folder), until_asked=False)


def read(paths: SweepPaths, trial: str) -> list[Any]:
    (path,) = (Path(paths.tensorboard) / trial).glob("*tfevents*")
    return list(entries(path.read_bytes()))


def entries(data: bytes) -> Iterator[Any]:
    """Of a file of records: length, its checksum, the entry, its checksum."""
    while data:
        length, checksum = struct.unpack("<QI", data[:12])
        assert checksum == masked(data[:8])
        entry, data = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[:4])[0] == masked(entry)
        data = data[4:]
        yield Entry.FromString(entry)


def masked(data: bytes) -> int:
    checksum = crc32c(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def by_tag(entries: list[Any]) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, str]]]:
    """Scalars and texts: tag → step → value, no step of a tag twice."""
    scalars: dict[str, dict[int, float]] = {}
    texts: dict[str, dict[int, str]] = {}
    for entry in entries:
        for value in entry.summary.value:
            if value.WhichOneof("value") == "simple_value":
                steps: dict[int, Any] = scalars.setdefault(value.tag, {})
                found: Any = value.simple_value
            elif value.metadata.plugin_data.plugin_name == "text":
                steps, found = texts.setdefault(value.tag, {}), value.tensor.string_val[0].decode()
            else:
                continue
            assert entry.step not in steps, (value.tag, entry.step)
            steps[entry.step] = found
    return scalars, texts
