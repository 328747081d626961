"""Tensors between host and device that make neither wait.

Promise: what is written for step n is not overwritten before the device has read it, nor read
before the device has written it. Price: a few pinned copies of each.
"""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Generic, TypeVar

import torch
from torch import Tensor

COPIES = 4
"""Host copies of a tensor on its way: so far may the host run ahead."""


class Upload:
    """A device tensor that is filled from the host, again and again."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        pinned = device.type == "cuda"
        copies = COPIES if pinned else 1
        self._hosts = [torch.zeros(size, dtype=dtype, pin_memory=pinned) for _ in range(copies)]
        self._copied: list[torch.cuda.Event | None] = [None] * copies
        self._turn = 0
        self.device = self._hosts[0].to(device) if pinned else self._hosts[0]
        """What the device sees."""

    def host(self) -> Tensor:
        """A tensor to write into; `send` makes it the device's."""
        copied = self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        return self._hosts[self._turn]

    def send(self) -> None:
        """Copy to the device, behind all that it has been given to do."""
        if self.device is self._hosts[0]:
            return
        self.device.copy_(self._hosts[self._turn], non_blocking=True)
        self._copied[self._turn] = torch.cuda.current_stream().record_event()
        self._turn = (self._turn + 1) % len(self._hosts)


Note = TypeVar("Note")


class Downloads(Generic[Note]):
    """Device tensors on their way to the host, each with a note of what it is."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[torch.cuda.Event | None, Tensor, Note]] = deque()

    def start(self, tensor: Tensor, note: Note) -> None:
        """Begin to copy a tensor."""
        if tensor.device.type == "cpu":
            self._waiting.append((None, tensor.clone(), note))
            return
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        self._waiting.append((torch.cuda.current_stream().record_event(), host, note))

    def arrived(self, *, wait: bool) -> list[tuple[Tensor, Note]]:
        """What has come, oldest first; all of it with `wait`."""
        arrived = []
        while self._waiting:
            event, host, note = self._waiting[0]
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                if not wait:
                    break
                event.synchronize()
            self._waiting.popleft()
            arrived.append((host, note))
        return arrived


class Snapshots:
    """Large tensors that go to the host on a stream of their own, for other threads to write."""

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        """Of float32 tensors of one shape. Room for them is pinned by a thread of its own, while
        nothing is trained yet."""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._free: queue.SimpleQueue[Future[Tensor]] = queue.SimpleQueue()
        if self._stream is not None:
            pinning = ThreadPoolExecutor(1, "sftray-pin")
            wanted = SNAPSHOT_BYTES // (4 * prod(shape))
            for _ in range(max(MIN_SNAPSHOTS, min(MAX_SNAPSHOTS, wanted))):
                self._free.put(pinning.submit(torch.empty, tuple(shape), pin_memory=True))
            pinning.shutdown(wait=False)

    def take(self, tensor: Tensor) -> Snapshot:
        """Begin to copy a tensor that nobody changes any more. Waits, where so many copies are
        under way that there is no more room for one."""
        if self._stream is None:
            return Snapshot(tensor)
        self._stream.wait_stream(torch.cuda.current_stream())
        room = self._free.get(timeout=ROOM_SECONDS)
        host = room.result(timeout=ROOM_SECONDS)  # or why it could not be pinned
        with torch.cuda.stream(self._stream):
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)
            copied = self._stream.record_event()
        return Snapshot(host, copied, lambda: self._free.put(room))


class Snapshot:
    """A tensor on its way to the host."""

    def __init__(
        self,
        host: Tensor,
        copied: torch.cuda.Event | None = None,
        give_back: Callable[[], None] | None = None,
    ) -> None:
        self._host, self._copied, self._give_back = host, copied, give_back

    @contextlib.contextmanager
    def values(self) -> Iterator[Tensor]:
        """The tensor, once it is there; its room is given back afterwards."""
        if self._copied is not None:
            self._copied.synchronize()
        try:
            yield self._host
        finally:
            if self._give_back is not None:
                self._give_back()


MIN_SNAPSHOTS, MAX_SNAPSHOTS = 4, 16
SNAPSHOT_BYTES = 4 << 30
"""Pinned memory for snapshots, between the smallest and the largest number of them."""
ROOM_SECONDS = 600.0
"""How long storage may keep all snapshots."""
