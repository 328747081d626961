"""Templates are rendered as transformers renders them, without importing it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import jinja2
import pytest
from data_templates import CONVERSATIONS, DEMO, bundled, format_of, template_text

from sftray.data.chat.chat_format import has_markers, trl_templates
from sftray.data.chat.jinja_rendering import render, render_by_transformers, renders_alike
from sftray.data.chat.loss_mask import encode

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
TRICKY = [
    [
        {"role": "user", "content": "  <b> & \"quoted\" 'words' \\n {{ braces }}\n"},
        {"role": "assistant", "content": "<think>\nLet me see.\n</think>\n\nFour. 你好 🙂\n"},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": " Five "},
    ],
    [{"role": "user", "content": "Nobody answers."}],
]
ALL = [*CONVERSATIONS.values(), *TRICKY]


@pytest.mark.parametrize("name", sorted(path.stem for path in trl_templates().glob("*.jinja")))
def test_every_template_that_trl_bundles_is_rendered_as_by_transformers(name: str) -> None:
    template = template_text(name)
    assert renders_alike(
        template, ALL, variables=VARIABLES, date="2024-02-29", spans=has_markers(template)
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | tojson }}{{ {'b': [1, none], 'a': '<ü>'} | tojson(indent=2) }}",
        "{{ strftime_now('%d %B %Y') }} {{ date_string }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}",
        "{% set ns = namespace(_n=0) %}",
        "{{ raise_exception('no') }}",
        "{{ dict(a=1) }}{{ dict.fromkeys('ab') }}{{ dict.mro }}",
        "{{ messages.append(1) }}",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}"
        "{% endfor %}",
        "{% macro say(m) %}{% generation %}{{ m.content }}{% endgeneration %}{% endmacro %}"
        "{% for m in messages %}{{ m.role }} {{ say(m) }}\n{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% generation %}{{ m.role }}"
        "{% endgeneration %}{% endgeneration %}{% endfor %}",
        "{{ tools is none }}{{ documents is none }}{{ eos_token }}{{ nobody is defined }}",
        "{{ messages[0].content.format(1) }}{{ ''.__class__ }}",
    ],
)
def test_what_templates_may_use_is_what_transformers_gives_them(template: str) -> None:
    assert renders_alike(
        template, ALL, variables=VARIABLES, date="2024-02-29", spans=has_markers(template)
    )


def test_a_template_that_breaks_off_leaves_no_marks_behind() -> None:
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% if m.content == 'Four.' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    )
    given = {"variables": VARIABLES, "date": "2024-02-29", "spans": True}
    with pytest.raises(jinja2.TemplateError, match="no"):
        render(template, ALL, **given)
    assert render(template, TRICKY, **given) == render_by_transformers(template, TRICKY, **given)


@pytest.mark.parametrize("name", bundled())
def test_masks_do_not_depend_on_who_renders(name: str) -> None:
    chat = format_of(template_text(name))
    assert chat.alone
    ours, theirs = (
        encode(replace(chat, alone=alone), list(CONVERSATIONS.values()), 4096)
        for alone in (True, False)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert repr(a) == repr(b)


def test_workers_render_without_transformers() -> None:
    code = (
        "import sys; from sftray.data import tokenise, rendering\n"
        f"template = open({str(DEMO / 'chat_template.jinja')!r}).read()\n"
        "turns = [{'role': 'user', 'content': 'Hi'}]\n"
        "rendering.render(template, [turns], variables={}, date='2024-02-29', spans=True)\n"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
