"""Chat templates are untrusted code: a process of their own renders them, which can be ended.

Promise: a template that loops for ever, or writes 20 GB, costs its Limits and no more. The process
ends itself, by the kernel's timer of the CPU time it takes and by its limit on memory: it needs no
watcher, outlives nobody by more than that, and a busy machine ends nothing. Price: 1 s to start
(the import of transformers' template code, which the asking process then does without), and 20 µs
a conversation to hand it over.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from sftray.errors import TemplateError

Running = tuple[subprocess.Popen[bytes], io.BufferedRWPair]
OVER = 9
"""Status of a process that has met its limit on memory."""

Span = tuple[int, int]
Rendered = tuple[list[str], list[list[Span]]]
"""Texts, and of each the characters in {% generation %} blocks."""
TemplateTurns = Sequence[Mapping[str, object]]
"""A conversation as a template takes it: each turn's content is text, or a list of parts."""


class Limits(NamedTuple):
    """What a template may take."""

    seconds: float = 20.0
    """Of CPU time, for one request. 512 usual conversations take 0.02 s."""
    mebibytes: int = 1024
    """Of memory, beside what its process has when it begins."""
    ends: int = 3
    """A template that has gone beyond them so often in one process is refused altogether."""


LIMITS = Limits()


class Request(TypedDict):
    """What to render."""

    template: str
    conversations: Sequence[TemplateTurns]
    stops: Sequence[Sequence[int]]
    """Of each conversation: after how many turns its texts end."""
    date: str
    """Today, to the template (YYYY-MM-DD)."""
    variables: Mapping[str, object]
    """What the template may print."""


class RefusedError(Exception):
    """The template does not write a conversation; the message says why."""


class OverLimitsError(RefusedError):
    """It took more than its Limits."""


class TemplateProcess:
    """The process: started when it is asked first, and again when it has ended."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._ends = limits, 0
        self._idle: Running | None = None
        self._lock = threading.Lock()
        atexit.register(self._close)

    def render(self, request: Request) -> Rendered:
        """What the template writes, in the order of conversations and stops. Raises RefusedError,
        OverLimitsError, and TemplateError after too many of these."""
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            answer = json.loads(self._ask(line))
        if "refused" in answer:
            raise RefusedError(answer["refused"])
        return answer["texts"], [[(a, b) for a, b in spans] for spans in answer["spans"]]

    def _ask(self, line: bytes) -> bytes:
        process, stream = self._idle or _start(self._limits)
        self._idle, answer = None, b""  # one that is interrupted is not asked again
        with contextlib.suppress(ConnectionError):
            stream.write(line)
            stream.flush()
            answer = stream.readline()
        if not answer.endswith(b"\n"):
            with contextlib.suppress(ConnectionError):
                stream.close()
            self._count_end(process.wait())
        self._idle = process, stream
        return answer

    def _count_end(self, status: int) -> None:
        """Raise what it means that the process has ended."""
        if status not in (OVER, -signal.SIGPROF, -signal.SIGKILL, -signal.SIGABRT):
            raise TemplateError(f"chat template: the process that renders it ended with {status}")
        self._ends += 1
        seconds, mebibytes, ends = self._limits
        if self._ends < ends:
            raise OverLimitsError(f"it takes more than {seconds:g} s or {mebibytes:,} MiB")
        raise TemplateError(
            f"the chat template took more than {seconds:g} s or {mebibytes:,} MiB for each of "
            f"{ends} conversations",
            "set data.chat_template to one that comes to an end",
        )

    def _close(self) -> None:
        if self._idle is not None:
            process, stream = self._idle
            with contextlib.suppress(ConnectionError):
                stream.close()
            process.wait()


@functools.cache
def process_of(owner: int, limits: Limits) -> TemplateProcess:
    """The one that works for the process `owner`; a fork of it has another."""
    return TemplateProcess(limits)


def _start(limits: Limits) -> Running:
    code = (
        "from sftray.data.chat.rendering import serve; "
        f"serve(seconds={limits.seconds}, mebibytes={limits.mebibytes})"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        return process, ours.makefile("rwb")
