"""What README and docs say can be done: links lead somewhere, commands are run or parsed."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bases import LLAMA_8B
from doc_blocks import PAGES, ROOT, Block, Command, all_commands, blocks, missing_lines
from safetensors.numpy import save_file

from sftray.cli.launch import _sweep_parser, launch
from sftray.cli.main import _parser, main
from sftray.config import SweepConfig
from sftray.config.overrides import override
from sftray.data.source.conversations import conversation
from sftray.winner.bundle import seal

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
PROGRAMS = (
    "sftray", "python", ".venv/bin/python", "make", "pip", "ray", "source", "cd", "git", "head",
    "export", "bash", "kubectl", "docker", "tensorboard", "optuna-dashboard", "tests/run_gpu.sh",
)  # fmt: skip
"""What a block's first line must not begin with unless the block is called bash or console."""
PRINTS_ALIKE = "--plan"
"""A command whose output is the same on every machine, so that what a page shows is compared."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages suppose it: the checkout, the recorded sweep under every name that
    they have for one, and a base of 8 billion parameters as far as a plan reads it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("sftray", "sweeps", "benchmarks", "cluster"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "tests/recorded/packs", folder / "results/packs")
    words = {word for command in all_commands() for word in command.words}
    for sweep in {word for word in words if word.startswith("results/")} | {"results/rank"}:
        shutil.copytree(ROOT / "tests/recorded/lr_batch", folder / sweep, dirs_exist_ok=True)
        _save_an_adapter(folder / sweep / "best")  # no weights are recorded
    base = folder / "models/llama-8b"
    base.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "sftray/demo" / file, base)
    (base / "config.json").write_text(json.dumps(LLAMA_8B))
    return folder


def _save_an_adapter(folder: Path) -> None:
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
    config["base_model_name_or_path"] = "sftray/demo"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    q_proj = "base_model.model.model.layers.0.self_attn.q_proj"
    pair = {f"{q_proj}.lora_A.weight": np.ones((2, 8), np.float32)}
    pair[f"{q_proj}.lora_B.weight"] = np.ones((8, 2), np.float32)
    save_file(pair, folder / "adapter_model.safetensors")
    seal(folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(
    page: Path,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for block in blocks(page):
        READERS.get(block.language, _no_reader)(block)
        for command in block.commands():
            check = CHECKS.get(command.words[0])
            assert check is not None, f"{command}: what is it? Run it, or say why not, in CHECKS"
            capsys.readouterr()
            check(command)
            printed = capsys.readouterr().out
            if printed and PRINTS_ALIKE in command.words:
                assert missing_lines(command.shown, printed) == [], str(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = HEADING.findall(target.read_text(encoding="utf-8"))
            assert anchor in map(_anchor, headings), f"{page.name}: {link}"


def test_commands_are_found() -> None:
    programs = [command.words[0] for command in all_commands()]
    assert len(programs) >= 60
    assert set(programs) <= set(CHECKS)


def test_a_plan_that_shows_another_number_is_noticed() -> None:
    printed = "a\nb 12 steps, 3 rows\nc"
    assert missing_lines(("b 12 steps, …", "      …", "c"), printed) == []
    assert missing_lines(("b 13 steps, …", "c"), printed) == ["b 13 steps, …"]
    assert missing_lines(("c", "b 12 steps, 3 rows"), printed) == ["b 12 steps, 3 rows"]


def test_every_page_is_listed_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in readme, page.name


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# blocks that are no commands


def _python(block: Block) -> None:
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(block.text, block.page.name, "exec"), names)
    if "sweep" in names:
        assert isinstance(names["sweep"], SweepConfig)


def _conversations(block: Block) -> None:
    for line in block.text.splitlines():
        row = json.loads(line)
        assert conversation(row, "auto")[0][-1]["role"] == "assistant"


def _output(block: Block) -> None:
    """Something that was printed, or a picture: no command, which would not be checked."""
    first = block.text.split(maxsplit=1)[0]
    assert first not in PROGRAMS, f"{block.page.name}: call this block bash: {block.text[:60]}"


def _no_reader(block: Block) -> None:
    pytest.fail(f"{block.page.name}: nobody checks blocks of {block.language!r}; see READERS")


READERS: dict[str, Callable[[Block], object]] = {
    "": _output,
    "python": _python,
    "jsonl": _conversations,
    "json": lambda block: json.loads(block.text),
    "bash": lambda block: None,  # its commands are checked
    "console": lambda block: None,
}


# commands


WANT_MORE = ("demo", "generate", "chat", "train", "merge", "push", "inspect")
"""Commands of sftray that the recorded sweep is too little for."""


def _sftray(command: Command) -> None:
    """Run on the recorded sweep, but what wants weights, packed rows, a bucket or the Hub."""
    arguments = list(command.words[1:])
    _parser().parse_args(arguments)
    if arguments[0] == "init":
        given = _parser().parse_args(arguments)
        if not all(Path(path).exists() for path in (*given.data, given.model)):
            return  # no block makes its data; test_proposal runs it
        given.file.unlink(missing_ok=True)
    if arguments[0] not in WANT_MORE and not any("://" in word for word in arguments):
        _run(main, arguments, command)


def _python_program(command: Command) -> None:
    words = command.words[1:]
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None, str(command)
        tests = [word for word in words[2:] if word.startswith("tests/")]
        assert all((ROOT / test).exists() for test in tests), str(command)
    elif words[0].startswith("benchmarks/"):
        _benchmark(command, words)
    elif words[0].startswith("sweeps/") or Path(words[0]).exists():
        _sweep_command(command, words)
    else:  # of an `init` whose data no block makes
        _sweep_parser(_sweep("sweeps/lr_batch.py")).parse_args(words[1:])


def _sweep_command(command: Command, words: Sequence[str]) -> None:
    """A plan is made, where the data and the base are here; what starts Ray is only parsed."""
    file, *arguments = words
    sweep = _sweep(file)
    options = _sweep_parser(sweep).parse_args(arguments)
    sources = [options.data] if options.data else [one.path for one in sweep.data.mixture]
    if options.plan and Path(options.model or sweep.trial.model).exists():
        for data in sources:
            assert Path(data).exists(), f"{command}: no block before makes {data}"
        # not beside the recorded sweep, which has every name
        elsewhere = [] if options.storage else ["--storage", "plans"]
        _run(lambda given: launch(sweep, given), [*arguments, *elsewhere], command)
        return
    for assignment in options.set:
        sweep = override(sweep, assignment)


def _sweep(file: str) -> SweepConfig:
    path = Path(file) if Path(file).exists() else ROOT / file
    spec = importlib.util.spec_from_file_location("shown", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: SweepConfig = module.sweep
    return found


def _benchmark(command: Command, words: Sequence[str]) -> None:
    """Minutes on a machine of its own: its flags exist; test_benchmarks.py tries them."""
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    shared = (ROOT / "benchmarks/console.py").read_text(encoding="utf-8")
    for word in words[1:]:
        if word.startswith("--"):
            assert f'"{word}"' in source + shared, f"{command}: there is no {word}"


def _make(command: Command) -> None:
    """`make demo` and `make test` install and take minutes: the targets exist."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(command.words[1:]) <= set(targets), str(command)


