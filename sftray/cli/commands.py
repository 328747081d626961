"""What the `sftray` commands do, one function each; they import what they need when they run."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sftray.cli.terminal import agreed, quiet_libraries, say, wrapped
from sftray.config.config_json import to_json
from sftray.errors import SftrayError
from sftray.storage.paths import PacksPaths, SweepPaths, resolved
from sftray.storage.terminal_text import put

if TYPE_CHECKING:
    from sftray.results import Results
    from sftray.winner.bundle import BundleFacts
    from sftray.winner.generate import AnswerPair


def results(options: argparse.Namespace) -> int:
    from sftray.results import load
    from sftray.results.findings import learn

    found = load(options.dir)
    if options.json:
        say(json.dumps(found.leaderboard, indent=1))
    elif options.findings:
        say(json.dumps(learn(found).to_json(), indent=1))
    else:
        say_results(found, top=options.top, verdicts=options.verdicts)
    return 0


def say_results(found: Results, *, top: int | None, verdicts: bool = False) -> None:
    """The leaderboard, what its repetitions say, and what the sweep has learned."""
    from sftray.results import leaderboard_text
    from sftray.results.findings import learn, text
    from sftray.results.loss_by_kind import kinds_text

    say(leaderboard_text.table(found.leaderboard, top=top))
    if confirmed := leaderboard_text.confirmed_text(found.leaderboard):
        say("\n" + confirmed)
    if kinds := kinds_text(found.leaderboard):
        say("\n" + kinds)
    if energy := leaderboard_text.energy_text(found.leaderboard):
        say(f"\nenergy: {energy}")
    if verdicts:
        say("\n" + leaderboard_text.verdicts(found.leaderboard, top=top))
    say("\n" + text(learn(found)))


def audit(options: argparse.Namespace) -> int:
    """Every decision and draw of the journal, made again; 1 where one differs."""
    from sftray.results.audit import audit as audited

    found = audited(options.dir)
    say(json.dumps(asdict(found), indent=1) if options.json else str(found))
    return int(bool(found.differences))


def watch(options: argparse.Namespace) -> int:
    """The live view of a sweep that runs elsewhere."""
    from sftray.results import load
    from sftray.results.leaderboard_text import table
    from sftray.views.live import watch as watched

    with contextlib.suppress(KeyboardInterrupt):  # the sweep is not ours
        watched(options.dir, plain=options.plain)
    say("\n" + table(load(options.dir).leaderboard, top=20))
    return 0


def report(options: argparse.Namespace) -> int:
    from sftray.views.report.report import write_report

    say(write_report(options.dir))
    return 0


def init(options: argparse.Namespace) -> int:
    """A first sweep file for a dataset and a base."""
    from sftray.cluster.gpus import gpu_memories
    from sftray.config.sweep_file import as_file
    from sftray.plan.proposal import propose

    file: Path = options.file
    if file.exists():
        raise SftrayError(f"{file}: this file exists", "name a new one")
    memories = gpu_memories()
    gpus = len(memories) if options.gpus is None else options.gpus
    if gpus < 0:
        raise SftrayError(f"--gpus: got {gpus}, must be at least 0", "0 is a CPU")
    if file.suffix != ".py":
        got = file.suffix or "no ending"
        raise SftrayError(f"{file}: got {got!r}, must end on .py", f"write {file.stem}.py")
    found = propose(
        file.stem,
        options.data,
        options.model,
        split=options.split,
        chat_template=options.chat_template,
        gpus=gpus,
        gpu_memory=min(memories, default=None),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(as_file(found.sweep, found.says, found.reasons), encoding="utf-8")
    for warning in found.warnings:
        say(wrapped(f"warning: {warning}"))
    say(f"wrote {file}; what it would do: python {file} --plan")
    return 0


def best(options: argparse.Namespace) -> int:
    """The winner, and how to load it."""
    from sftray.winner.bundle import open_bundle

    folder, facts = open_bundle(options.dir)
    loading, how = (_whole if facts.is_whole else _adapter)(folder, facts)
    if options.json:
        say(json.dumps({**to_json(facts), **loading}, indent=1))
        return 0
    point = ", ".join(f"{name}={value}" for name, value in facts.point.items())
    checked = "checked" if facts.verified else "NOT CONFIRMED by reloading"
    say(f"{facts.says}, {checked}\n{point}\n{how}\n\nagain: python {folder / 'repeat.py'}")
    return 0


def _adapter(folder: Path, facts: BundleFacts) -> tuple[dict[str, object], str]:
    """What loads the adapter in a bundle: as values, and for a person."""
    from sftray.winner import adapter_format

    config, tensors = adapter_format.read_adapter(folder)
    wrong = adapter_format.peft_problems(config, tensors)
    refused = adapter_format.vllm_problems(config, tensors)
    trial = facts.config
    command = adapter_format.vllm_command(str(folder), trial.model, trial.lora_r, facts.sweep)
    serve = f"vLLM: yes, by its format\n{command}"
    if refused:
        serve = f"vLLM: no ({'; '.join(refused)}); `sftray merge` makes a model that it serves"
    loading: dict[str, object] = {"peft_problems": wrong, "vllm_problems": refused}
    return {**loading, "vllm_command": command}, (
        f"adapter: {folder}\n\n"
        f"PEFT: {'no (' + '; '.join(wrong) + ')' if wrong else 'yes'}\n"
        f"{facts.loading_code(str(folder))}\n\n"
        f"{serve}"
    )


def _whole(folder: Path, facts: BundleFacts) -> tuple[dict[str, object], str]:
    """The same of a whole model."""
    command = shlex.join(["vllm", "serve", str(folder)])
    code = facts.loading_code(str(folder))
    how = f"model: {folder}\n\ntransformers (no PEFT):\n{code}\n\nvLLM:\n{command}"
    return {"vllm_command": command}, how


def merge(options: argparse.Namespace) -> int:
    """The winner merged into its base."""
    quiet_libraries()
    from sftray.winner.merge import merge as merged

    merged(
        options.dir,
        options.out,
        dtype=options.dtype,
        max_shard_size=options.max_shard_size,
        check=options.check,
        log=say,
        trust_remote_code=options.trust_remote_code,
    )
    return 0


def push(options: argparse.Namespace) -> int:
    """The winner on the Hub."""
    if not options.yes and not sys.stdin.isatty():
        raise SftrayError("push: no terminal to confirm on", "pass --yes")
    if options.merged:
        quiet_libraries()
    from sftray.winner.push import push as pushed

    address = pushed(
        options.dir,
        options.repo,
        private=options.private,
        merged=options.merged,
        with_samples=options.with_samples,
        trust_remote_code=options.trust_remote_code,
        agree=lambda question: options.yes or agreed(question),
        log=say,
    )
    say(address or "nothing was uploaded")
    return 0


def generate(options: argparse.Namespace) -> int:
    """Answers of base and winner to a prompt, or to each of a file as a line of JSON."""
    if (options.prompt is None) == (options.file is None):
        got = "neither" if options.prompt is None else "both"
        raise SftrayError(f"generate: got {got}, must be given a prompt or --file PROMPTS.jsonl")
    if options.metric and options.file is None:
        raise SftrayError("--metric: got no --file, must have answers to score", "add --file")
    quiet_libraries()
    from sftray.winner.generate import Question, answer_all

    single = [Question([{"role": "user", "content": options.prompt}])]
    facts, pairs = answer_all(
        options.dir,
        options.file or single,
        options.max_new_tokens,
        trust_remote_code=options.trust_remote_code,
    )
    if options.file is None:
        say(f"base: {pairs[0].base}\n{facts.kind}: {pairs[0].winner}")
        return 0
    for one in pairs:
        shown = {
            "messages": one.question.turns,
            "reference": one.question.reference,
            "base": one.base,
            facts.kind: one.winner,
            "base_ended": one.base_ended,
            f"{facts.kind}_ended": one.winner_ended,
        }
        say(json.dumps(shown, ensure_ascii=False))
    if options.metric:
        _say_scores(options.metric, pairs, facts.kind)
    return 0


def _say_scores(name: str, pairs: Sequence[AnswerPair], kind: str) -> None:
    """On stderr, so that stdout has nothing but answers."""
    from sftray.metrics import load_metric
    from sftray.winner.measured import measured_text, of_metric

    scored = [one for one in pairs if one.question.reference is not None]
    if not scored:
        raise SftrayError(f"--metric: got no line with an answer, {name} must have one to hold to")
    found = of_metric(
        name,
        load_metric(name),
        [one.base for one in scored],
        [one.winner for one in scored],
        [one.question.reference or "" for one in scored],
    )
    put(measured_text(found, kind), sys.stderr)


def inspect(options: argparse.Namespace) -> int:
    from sftray.results.sweep_folder import read_record
    from sftray.storage import files

    root = options.dir
    if files.exists(SweepPaths(root).sweep):
        root = resolved(root, read_record(SweepPaths(root).sweep)["packs"])
    elif not files.exists(PacksPaths(root).manifest):
        raise SftrayError(
            f"{root}: there is neither sweep.json nor manifest.json",
            "name a sweep's folder (<storage>/<name>) or a pack's (<storage>/packs/<key>)",
        )
    say(inspected(root, rows=options.rows, as_json=options.json), coloured=True)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """What this machine can do; 1 where something is in a sweep's way."""
    from sftray.cli.doctor import as_text, findings

    found = findings(options.storage)
    as_json = [asdict(one) for one in found]
    say(json.dumps(as_json, indent=1) if options.json else as_text(found))
    return int(any(one.level == "problem" for one in found))


def inspected(root: str, *, rows: int, as_json: bool = False) -> str:
    from sftray.data.packs.inspect import inspect_json, inspect_text
    from sftray.data.packs.packs import check_sums, open_packs

    packs = open_packs(root)
    check_sums(packs)
    if as_json:
        return json.dumps(inspect_json(packs), indent=1)
    return inspect_text(packs, rows=rows, color=sys.stdout.isatty())
