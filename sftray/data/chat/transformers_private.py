"""What sftray uses of transformers that it does not promise to keep; no other file imports it.

Promise: each function gives one piece, and says why and what to do when it moves;
`tests/house/test_private.py` calls them all, so an upgrade that takes a piece away fails there by
its name. Price: the import of transformers' template code, 0.9 s a process, without torch.
"""

from __future__ import annotations

import operator
from typing import Any


def compiled_template() -> Any:
    """_compile_jinja_template, the sandboxed template that `render_jinja_template` renders: its
    environment's `strftime_now` reads the clock, and `render_jinja_template` takes no callable from
    outside. When it moves: look for where transformers sets `strftime_now`; test_chat_format.py
    finds a template that prints another day than the given."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template


def activate_tracker() -> Any:
    """activate_tracker, which `_compile_jinja_template` gives a template's environment: it notes
    the characters of {% generation %} blocks. `render_jinja_template` counts them from the start,
    and joins all pieces so far at each. When it moves: look for what writes generation indices;
    test_chat_format.py finds masks that differ."""
    activate = operator.attrgetter("environment.activate_tracker")
    activate(compiled_template()(""))
    return activate
