"""What the process that renders chat templates does: transformers compiles them, in its sandbox.

Promise: a text is what `tokenizer.apply_chat_template` writes, but on the day that is given, and
takes time that grows with it and not with its square. Price: 35 µs a conversation.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pickle
import resource
import signal
import socket
import sys
from itertools import chain

import jinja2
import psutil

from sftray.data.chat.template_process import OVER, Answer, Request, TemplateTurns
from sftray.data.chat.transformers_private import activate_tracker, compiled_template

_TIMES, _MORE = 64, 2**20
"""Characters that a text may have for each of its request's, and so many more."""
_REFUSALS = (
    *(jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError),
    *(AttributeError, RecursionError, SyntaxError),
)
"""What a template, and Python compiled from it, raises where it cannot write a conversation."""
_activate = activate_tracker()  # imported before the limits hold


def serve(*, seconds: float, mebibytes: int) -> None:
    """Answer requests, a line each, until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that asks
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    size = psutil.Process().memory_info().vms + mebibytes * 2**20
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    stream = socket.socket(fileno=sys.stdin.fileno()).makefile("rwb")
    while size := stream.read(8):
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            asked = stream.read(int.from_bytes(size))
            answer, texts = _answer(pickle.loads(asked), _MORE + _TIMES * len(asked))
        except MemoryError:
            os._exit(OVER)
        signal.setitimer(signal.ITIMER_PROF, 0)
        stream.write(b"".join([json.dumps(answer).encode(), b"\n", *texts]))
        stream.flush()


def _answer(request: Request, most: int) -> tuple[Answer, list[bytes]]:
    texts: list[bytes] = []
    answer: Answer = {"refusal": "", "sizes": [], "spans": []}
    try:
        template = compiled_template()(request["template"])
        today = datetime.datetime.strptime(request["date"], "%Y-%m-%d")
        template.environment.globals["strftime_now"] = today.strftime
        variables: dict[str, object] = {
            **request["variables"],
            "date_string": today.strftime("%d %b %Y"),
        }
        held = zip(request["conversations"], request["tools"], request["cuts"], strict=True)
        for turns, tools, cuts in held:
            variables["tools"] = tools or None
            for stop, prompt in cuts:
                variables["add_generation_prompt"] = prompt
                text, spans = _write(template, turns[:stop], variables, most)
                texts.append(text.encode())
                answer["spans"].append(spans)
        answer["sizes"] = [len(text) for text in texts]
        return answer, texts
    except _REFUSALS as error:
        return {"refusal": str(error) or type(error).__name__, "sizes": [], "spans": []}, []


def _write(
    template: jinja2.Template, turns: TemplateTurns, variables: dict[str, object], most: int
) -> tuple[str, list[list[int]]]:
    """A text, and the spans of its {% generation %} blocks.

    The tracker measures the blocks so far when a {% generation %} block begins; it sees none here,
    so that it does not join them all each time.
    """
    blocks: list[str] = []
    spans: list[list[int]] = []
    marks: list[tuple[int, int]] = []
    length = 0
    written = template.generate(messages=turns, documents=None, **variables)
    with _activate(template)([], marks):
        for block in chain(written, [""]):
            spans += [[length + start, length + stop] for start, stop in marks]
            marks.clear()
            blocks.append(block)
            length += len(block)
            if length > most:
                raise MemoryError
    return "".join(blocks), spans
