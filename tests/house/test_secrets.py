"""What is written has no secret in it and, unless switched on, no text of the dataset."""

from __future__ import annotations

import ast
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from events import an_event
from fake_folder import EVENTS, RECORDED, found_in
from fake_trials import make_search, make_sweep
from fake_wandb import fake_wandb
from tracked_sweep import SWEEP, begin, record_of, records, result

from sftray.cli import main
from sftray.cli.terminal import hook_without_secrets, with_plain_errors
from sftray.config import DataConfig, SweepConfig, TrialConfig, choice
from sftray.config.config_json import to_json
from sftray.demo import FOLDER
from sftray.errors import ConfigError, DataError, SftrayError
from sftray.plan.preview import make_plan
from sftray.plan.preview_text import plan_text
from sftray.results.recorder import Recorder
from sftray.storage import files as storage_files
from sftray.storage.journal import Journal
from sftray.storage.model_files import require_safetensors
from sftray.storage.paths import SweepPaths
from sftray.storage.redact import HIDDEN, looks_secret, redact
from sftray.views.live.screen import shown
from sftray.views.report.report import page
from sftray.winner.bundle import seal

HERE = Path(__file__).parents[1]
KEY = "-----BEGIN PRIVATE KEY-----\\nMIIEplantedgooglekey\\n-----END PRIVATE KEY-----"
PLANTED = {
    "HF_TOKEN": "hf_plantedaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "HUGGING_FACE_HUB_TOKEN": "hf_plantedbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "WANDB_API_KEY": "91a47edc" * 5,
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SECRET_ACCESS_KEY": "plantedawssecretplantedawssecret00000000",
    "AWS_SESSION_TOKEN": "plantedsessiontokenplantedsessiontoken",
    "GOOGLE_CREDENTIALS": json.dumps({"type": "service_account", "private_key": KEY}),
    "OPENAI_API_KEY": "plantedwithoutaknownform",
}
NEEDLES = [value for name, value in PLANTED.items() if name != "GOOGLE_CREDENTIALS"]
NEEDLES += ["MIIEplantedgooglekey"]
MARKER = "Quincezeppelin 7391"
"""A sentence of the dataset that is nowhere else."""


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def found_needles(folder: Path, needles: list[str], *, but: tuple[str, ...] = ()) -> list[str]:
    """Where any of them is: in raw bytes, in what is compressed, in W&B's records. `but`: names of
    folders that are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or set(path.relative_to(folder).parts) & {*but}:
            continue
        data = path.read_bytes()
        texts = [data, gzip.decompress(data)] if data[:2] == b"\x1f\x8b" else [data]
        if path.suffix == ".wandb":  # a record may be cut in two by a block's header
            texts.append(b"".join(record.SerializeToString() for record in records(path)))
        found += [f"{path}: {n}" for n in needles if any(n.encode() in text for text in texts)]
    return found


# in a configuration


@pytest.mark.parametrize(
    "source",
    [
        "https://user:s3cretword@host/chats.jsonl",
        "https://s3cretword@host/chats.jsonl",
        "s3://AKIAEXAMPLE:s3cret/word@bucket/chats.jsonl",
        "s3://AKIAEXAMPLE@bucket/chats.jsonl",
        "https://host/chats.jsonl?X-Amz-Signature=s3cretword",
        "https://host/chats.jsonl?a=1&access_token=s3cretword",
        "hf_s3cretwords3cretwords3cretword",
    ],
)
@pytest.mark.parametrize(
    "field", ["data.source", "data.eval_source", "data.test_source", "storage", "warm_start"]
)
def test_a_configuration_with_a_secret_is_refused_and_the_message_lacks_it(
    source: str, field: str
) -> None:
    name = field.removeprefix("data.")
    values: dict[str, Any] = {name: (source,) if name == "warm_start" else source}
    with pytest.raises(ConfigError) as refused:
        DataConfig(**{"source": "x.jsonl"} | values) if name != field else make_sweep(**values)
    assert str(refused.value).startswith(f"{field}: got a text with a secret in it")
    assert "s3cret" not in str(refused.value)


def test_what_only_resembles_one_is_accepted() -> None:
    for source in (
        "gs://anonymous@bucket/chats.jsonl",
        "s3://bucket/a.jsonl?endpoint_override=http://127.0.0.1:9000&scheme=http&region=us-east-1",
        "abfss://container@account.dfs.core.windows.net/chats.jsonl",
        "results/basic-tokens/key=3/a:b@c.jsonl",
        "HuggingFaceH4/ultrachat_200k",
    ):
        assert DataConfig(source).source == source


def test_a_model_of_a_search_may_hold_none_either() -> None:
    with pytest.raises(ConfigError, match=r"trial\.model: got a text with a secret"):
        make_sweep(search_space={"model": choice(["a", "https://u:s3cretword@host/b"])})


# in messages


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("needle", NEEDLES)
def test_the_environments_secrets_are_taken_out_of_a_text(needle: str) -> None:
    said = f"401 Client Error for url: https://user:{needle}@host/f, key={needle!r} {{{needle}}}"
    if needle.startswith("MIIE"):
        said = f"cannot parse {PLANTED['GOOGLE_CREDENTIALS']} nor {KEY}"
    assert needle not in redact(said)
    assert HIDDEN in redact(said)


def test_a_text_without_secrets_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")
    monkeypatch.setenv("SHORT_TOKEN", "step")
    for said in (
        "step 5: loss nan, gradient norm inf at learning rate 0.1, rows 8 to 11, after 90 tokens",
        "FileNotFoundError: /home/me/key.json",
        "s3://bucket/x: a read timed out (http://127.0.0.1:9000, 3 tries)",
        "sha256 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        "torch.OutOfMemoryError: tried to allocate 2.00 GiB",
    ):
        assert redact(said) == said
        assert not looks_secret(said)


@pytest.mark.usefixtures("planted")
def test_what_a_failure_says_is_written_and_told_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_sweep(points=({"learning_rate": 1e-3}, {"learning_rate": 1e-4}))
    paths = SweepPaths(str(tmp_path))
    said = " ".join(f"https://user:{needle}@host/f?token={needle}" for needle in NEEDLES)
    with shown(sweep, plain=True) as log, Journal(paths.journal) as journal:
        search = make_search(sweep, journal)
        recorder = Recorder(sweep, paths, journal, log)
        for trial in ("t0000", "t0001"):
            search.suggest()
            search.attempt(trial)
            search.attempt_ended(trial, f"HTTPError: 403 for {said}")
            recorder.recovers(trial)
        search.gave_up("t0000")
        search.end("t0001", "data_error", f"cannot read {said}")
        recorder.finish_trials()
        recorder.write_leaderboard()
        log(f"best/: {said}")
    with pytest.raises(SystemExit):
        sys.exit(with_plain_errors(lambda: _raise(SftrayError(said))))
    try:
        _raise(OSError(said))
    except OSError as error:
        hook_without_secrets(OSError, error, error.__traceback__)
    told = "".join(capsys.readouterr())
    assert f"OSError: https://{HIDDEN}@host/f?{HIDDEN}" in told
    assert f"error: https://{HIDDEN}@host" in told
    assert "HTTPError: 403 for https://" in told
    assert [needle for needle in NEEDLES if needle in told] == []
    assert "403 for https://" in (tmp_path / "journal.jsonl").read_text()
    assert found_needles(tmp_path, NEEDLES) == []


def _raise(error: Exception) -> int:
    raise error


# in W&B


@pytest.fixture
def mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepPaths:
    """A sweep's folder with samples of the data, and a trial that failed with a secret in its
    message; not mirrored yet."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    paths = SweepPaths.of(str(tmp_path / "results"), SWEEP.name)
    record = record_of(replace(SWEEP, wandb_samples=False))
    storage_files.write_text(paths.sweep, json.dumps(record))
    sample = {"step": 2, "messages": [{"role": "user", "content": MARKER}], "answer": MARKER}
    with Journal(paths.journal) as journal:
        begin(journal)
        journal.append(an_event("result", "0000", step=2, metrics=result(2)))
        storage_files.write_text(paths.trial("0000").samples, json.dumps(sample) + "\n")
        journal.append(an_event("trial_ended", "0000", outcome="completed", message=""))
        said = f"403 for https://u:{PLANTED['HF_TOKEN']}@host"
        journal.append(an_event("trial_ended", "0001", outcome="failed", message=said))
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_wandb_gets_neither_keys_nor_samples(
    mirrored: SweepPaths, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        sys.executable,
        "-m",
        "sftray.views.tracking.wandb_mirror",
        mirrored.root,
        "--mode",
        mode,
    ]
    with fake_wandb() as (address, sent):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0
    assert len(sent) == (2 if mode == "online" else 0)
    files = list(Path(mirrored.tracking).rglob("*.wandb"))
    assert len(files) == 2
    assert any(b"eval_loss" in path.read_bytes() for path in files)
    assert found_needles(Path(mirrored.tracking), [*NEEDLES, MARKER]) == []
    said = done.stdout + done.stderr + json.dumps(sent)
    assert [needle for needle in [*NEEDLES, MARKER] if needle in said] == []


