"""`--fresh` deletes last, asks, and never what runs or is no sweep's; whose sweep is gone stops."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from events import an_event
from s3_server import s3_server

from sftray.cli.launch import launch
from sftray.config import SweepConfig
from sftray.config.resume_check import require_no_stranger
from sftray.errors import ConfigError, JournalError
from sftray.results import Results
from sftray.storage import files
from sftray.storage.journal import Journal, read_events
from sftray.storage.paths import SweepPaths
from sftray.sweep.fresh import delete_sweep, finished_trials, require_whole
from sftray.sweep.run import run_sweep

MORE = pytest.mark.exhaustive


def silent(line: str) -> None:
    """Logs nothing."""


@pytest.fixture
def sweep(small_sweep_config: SweepConfig, tmp_path: Path) -> SweepConfig:
    return replace(small_sweep_config, storage=str(tmp_path))


@pytest.fixture
def paths(sweep: SweepConfig) -> SweepPaths:
    """A sweep of that name, with a finished trial."""
    paths = SweepPaths.of(sweep.storage, sweep.name)
    begun(paths)
    return paths


def begun(paths: SweepPaths) -> None:
    with Journal(paths.journal) as journal:
        journal.append(an_event("trial_suggested", "t0000", point={}))
        journal.append(an_event("trial_ended", "t0000", outcome="completed", message=""))
    files.write_text(paths.sweep, "{}")
    files.write_text(paths.trial("t0000").outcome, "{}")


def launched(sweep: SweepConfig, *arguments: str, status: int = 2) -> None:
    with pytest.raises(SystemExit, match=f"^{status}$"):
        launch(sweep, [*arguments, "--fresh"])


def whole(paths: SweepPaths) -> bool:
    return files.exists(paths.trial("t0000").outcome) and len(read_events(paths.journal)) == 2


def test_finished_trials_are_not_deleted_without_a_word(
    sweep: SweepConfig, paths: SweepPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(sweep)
    assert capsys.readouterr().err == (
        f"error: --fresh: {paths.root} has 1 finished trial\nhint: pass --yes to delete them\n"
    )
    assert whole(paths)


def test_an_unreadable_journal_may_hold_any_number_of_trials(
    sweep: SweepConfig, paths: SweepPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(paths.journal).write_text("no JSON\n{}\n")
    launched(sweep)
    assert "has an unreadable journal" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["/typo.jsonl", "no/such-dataset"])
def test_nothing_is_deleted_where_the_new_sweep_cannot_start(
    sweep: SweepConfig, paths: SweepPaths, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    launched(sweep, "--yes", "--data", data)
    assert whole(paths)


def test_a_sweep_that_runs_is_not_deleted(
    sweep: SweepConfig, paths: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftray.sweep.run.connect", lambda *_, **__: pytest.fail("Ray was started"))
    with Journal(paths.journal) as journal:
        with pytest.raises(JournalError, match="another driver is running this sweep"):
            run_sweep(sweep, local=True, fresh=True, log=silent)
        with pytest.raises(JournalError, match="another driver is running this sweep"):
            delete_sweep(paths, silent)
        journal.append(an_event("sweep_ended"))
    assert files.exists(paths.trial("t0000").outcome)


def test_the_name_of_the_packs_is_no_sweeps(sweep: SweepConfig) -> None:
    with pytest.raises(ConfigError, match="got 'packs', must be another: the packs of all sweeps"):
        replace(sweep, name="packs")


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_that_is_no_sweeps_is_left_alone(
    sweep: SweepConfig, tmp_path: Path, fresh: bool
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        with pytest.raises(ConfigError, match=f"name: got '{name}', but .* no sweep's"):
            run_sweep(replace(sweep, name=name), local=True, fresh=fresh, log=silent)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_all_goes_but_the_lock(paths: SweepPaths) -> None:
    delete_sweep(paths, silent)
    assert files.list_names(paths.root) == ["journal.jsonl.lock"]


def test_on_s3_all_goes_but_the_lease() -> None:
    with s3_server("begun-anew") as bucket:  # clients are kept by name
        paths = SweepPaths.of(bucket, "one")
        begun(paths)
        assert finished_trials(paths) == 1
        delete_sweep(paths, silent)
        assert files.list_names(paths.root) == ["journal.jsonl.lease"]
        assert not files.exists(paths.trial("t0000").outcome)
        files.write_text(f"{bucket}/mine/thesis.tex", "")
        with pytest.raises(ConfigError, match=r"got 'mine', but .* no sweep's"):
            require_no_stranger(SweepPaths.of(bucket, "mine"))


def test_where_nothing_is_there_is_nothing_to_delete(sweep: SweepConfig) -> None:
    paths = SweepPaths.of(sweep.storage, "new")
    delete_sweep(paths, silent)
    assert not files.exists(paths.root)


def test_what_is_left_of_a_sweep_is_not_continued(paths: SweepPaths) -> None:
    require_whole(paths, begun=True)
    with pytest.raises(JournalError, match=r"trials: is not empty, but the journal .* no trials"):
        require_whole(paths, begun=False)
    files.remove(paths.sweep)
    with pytest.raises(JournalError, match=r"sweep\.json: missing, but the journal .* has trials"):
        require_whole(paths, begun=True)
    files.remove(paths.trials)
    require_whole(paths, begun=False)


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_begun_anew_has_nothing_of_the_one_before(
    small_sweep: Results, sweep: SweepConfig, tmp_path: Path
) -> None:
    old = shutil.copytree(small_sweep.folder, tmp_path / sweep.name)
    shutil.copytree(Path(small_sweep.folder).parent / "packs", tmp_path / "packs")
    other = replace(sweep, points=({"learning_rate": 2e-3},), scheduler="none")
    with pytest.raises(ConfigError, match="another configuration"):
        run_sweep(other, local=True, log=silent)
    (old / "deleting").touch()  # by a --fresh that was cut off: what is left cannot be continued
    (old / "sweep.json").unlink()
    found = run_sweep(other, local=True, log=silent)
    assert [trial.point for trial in found.records] == [{"learning_rate": 2e-3}]
    assert files.list_names(str(old / "trials")) == ["t0000"]
    assert not (old / "deleting").exists()
    found = run_sweep(sweep, local=True, fresh=True, log=silent)
    assert found.leaderboard["best"] == small_sweep.leaderboard["best"]


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    """By a finished sweep of the same name, which has another winner."""
    folder.rename(folder.with_name("before"))
    (folder / "best").mkdir(parents=True)
    (folder / "leaderboard.json").write_text('{"best": "t0007"}')
    with Journal(str(folder / "journal.jsonl")) as journal:
        journal.append(an_event("sweep_ended"))


def unlocked(folder: Path) -> None:
    (folder / "journal.jsonl.lock").unlink()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (replaced, "t0001  step     4"),
        *(pytest.param(one, "best/: reloaded", marks=MORE) for one in (gone, replaced, unlocked)),
        *(pytest.param(one, "t0001  step     4", marks=MORE) for one in (gone, unlocked)),
    ],
)
def test_whose_sweep_is_gone_stops_and_claims_nothing(
    small_sweep: Results,
    sweep: SweepConfig,
    tmp_path: Path,
    change: Callable[[Path], None],
    line: str,
) -> None:
    shutil.copytree(Path(small_sweep.folder).parent / "packs", tmp_path / "packs")
    folder = tmp_path / sweep.name

    def log(said: str) -> None:
        if said.startswith(line):
            change(folder)

    with pytest.raises(JournalError, match="This driver stops here, and claims no result"):
        run_sweep(sweep, local=True, log=log)
    if change is replaced:
        board = json.loads((folder / "leaderboard.json").read_text())
        assert board == {"best": "t0007"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.exhaustive
@pytest.mark.parametrize("trainer", ["bank", "train"])
def test_whose_sweep_is_gone_stops_under_tune_too(
    sweep: SweepConfig, tmp_path: Path, trainer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Deletes(io.StringIO):
        """A terminal's other end, at which somebody deletes the sweep when a trial has begun."""

        def write(self, text: str) -> int:
            if "t0000  step     4" in text:
                shutil.rmtree(tmp_path / sweep.name, ignore_errors=True)
            return len(text)

    terminal = Deletes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        with pytest.raises(SystemExit, match=r"^2$"):
            launch(replace(sweep, trainer=trainer), ["--plain"])
    assert "This driver stops here, and claims no result" in capsys.readouterr().err
