"""Templates are rendered by transformers, in its sandbox, on the day that is given."""

from __future__ import annotations

import subprocess
import sys

import jinja2
import pytest
from data_templates import DEMO

from sftray.data.chat.jinja_rendering import render

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
GIVEN = {"variables": {"eos_token": "</s>"}, "date": "2024-02-29"}


def written(template: str) -> str:
    (text,), _ = render(template, [TURNS], **GIVEN)
    return text


@pytest.mark.parametrize("date", ["2024-02-29", "2025-12-01"])
def test_a_template_prints_the_day_that_is_given(date: str) -> None:
    template = "{{ strftime_now('%Y-%m-%d') }} {{ date_string }}"
    (text,), _ = render(template, [TURNS], variables={}, date=date)
    assert text.startswith(date)
    assert text.endswith(date[:4])


def test_a_template_has_the_tokenizer_s_tokens_and_no_tools() -> None:
    assert written("{{ eos_token }} {{ tools is none }} {{ nobody is defined }}") == (
        "</s> True False"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{% set ns = namespace(_n=0) %}",
        "{{ messages[0].content.__class__.mro() }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_template_that_reaches_out_of_the_sandbox_is_refused(template: str) -> None:
    with pytest.raises(jinja2.TemplateError):
        written(template)


def test_a_template_that_breaks_off_leaves_no_marks_behind() -> None:
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% if m.content == 'no' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    )
    refused = [{"role": "user", "content": "no"}]
    with pytest.raises(jinja2.TemplateError, match="no"):
        render(template, [TURNS, refused], **GIVEN, spans=True)
    assert render(template, [TURNS], **GIVEN, spans=True) == (["HiHo"], [[(0, 2), (2, 4)]])


def test_workers_render_without_torch() -> None:
    code = (
        "import sys; from sftray.data.chat import jinja_rendering\n"
        "from sftray.data.packs import tokenize_pass\n"
        f"template = open({str(DEMO / 'chat_template.jinja')!r}).read()\n"
        "turns = [{'role': 'user', 'content': 'Hi'}]\n"
        "jinja_rendering.render(template, [turns], variables={}, date='2024-02-29', spans=True)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
