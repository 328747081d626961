"""`sftray chat`: base and winner, each after its own answers, as plain transformers answers."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch
from fake_bundle import END_OF_TURN, save_bundle
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

from sftray.cli.main import main
from sftray.config import TrialConfig
from sftray.errors import ConfigError
from sftray.trial.generation import Sampling
from sftray.winner.chat import Chat

ASKED = ("Name a river.", "And another?", "Which is longer?")
SYSTEM = "You are brief."
MOST = 10


@pytest.fixture(scope="module")
def bundle(tiny: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("chat") / "best", tiny)


def by_plain_peft(
    bundle: Path, *, of_base: bool, system: str | None, sampling: Sampling
) -> list[str]:
    """The answers by AutoPeftModel and `apply_chat_template`, each after those before."""
    model = AutoPeftModelForCausalLM.from_pretrained(bundle, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    turns = [] if system is None else [{"role": "system", "content": system}]
    drawn = {"do_sample": False}
    if sampling.temperature:
        drawn = {"do_sample": True, "temperature": sampling.temperature}
        drawn |= {"top_p": sampling.top_p, "top_k": 0}
    said = []
    for number, words in enumerate(ASKED):
        turns.append({"role": "user", "content": words})
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        torch.manual_seed(sampling.seed + number)
        ends = {"eos_token_id": END_OF_TURN, "pad_token_id": tokenizer.pad_token_id}
        if of_base:
            with model.disable_adapter():
                output = model.generate(**inputs, **drawn, **ends, max_new_tokens=MOST)
        else:
            output = model.generate(**inputs, **drawn, **ends, max_new_tokens=MOST)
        new = output[0, inputs["input_ids"].shape[1] :]
        said.append(tokenizer.decode(new, skip_special_tokens=True))
        turns.append({"role": "assistant", "content": said[-1]})
    return said


@pytest.mark.parametrize("system", [None, SYSTEM])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, 0.9, seed=3)])
def test_several_turns_are_answered_as_by_plain_peft(
    bundle: Path, system: str | None, sampling: Sampling
) -> None:
    talk = Chat(str(bundle), system=system, sampling=sampling, max_new_tokens=MOST)
    said = [talk.ask(words) for words in ASKED]
    for who, of_base in (("base", True), ("adapter", False)):
        expected = by_plain_peft(bundle, of_base=of_base, system=system, sampling=sampling)
        assert [one[who][0] for one in said] == expected
    assert said[0]["base"] != said[0]["adapter"]
    talk.begin_again()
    assert talk.ask(ASKED[0]) == said[0]


def test_another_seed_draws_another_answer(bundle: Path) -> None:
    drawn = {
        Chat(str(bundle), sampling=Sampling(1.0, seed=seed), max_new_tokens=MOST).ask(ASKED[0])[
            "adapter"
        ]
        for seed in (0, 0, 1)
    }
    assert len(drawn) == 2


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_what_cannot_be_sampled_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}: got "):
        Sampling(**wrong)  # type: ignore[arg-type]


def chatted(arguments: list[str], typed: str, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    with pytest.raises(SystemExit) as ended:
        main(["chat", *arguments])
    return ended.value.code


def test_on_a_terminal_each_line_is_a_turn(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = "\n".join([ASKED[0], "", ASKED[1], "/new", ASKED[0]]) + "\n"
    more = ["--system", SYSTEM, "--max-new-tokens", str(MOST)]
    assert chatted([str(bundle), *more], typed, monkeypatch) == 0
    out = capsys.readouterr().out
    talk = Chat(str(bundle), system=SYSTEM, max_new_tokens=MOST)
    first, second = talk.ask(ASKED[0]), talk.ask(ASKED[1])
    assert "/new begins again, Ctrl-D ends" in out
    for who in ("base", "adapter"):
        assert out.count(f"{who}: {first[who][0].splitlines()[0]}") >= 2  # again after /new
        assert f"{who}: {second[who][0].splitlines()[0]}" in out
    assert f"(cut off after {MOST} tokens)" in out


def test_no_answer_reaches_the_terminal_raw(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = {"base": ("a\x1b]52;c;x\x07", True), "adapter": ("b\x1b[2J", True)}
    monkeypatch.setattr(Chat, "ask", lambda self, words: evil)
    assert chatted([str(bundle)], "Hi.\n", monkeypatch) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"adapter: b\x1b[2J" in out


def test_what_the_template_refuses_is_not_said(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chatted([str(bundle), "--top-p", "0.5"], "Hi.\n", monkeypatch) == 2
    assert "--top-p: got no --temperature" in capsys.readouterr().err
