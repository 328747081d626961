"""A template that does not end, or writes without end, costs its limits, and one conversation."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import psutil
import pytest
from data_templates import CONVERSATIONS, tokenizer_of

from sftray.data.chat import loss_mask
from sftray.data.chat.chat_format import ChatFormat, Rendered, render
from sftray.data.chat.format_probe import choose_format
from sftray.data.chat.loss_mask import Document, Dropped, encode
from sftray.data.chat.template_process import (
    Limits,
    OverLimitsError,
    RefusedError,
    template_process,
)
from sftray.errors import TemplateError

TWO = CONVERSATIONS["two exchanges"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = 1 %}{% endfor %}{% endfor %}"
)
IN_ONE_PIECE = "{{ 'x' * 20000000000 }}"
IN_PIECES = "{% for a in range(99999) %}{{ 'x' * 200000 }}{% endfor %}"
LIMITS = Limits(seconds=0.3, mebibytes=200)


def limits(number: int, ends: int = 99) -> Limits:
    """Those of a process that no other test has."""
    return LIMITS._replace(mebibytes=200 + number, ends=ends)


def written(template: str, limits: Limits) -> Rendered:
    return render(template, [TWO], variables={}, date="2024-02-29", limits=limits)


def format_of(template: str, limits: Limits) -> ChatFormat:
    tokenizer = tokenizer_of(CHATML)
    return choose_format(tokenizer, template=template, date="2024-02-29", samples=[], limits=limits)


@pytest.mark.parametrize("template", [ENDLESS, IN_ONE_PIECE, IN_PIECES])
def test_a_template_without_an_end_is_ended_and_the_next_is_rendered(template: str) -> None:
    with pytest.raises(OverLimitsError, match=r"it takes more than 0\.3 s or 201 MiB"):
        written(template, limits(1))
    assert written("{{ messages|length }}", limits(1)) == (["4"], [[]])


def test_a_template_that_has_been_ended_too_often_is_refused() -> None:
    few = limits(2, ends=2)
    with pytest.raises(OverLimitsError):
        written(IN_ONE_PIECE, few)
    with pytest.raises(TemplateError, match="for each of 2 conversations") as caught:
        written(IN_ONE_PIECE, few)
    assert caught.value.hint == "set data.chat_template to one that terminates"


@pytest.mark.parametrize("endless", [ENDLESS, IN_ONE_PIECE])
def test_a_format_is_not_chosen_of_a_template_without_an_end(endless: str) -> None:
    with pytest.raises(TemplateError, match="does not terminate for a conversation of 4"):
        format_of(CHATML + endless, limits(3))


def test_a_conversation_that_takes_too_long_is_dropped_alone() -> None:
    caught = "{% if 'sure' in m['content'] %}" + ENDLESS + "{% endif %}"
    template = CHATML.replace("{% for m in messages %}", "{% for m in messages %}" + caught)
    chat = format_of(template, limits(4))
    found = encode(chat, [CONVERSATIONS["one exchange"], TWO, CONVERSATIONS["system"]], 512)
    assert found[1] == Dropped(loss_mask.OVER_LIMITS)
    assert isinstance(found[0], Document)
    assert isinstance(found[2], Document)


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{{ nobody.name }}", "{% for %}", "{{ '\\ud800' }}", "{{ [][3]() }}"],
)
def test_what_a_template_raises_is_its_refusal(template: str) -> None:
    with pytest.raises(RefusedError) as caught:
        written(template, limits(5))
    assert not isinstance(caught.value, OverLimitsError)


def test_a_process_that_cannot_start_is_one_error() -> None:
    with pytest.raises(TemplateError, match="the process that renders it ended with 1"):
        written("", Limits(seconds=float("nan")))


def test_the_process_ends_with_the_one_that_asks() -> None:
    code = (
        "import os, psutil\n"
        "from sftray.data.chat.chat_format import render\n"
        "render('', [[]], variables={}, date='2024-02-29')\n"
        "print(*[child.pid for child in psutil.Process().children()], flush=True)\n"
        "os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=600, capture_output=True, text=True
    )
    (pid,) = map(int, done.stdout.split())
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=600)


def test_a_fork_has_a_process_of_its_own() -> None:
    mine = template_process()
    assert template_process() is mine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks
        pid = os.fork()
    if pid == 0:
        os._exit(template_process() is mine)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
