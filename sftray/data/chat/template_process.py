"""Chat templates are untrusted code: a process of their own renders them, which can be ended.

Promise: a template that loops for ever, or writes 20 GB, costs its Limits and no more. The process
ends itself, by the kernel's timer of the CPU time it takes and by its limit on memory: it needs no
watcher, outlives nobody by more than that, and a busy machine ends nothing. Price: 1 s to start
(the import of transformers' template code, which the asking process then does without), and 8 µs
a conversation to hand it over.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import itertools
import json
import os
import pickle
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
Cut = tuple[int, bool]
"""After how many turns a text ends, and whether the generation prompt follows."""


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
    tools: Sequence[Sequence[Mapping[str, object]]]
    """Of each conversation."""
    cuts: Sequence[Sequence[Cut]]
    """Of each conversation: its texts."""
    date: str
    """Today, to the template (YYYY-MM-DD)."""
    variables: Mapping[str, object]
    """What the template may print."""


class Answer(TypedDict):
    """A line, before the texts."""

    refusal: str
    """Empty where there is none."""
    sizes: list[int]
    """Bytes of each text."""
    spans: list[list[list[int]]]


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

    def start(self) -> None:
        """Start it, where it has not, without waiting."""
        with self._lock:
            self._idle = self._idle or _start(self._limits)

    def render(self, request: Request) -> Rendered:
        """What the template writes, in the order of conversations and cuts. Raises RefusedError,
        OverLimitsError, and TemplateError after too many of these."""
        asked = pickle.dumps(request)
        with self._lock:
            answer, written = self._ask(len(asked).to_bytes(8) + asked)
        if answer["refusal"]:
            raise RefusedError(answer["refusal"])
        edges = [0, *itertools.accumulate(answer["sizes"])]
        texts = [written[start:stop].decode() for start, stop in itertools.pairwise(edges)]
        return texts, [[(a, b) for a, b in spans] for spans in answer["spans"]]

    def _ask(self, asked: bytes) -> tuple[Answer, bytes]:
        process, stream = self._idle or _start(self._limits)
        self._idle = None  # one that is interrupted is not asked again
        with contextlib.suppress(ConnectionError):
            stream.write(asked)
            stream.flush()
            if line := stream.readline():
                answer: Answer = json.loads(line)
                written = stream.read(sum(answer["sizes"]))
                self._idle = process, stream
                return answer, written
        with contextlib.suppress(ConnectionError):
            stream.close()
        raise self._end(process.wait())

    def _end(self, status: int) -> Exception:
        """What it means that the process has ended."""
        if status not in (OVER, -signal.SIGPROF, -signal.SIGKILL, -signal.SIGABRT):
            return TemplateError(f"chat template: the process that renders it ended with {status}")
        self._ends += 1
        seconds, mebibytes, ends = self._limits
        if self._ends < ends:
            return OverLimitsError(f"it takes more than {seconds:g} s or {mebibytes:,} MiB")
        return TemplateError(
            f"the chat template took more than {seconds:g} s or {mebibytes:,} MiB for each of "
            f"{ends} conversations",
            "set data.chat_template to one that terminates",
        )

    def _close(self) -> None:
        if self._idle is not None:
            process, stream = self._idle
            with contextlib.suppress(ConnectionError):
                stream.close()
            process.wait()


def template_process(limits: Limits = LIMITS) -> TemplateProcess:
    """The one that works for this process, and not for what it was forked from."""
    return _process_of(os.getpid(), limits)


@functools.cache
def _process_of(owner: int, limits: Limits) -> TemplateProcess:
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
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        return process, ours.makefile("rwb")
