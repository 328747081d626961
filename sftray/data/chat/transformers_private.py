"""What sftray uses of transformers that it does not promise to keep; no other file imports it.

Promise: each function gives one piece, and says why and what to do when it moves;
`tests/house/test_private.py` calls them all, so an upgrade that takes a piece away fails there by
its name. Price: the import of transformers' template code, 0.9 s a process, without torch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def compiled_template() -> Any:
    """_compile_jinja_template, the sandboxed template that `render_jinja_template` renders: its
    environment's `strftime_now` reads the clock, and `render_jinja_template` takes no callable from
    outside. When it moves: look for where transformers sets `strftime_now`; test_chat_format.py
    finds a template that prints another day than the given."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template


def tracking(template: Any, marks: list[tuple[int, int]]) -> AbstractContextManager[None]:
    """activate_tracker, which `_compile_jinja_template` gives a template's environment, for the
    characters of {% generation %} blocks, counted from the last piece that `generate` gave:
    `render_jinja_template` counts from the start, and joins all pieces for each block. When it
    moves: look for what writes generation indices; test_chat_format.py finds masks that differ."""
    context: AbstractContextManager[None] = template.environment.activate_tracker([], marks)
    return context
