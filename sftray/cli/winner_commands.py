"""The `sftray` commands that take a sweep's winner; they import what they need when they run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sftray.cli.terminal import agreed, asked, quiet_libraries, say
from sftray.config.config_json import to_json
from sftray.errors import SftrayError, TemplateError
from sftray.storage.terminal_text import put

if TYPE_CHECKING:
    from sftray.winner.bundle import BundleFacts
    from sftray.winner.generate import AnswerPair


def best(options: argparse.Namespace) -> int:
    """The winner, and how to load it."""
    from sftray.winner.bundle import open_bundle

    folder, facts = open_bundle(options.dir)
    loading, how = (_whole if facts.is_whole else _adapter)(folder, facts)
    if options.json:
        say(json.dumps({**to_json(facts), **loading}, indent=1))
        return 0
    point = ", ".join(f"{name}={value}" for name, value in facts.point.items())
    again = shlex.join(["python", str(folder / "repeat.py")])
    checked = "checked" if facts.verified else "NOT CONFIRMED by reloading"
    say(f"{facts.says}, {checked}\n{point}\n{how}\n\nagain: {again}")
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


def chat(options: argparse.Namespace) -> int:
    """A conversation with base and winner, until there are no more lines."""
    if options.top_p != 1 and not options.temperature:
        raise SftrayError("--top-p: got no --temperature, must have one to sample", "add it")
    quiet_libraries()
    from sftray.trial.generation import Sampling
    from sftray.winner.chat import Chat

    talk = Chat(
        options.dir,
        system=options.system,
        sampling=Sampling(options.temperature, options.top_p, options.seed),
        max_new_tokens=options.max_new_tokens,
        trust_remote_code=options.trust_remote_code,
    )
    say(f"base and {talk.kind} answer, each after its own answers; /new begins again, Ctrl-D ends")
    while (words := asked("you: ")) is not None:
        if words.strip() == "/new":
            talk.begin_again()
        elif words.strip():
            try:
                answers = talk.ask(words)
            except TemplateError as error:
                put(f"error: {error}", sys.stderr)
                continue
            for who, (text, ended) in answers.items():
                cut = "" if ended else f" … (cut off after {options.max_new_tokens} tokens)"
                say(f"{who}: {text}{cut}")
    say("")
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