# in all that a sweep writes


@dataclass(frozen=True)
class Ran:
    """A sweep that has run with secrets in its environment and a marked sentence in its data."""

    storage: Path
    home: Path
    ray: Path
    said: str
    seen: dict[str, Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("secrets")
    plant_sentence(folder / "chats.jsonl")
    (folder / "home").mkdir()
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # a socket's path is limited
        env = {name: value for name, value in os.environ.items() if "WANDB" not in name}
        env |= {**PLANTED, "HOME": str(folder / "home"), "RAY_TMPDIR": short}
        env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        paths = (str(HERE.parent), os.environ.get("PYTHONPATH", ""))
        env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        arguments = [folder / "chats.jsonl", folder / "results", folder / "seen.json"]
        done = subprocess.run(
            [sys.executable, HERE / "fakes" / "secrets_sweep.py", *arguments],
            env={name: value for name, value in env.items() if name != "RAY_ADDRESS"},
            capture_output=True,
            text=True,
            timeout=600,
            cwd=folder,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        seen = json.loads((folder / "seen.json").read_text())
        said = done.stdout + done.stderr
        yield Ran(folder / "results", folder / "home", Path(short), said, seen)


def plant_sentence(path: Path) -> None:
    """100 of the bundled conversations with the marked sentence in every turn, and a bad row."""
    lines = (FOLDER / "chats.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        for turn in row["messages"]:
            turn["content"] += f" {MARKER}"
    rows.append({"messages": [{"role": "user", "content": MARKER}] * 2})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_writes_no_secret_anywhere(ran: Ran) -> None:
    assert (ran.storage / "secrets" / "report.html").exists()
    assert (ran.storage / "secrets" / "best" / "adapter_model.safetensors").exists()
    assert list(ran.storage.glob("secrets/wandb/offline-run-*/*.wandb"))
    assert len(list(ran.ray.rglob("*.log"))) >= 3
    assert found_needles(ran.storage, NEEDLES) == []
    assert found_needles(ran.home, NEEDLES) == []
    assert found_needles(ran.ray, NEEDLES) == []
    assert [needle for needle in NEEDLES if needle in ran.said] == []


@pytest.mark.ray
@pytest.mark.slow
def test_with_samples_off_the_datas_text_is_in_the_packs_alone(ran: Ran) -> None:
    assert found_needles(ran.storage / "packs", [MARKER]) != []  # prompts, should they be wanted
    assert found_needles(ran.storage, [MARKER], but=("packs",)) == []
    assert found_needles(ran.ray, [MARKER]) == []
    assert found_needles(ran.home, [MARKER]) == []
    assert MARKER not in ran.said


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweeps_own_ray_is_this_machines_alone_and_asks_for_its_token(ran: Ran) -> None:
    assert ran.seen["listens"] == ["127.0.0.1"]
    assert ran.seen["answers"] == [401, 401, 401]
    assert ran.seen["token_mode"] == "0o600"
    assert "warning: Ray" not in ran.said


# what is loaded


SOURCES = HERE.parent / "sftray"
BETWEEN_PROCESSES = {
    "data/chat/rendering.py": "a request, by the child that sftray has started for it",
    "data/chat/template_process.py": "nothing: what comes back is JSON",
    "data/packs/ray_passes.py": "a task's item and its answer",
    "search/tune_adapters.py": "an actor's exception, in the temporary folder that Tune was given",
}
"""What may unpickle, and what: as all that Ray passes on."""


def test_no_pickle_is_read_and_no_foreign_code_is_switched_on() -> None:
    sources = sorted(SOURCES.rglob("*.py"))
    assert len(sources) > 80
    for path in sources:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                unpicklers = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
                found = unpicklers & {name.partition(".")[0] for name in names}
                assert not found or str(path.relative_to(SOURCES)) in BETWEEN_PROCESSES, path
            if isinstance(node, ast.Call):
                check_call(path, node)


def check_call(path: Path, call: ast.Call) -> None:
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    where = f"{path}, line {call.lineno}"
    assert given.get("trust_remote_code") != "True", where
    assert given.get("allow_pickle") != "True", where
    if name == "torch.load":
        assert given.get("weights_only") == "True", where
    if name in ("AutoModelForCausalLM.from_pretrained", "loaded_as.from_pretrained"):
        assert given.get("use_safetensors") == "True", where
    assert name not in ("Tuner.restore", "tune.Tuner.restore", "eval", "exec"), where


def test_a_base_whose_weights_are_pickles_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=r"as pytorch_model\.bin, must have \.safetensors"):
        require_safetensors(str(tmp_path))
    (tmp_path / "model.safetensors").write_text("")
    require_safetensors(str(tmp_path))


def test_whether_foreign_code_runs_is_not_searched_over() -> None:
    for wrong in (
        {"search_space": {"trust_remote_code": choice([True, False])}},
        {"points": ({"trust_remote_code": True},)},
    ):
        with pytest.raises(ConfigError, match="trust_remote_code: got a search over it"):
            make_sweep(**wrong)


@pytest.mark.slow
def test_foreign_code_is_named_in_plan_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = SweepConfig(
        name="x",
        data=DataConfig(str(FOLDER / "chats.jsonl"), max_length=512),
        trial=TrialConfig(str(FOLDER), effective_batch_size=4),
        points=({"learning_rate": 1e-3},),
        storage=str(tmp_path),
    )
    for trusted in (False, True):
        trial = replace(sweep.trial, trust_remote_code=trusted)
        plan = plan_text(make_plan(replace(sweep, trial=trial), gpu_memory=None))
        warning = f"warning: trust_remote_code is on: Python code of {FOLDER}, at whatever it is"
        assert (warning in plan) is trusted
    found = found_in(tmp_path, EVENTS)
    on = "on: the base's own code was run".replace("'", "&#39;")
    assert on not in page(found)
    trial = replace(found.config.trial, trust_remote_code=True)
    monkeypatch.setitem(found.__dict__, "config", replace(found.config, trial=trial))
    assert on in page(found)


@pytest.mark.parametrize("command", ["merge", "generate"])
def test_a_folder_cannot_have_code_run(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter_model.safetensors").write_text("")
    facts = json.loads((RECORDED / "best" / "sweep.json").read_text())
    facts["config"] = to_json(TrialConfig("evil/base", trust_remote_code=True))
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    seal(tmp_path)
    arguments = ["merge", str(tmp_path), str(tmp_path / "out")]
    if command == "generate":
        arguments = ["generate", str(tmp_path), "hello"]
    with pytest.raises(SystemExit, match=r"^2$"):
        main.main(arguments)
    assert "evil/base wants to run Python code" in capsys.readouterr().err