def _pip(command: Command) -> None:
    """Installs: extras are among ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [re.findall(r"\[(.*)\]", word) for word in command.words]
    named = {name for found in extras for group in found for name in group.split(",")}
    assert named <= set(project["optional-dependencies"]), str(command)


def _ray(command: Command) -> None:
    """Starts or asks a cluster: the subcommand and its options exist; and a sweep behind them."""
    from ray.scripts.scripts import cli

    at, (_, *words) = cli, command.words
    own = words[: words.index("--")] if "--" in words else list(words)
    named = 0
    while own and hasattr(at, "commands"):
        name, named = own.pop(0), named + 1
        assert name in at.commands, f"{command}: ray has no {name}"
        at = at.commands[name]
    options = {option for parameter in at.params for option in parameter.opts}
    for word in own:
        if word.startswith("-"):
            assert word.split("=")[0] in options, f"{command}: there is no {word}"
    behind = words[len(own) + named + 1 :]
    if behind[1:] and (ROOT / behind[1]).is_file():  # not python sweeps/…
        _sweep_command(command, behind[1:])


def _files(command: Command) -> None:
    """Scripts and programs of clouds, which want accounts: the files that they name are here."""
    named = [word for word in command.words if re.match(r"(cluster|tests)/", word)]
    assert all((ROOT / word).exists() for word in named), str(command)


def _shell(command: Command) -> None:
    """Harmless, and so it is run."""
    done = subprocess.run(command.words, capture_output=True, text=True, check=True)
    assert missing_lines(command.shown, done.stdout) == [], str(command)


def _not_run(command: Command) -> None:
    """Changes the reader's own shell, fetches the checkout, or is not installed with sftray."""


def _run(program: Callable[[list[str]], object], arguments: list[str], command: Command) -> None:
    with pytest.raises(SystemExit) as ended:
        program(arguments)
    assert ended.value.code == 0, str(command)


def _opens(command: Command) -> None:
    """Not installed with sftray; the file that it opens is there, from the command before."""
    assert Path(command.words[1].removeprefix("sqlite:///")).is_file(), str(command)


CHECKS: dict[str, Callable[[Command], None]] = {
    "sftray": _sftray,
    "python": _python_program,
    ".venv/bin/python": _python_program,
    "make": _make,
    "pip": _pip,
    "ray": _ray,
    "head": _shell,
    "bash": _files,
    "kubectl": _files,
    "docker": _files,
    "tests/run_gpu.sh": _files,
    "git": _not_run,
    "optuna-dashboard": _opens,
    "tensorboard": _not_run,  # not installed with sftray
    "cd": _not_run,
    "source": _not_run,
    "export": _not_run,
}
