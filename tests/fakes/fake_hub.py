"""A Hub on this machine that serves one model, and has too much to do when it is asked to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "org/tiny"


class FakeHub:
    """Serves a folder's files as those of MODEL."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.files = {name: (folder / name).read_bytes() for name in names}
        self.busy = 0
        """So many of the next requests are refused, 429."""
        self.asked: Counter[str] = Counter()
        """What was answered: "GET model.safetensors", or "commit", "tree"."""
        self.lock = threading.Lock()
        self.address = ""


@contextmanager
def fake_hub(folder: Path, names: tuple[str, ...]) -> Iterator[FakeHub]:
    hub = FakeHub(folder, names)

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with hub.lock:
                refused = hub.busy > 0
                hub.busy -= refused
            if refused:
                self._say(429, b"slow down", {"Retry-After": "0"})
                return
            path = self.path.partition("?")[0]
            if path == f"/api/models/{MODEL}/revision/main":
                self._told("commit", {"id": MODEL, "sha": COMMIT, "siblings": []})
            elif path == f"/api/models/{MODEL}/tree/{COMMIT}":
                self._told("tree", [_entry(name, data) for name, data in hub.files.items()])
            elif (name := path.removeprefix(f"/{MODEL}/resolve/{COMMIT}/")) in hub.files:
                data = hub.files[name]
                headers = {"ETag": f'"{_sum(data)}"', "X-Repo-Commit": COMMIT}
                self._count(f"{self.command} {name}")
                self._say(200, data, headers)
            else:
                self._count(f"{self.command} {path}")
                self._say(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

        do_HEAD = do_GET

        def _told(self, what: str, values: object) -> None:
            self._count(what)
            self._say(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

        def _count(self, what: str) -> None:
            with hub.lock:
                hub.asked[what] += 1

        def _say(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": _sum(data)}


def _sum(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
