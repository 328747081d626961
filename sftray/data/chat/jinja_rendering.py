"""Chat templates, rendered by transformers in its sandbox: templates are untrusted code.

Promise: what `tokenizer.apply_chat_template` writes, but on the day that is given. Price: 35 µs a
conversation, and 0.9 s a process to import it (transformers' template code, no torch).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from sftray.data.chat.transformers_private import compiled_template

Span = tuple[int, int]
Turns = Sequence[Mapping[str, Any]]
Rendered = tuple[list[str], list[list[Span]]]
"""Each conversation as text, and the characters in its {% generation %} blocks."""


def render(
    template: str,
    conversations: Sequence[Turns],
    *,
    variables: Mapping[str, str],
    date: str,
    prompt: bool = False,
    spans: bool = False,
) -> Rendered:
    """Each conversation as text, and the (start, stop) characters of {% generation %} if `spans`.

    `prompt` adds the generation prompt; `date` (YYYY-MM-DD) is today to the template. Raises
    jinja2's TemplateError.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    today = datetime.datetime.strptime(date, "%Y-%m-%d")
    compiled_template()(template).environment.globals["strftime_now"] = today.strftime
    texts, marked = render_jinja_template(
        conversations,
        chat_template=template,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=spans,
        date_string=today.strftime("%d %b %Y"),
        **variables,
    )
    return texts, marked
