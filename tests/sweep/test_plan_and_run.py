"""`--plan` and a start refuse the same sweeps: what cannot be trained, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from packs_here import each_here
from saved_bases import copy_of_the_base

from sftray.cluster.connect import Cluster
from sftray.config import DataConfig, SweepConfig, TrialConfig, choice, loguniform
from sftray.demo import FOLDER
from sftray.errors import SftrayError
from sftray.plan.preview import make_plan
from sftray.storage.journal import Journal
from sftray.storage.journal.event_types import trial_suggested
from sftray.storage.paths import SweepPaths
from sftray.sweep.run import run_sweep

Change = Callable[[SweepConfig, Path], SweepConfig]
CHATS = (FOLDER / "chats.jsonl").read_text().splitlines()[:160]


class StartedError(Exception):
    """All checks were passed, and trials would begin."""


def until(begin: str) -> Callable[[str], None]:
    """A log that ends the start at a line."""

    def log(line: str) -> None:
        if line.startswith(begin):
            raise StartedError

    return log


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start asks of Ray before its trials is done in this process."""
    monkeypatch.setattr("sftray.sweep.run.connect", lambda *_, **__: Cluster(2.0, 0.0))
    monkeypatch.setattr("sftray.sweep.run.ask_nodes", lambda sight: None)
    monkeypatch.setattr(
        "sftray.sweep.run.each_on_ray", lambda task, items, sight: each_here(task, items)
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def of_plan(sweep: SweepConfig) -> str:
    """What `--plan` says against a sweep; nothing where it would start."""
    try:
        return "\n".join(make_plan(sweep, gpu_memory=None).refusals)
    except SftrayError as error:
        return str(error)


def of_run(sweep: SweepConfig) -> str:
    """What a start says."""
    try:
        run_sweep(sweep, local=True, log=until("trainer: "))
    except StartedError:
        return ""
    except SftrayError as error:
        return str(error)
    raise AssertionError("neither started nor refused")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """A sweep that starts."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "chats.jsonl").write_text("\n".join(CHATS))
    return SweepConfig(
        "good",
        DataConfig(str(folder / "chats.jsonl"), max_length=256, eval_fraction=0.1),
        TrialConfig(str(FOLDER), base_precision="fp32", effective_batch_size=2),
        search_space={"learning_rate": loguniform(1e-4, 1e-2)},
        num_trials=3,
        use_gpu=False,
        storage=str(folder / "results"),
    )


# what changes a sweep that starts into one that does not


def trial(**changes: object) -> Change:
    return lambda sweep, _: replace(sweep, trial=replace(sweep.trial, **changes))  # type: ignore[arg-type]


def data(**changes: object) -> Change:
    return lambda sweep, _: replace(sweep, data=replace(sweep.data, **changes))  # type: ignore[arg-type]


def given(**changes: object) -> Change:
    return lambda sweep, _: replace(sweep, **changes)  # type: ignore[arg-type]


def rows(*lines: str, field: str = "source") -> Change:
    """Data of these lines."""

    def change(sweep: SweepConfig, folder: Path) -> SweepConfig:
        (folder / "rows.jsonl").write_text("\n".join(lines))
        return data(**{field: str(folder / "rows.jsonl")})(sweep, folder)

    return change


def chat(question: str, answer: str = "Yes.") -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns})


def base(make: Callable[[Path], object]) -> Change:
    """A base of its own."""

    def change(sweep: SweepConfig, folder: Path) -> SweepConfig:
        make(folder / "base")
        return trial(model=str(folder / "base"))(sweep, folder)

    return change


def without_config(folder: Path) -> None:
    (copy_of_the_base(folder) / "config.json").unlink()


def of_pickles(folder: Path) -> None:
    weights = copy_of_the_base(folder) / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))


def with_adapter(folder: Path) -> None:
    (copy_of_the_base(folder) / "adapter_config.json").write_text("{}")


def below(make: Callable[[Path], object], name: str) -> Change:
    """Storage in a folder that `make` has made."""

    def change(sweep: SweepConfig, folder: Path) -> SweepConfig:
        make(folder / "place")
        return replace(sweep, storage=str(folder / name))

    return change


def stranger(sweep: SweepConfig, folder: Path) -> SweepConfig:
    (folder / "good").mkdir()
    (folder / "good" / "thesis.tex").touch()
    return replace(sweep, storage=str(folder))


def begun(then: Change, trials: int = 0) -> Change:
    """A sweep of this name has begun, with some trials; then something is changed."""

    def change(sweep: SweepConfig, folder: Path) -> SweepConfig:
        sweep = replace(sweep, storage=str(folder / "results"))
        with pytest.raises(StartedError):
            run_sweep(sweep, local=True, log=until("W&B: off"))
        with Journal(SweepPaths.of(sweep.storage, sweep.name).journal) as journal:
            for number in range(trials):
                point = {"learning_rate": 1e-3 + number / 1e4}
                journal.append(trial_suggested(f"t{number:04}", point))
        return then(sweep, folder)

    return change


def longer(sweep: SweepConfig, folder: Path) -> SweepConfig:
    with open(str(sweep.data.source), "a") as file:
        file.write("\n" + chat("New?"))
    return sweep


def other_tokenizer(sweep: SweepConfig, folder: Path) -> SweepConfig:
    file = Path(sweep.trial.model) / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    return sweep


def kept(sweep: SweepConfig, folder: Path) -> SweepConfig:
    return sweep


def then(*changes: Change) -> Change:
    def change(sweep: SweepConfig, folder: Path) -> SweepConfig:
        for one in changes:
            sweep = one(sweep, folder)
        return sweep

    return change


ALIKE = [chat("Is it so?", f"Answer {number}.") for number in range(200)]
HALF_BAD = [*CHATS, *[json.dumps({"messages": []})] * 160]
REFUSED: dict[str, tuple[Change, str]] = {
    "storage is a file": (below(Path.touch, "place"), "is a file, must be a folder"),
    "storage lies below a file": (below(Path.touch, "place/x"), "place is a file"),
    "storage is read-only": (given(storage="/proc/x"), "storage: got '/proc/x', but /proc cannot"),
    "another folder has its name": (stranger, "is there and no sweep's"),
    "a sweep of its name has other data": (
        begun(data(max_length=128)), "it differs in data.max_length"
    ),
    "a sweep of its name has another axis": (
        begun(given(search_space={"lora_r": choice([2, 4])})), "it differs in search_space"
    ),
    "a row was added to its data": (then(rows(*CHATS), begun(longer)), "data.source was "),
    "its tokenizer was changed": (
        then(base(copy_of_the_base), begun(other_tokenizer)), "tokenizer_config.json was "
    ),
    "fewer trials than have run": (
        begun(given(num_trials=2), trials=3), "num_trials: got 2, must be at least 3"
    ),
    "an earlier sweep is missing": (given(warm_start=("/no/such",)), "warm_start: got '/no/such'"),
    "no such base": (trial(model="/no/such/base"), "/no/such/base is no folder"),
    "a base without config.json": (base(without_config), "has no config.json"),
    "a base of pickles": (base(of_pickles), "must have .safetensors"),
    "an adapter for a base": (base(with_adapter), "must be a base without one"),
    "a base whose config.json is no JSON": (
        then(base(copy_of_the_base), lambda sweep, folder: broken(sweep, "config.json")), "not JSON"
    ),
    "a base with too few rows": (
        base(lambda folder: copy_of_the_base(folder, vocab_size=400)), "has 400 rows"
    ),
    "no such module": (trial(lora_target_modules=("q_prj",)), "'q_prj', which matches no module"),
    "no such module in another family": (
        then(
            base(lambda folder: copy_of_the_base(folder, model_type="olmo2")),
            trial(lora_target_modules=("c_attn",)),
        ),
        "'c_attn', which matches no module",
    ),
    "a module that carries no adapter": (trial(lora_target_modules=("norm",)), "matches norm"),
    "too few steps": (trial(effective_batch_size=64), "must give at least 10"),
    "a revision of a folder": (trial(model_revision="main"), "only a Hub model has revisions"),
    "a revision of files": (data(revision="main"), "only a Hub dataset has revisions"),
    "an attention that needs a GPU": (
        trial(attention="varlen", base_precision="bf16"), "got 'varlen' on CPUs"
    ),
    "a bank for several workers": (
        then(given(trainer="bank"), trial(num_workers=2)), "got 'bank', but a trial has 2"
    ),
    "no such metric": (given(metric="sftray.metrics:nosuch"), "nosuch"),
    "no such data": (data(source="/no/such.jsonl"), "there is no such file"),
    "no such evaluation data": (data(eval_source="/no/such.jsonl"), "there is no such file"),
    "data without a row": (rows(""), "rows.jsonl"),
    "data that is no JSON": (rows(*["nothing"] * 40), "not JSON"),
    "columns that nobody knows": (rows(*['{"a": "b"}'] * 40), "got the columns"),
    "half of the rows are bad": (rows(*HALF_BAD), "160 of 320 rows are bad"),
    "all first questions are alike": (rows(*ALIKE), "no evaluation or test set of at most"),
    "the evaluation set is trained on": (
        rows(*CHATS[:40], field="eval_source"), "are in the training data word for word"
    ),
    "no such template": (data(chat_template="nosuch"), "data.chat_template: got 'nosuch'"),
    "a template that is none": (
        lambda sweep, folder: template(sweep, folder, "{% if %}"), "chat template"
    ),
}  # fmt: skip
SAME: dict[str, Change] = {
    "as it is": kept,
    "begun": begun(kept, trials=2),
    "begun, with more trials": begun(given(num_trials=5), trials=3),
    "begun, with a budget": begun(given(max_hours=1.0)),
    "begun, from the base's folder": begun(lambda sweep, _: relative(sweep)),
    "a cluster with GPUs": given(max_gpu_hours=1.0),
}


def broken(sweep: SweepConfig, name: str) -> SweepConfig:
    (Path(sweep.trial.model) / name).write_text("{")
    return sweep


def template(sweep: SweepConfig, folder: Path, text: str) -> SweepConfig:
    (folder / "t.jinja").write_text(text)
    return data(chat_template=str(folder / "t.jinja"))(sweep, folder)


def relative(sweep: SweepConfig) -> SweepConfig:
    """The same, as who stands beside the base writes it."""
    return replace(sweep, trial=replace(sweep.trial, model=f"./{FOLDER.name}"))


@pytest.mark.parametrize("name", REFUSED)
def test_plan_and_run_refuse_the_same(name: str, good: SweepConfig, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    sweep = change(good, tmp_path)
    planned = of_plan(sweep)
    assert message in planned
    ran = of_run(sweep)
    assert message in ran


@pytest.mark.parametrize("name", SAME)
def test_neither_refuses_a_sweep_that_can_run(
    name: str, good: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER.parent)
    sweep = SAME[name](good, tmp_path)
    assert of_plan(sweep) == ""
    assert of_run(sweep) == ""


@pytest.mark.parametrize("free", [0, 50_000])
def test_a_disk_without_room_is_refused_with_sizes_that_differ(
    free: int, good: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr("sftray.plan.disk.shutil.disk_usage", lambda path: usage)
    for said in (of_plan(good), of_run(good)):
        assert re.search(r"storage: got 0\.\d MB free at .*, must have [1-9]\d*\.\d MB", said)
