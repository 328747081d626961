"""A server that goes away: what lies between it and who asks, and can be cut."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Line:
    """Passes bytes on to a server, as long as it is not cut."""

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = False
        """Nothing passes."""
        self.answers_to_lose = 0
        """So many requests come to the server, and their answers do not come back."""
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_off(self) -> None:
        """Cut, connections that are open too."""
        self.cut = True
        for one in list(self._open):
            _close(one)

    def restore(self) -> None:
        self.cut = False

    def lose_answers(self, number: int) -> None:
        """Of requests that come from now on, by connections of their own."""
        self.answers_to_lose = number
        for one in list(self._open):
            _close(one)

    def close(self) -> None:
        self.cut_off()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.cut:
                _close(client)
                continue
            server = socket.create_connection(self.server)
            self._open |= {client, server}
            for ends in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if answers and self.answers_to_lose:
                    self.answers_to_lose -= 1
                    break
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            self._open.discard(one)
            _close(one)


@contextmanager
def line_to_s3() -> Iterator[Line]:
    """Between the S3 that the environment names and whoever asks for it from now on."""
    from sftray.storage import files

    address = os.environ["AWS_ENDPOINT_URL"]
    host, _, port = address.removeprefix("http://").partition(":")
    line = Line(host, int(port))
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{line.port}"
    files._bucket.cache_clear()  # it keeps the address
    try:
        yield line
    finally:
        os.environ["AWS_ENDPOINT_URL"] = address
        files._bucket.cache_clear()
        line.close()


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
