"""As much of W&B as a run needs: it starts, resumes, keeps history and takes artifacts."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Runs = dict[str, dict[str, Any]]
"""Run id → {"history": rows, "summary", "exit_code", "display_name", "group", "artifacts"};
artifacts by name → {"type", "metadata", "files": their names, "committed"}."""


@contextmanager
def fake_wandb() -> Iterator[tuple[str, Runs]]:
    """The address of a service, and what it was sent."""
    runs: Runs = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer: Any = {}
            if self.path == "/graphql":
                answer = {"data": _graphql(runs, json.loads(body), self.headers["Host"])}
            elif self.path.endswith("/file_stream"):
                _stream(runs[self.path.split("/")[-2]], json.loads(body))
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", runs
    finally:
        server.shutdown()
        server.server_close()


def _graphql(runs: Runs, request: dict[str, Any], host: str) -> dict[str, Any]:
    operation = re.match(r"\s*(?:query|mutation)\s+(\w+)", request["query"])
    given = request.get("variables") or {}
    project = {"id": "p", "name": "sftray", "entity": {"id": "e", "name": "someone"}}
    name = operation[1] if operation else ""
    if name == "Viewer":
        teams = {"edges": [{"node": {"name": "someone"}}]}
        return {"viewer": {"id": "v", "entity": "someone", "username": "someone", "teams": teams}}
    if name in _ARTIFACTS:
        return _ARTIFACTS[name](runs, given.get("input") or given, host)
    if name == "RunResumeStatus":
        run = runs.get(given["name"])
        return {"model": {**project, "bucket": run and _resumable(given["name"], run)}}
    if name == "UpsertBucket":
        run = runs.setdefault(given["name"], {"history": [], "summary": {}})
        for key, variable in (("display_name", "displayName"), ("group", "groupName")):
            run[key] = given.get(variable) or run.get(key)
        bucket = {"id": "x", "name": given["name"], "displayName": "", "project": project}
        bucket["historyLineCount"] = len(run["history"])
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if name == "CreateRunFiles":
        files = [{"name": f, "uploadUrl": f"http://{host}/upload/{f}"} for f in given["files"]]
        return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
    return {}


def _resumable(name: str, run: dict[str, Any]) -> dict[str, Any]:
    rows = run["history"]
    return {
        "id": "x",
        "name": name,
        "displayName": "",
        "historyLineCount": len(rows),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
        "eventsTail": "[]",
        "summaryMetrics": json.dumps(run["summary"]),
        "config": "{}",
        "tags": [],
        "wandbConfig": '{"t": 1}',
    }


def _stream(run: dict[str, Any], sent: dict[str, Any]) -> None:
    files = sent.get("files") or {}
    history = files.get("wandb-history.jsonl", {"offset": len(run["history"]), "content": []})
    del run["history"][history["offset"] :]
    run["history"] += [json.loads(line) for line in history["content"]]
    for line in files.get("wandb-summary.json", {"content": []})["content"]:
        run["summary"] = json.loads(line)
    if sent.get("complete"):
        run["exit_code"] = sent["exitcode"]


def _create_artifact(runs: Runs, given: dict[str, Any], host: str) -> dict[str, Any]:
    artifacts = runs[given["runName"]].setdefault("artifacts", {})
    about = json.loads(given.get("metadata") or "{}")
    made = {"type": given["artifactTypeName"], "metadata": about, "files": [], "committed": False}
    artifacts[given["artifactCollectionName"]] = made
    key = {"id": given["clientID"], "state": "PENDING"}
    _IDS[given["clientID"]] = made
    sequence = {"artifactSequence": {"latestArtifact": None}}
    return {"createArtifact": {"artifact": key | sequence}}


def _artifact_manifest(runs: Runs, given: dict[str, Any], host: str) -> dict[str, Any]:
    file = {"id": "f", "uploadUrl": f"http://{host}/upload/manifest", "uploadHeaders": []}
    return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}


def _artifact_files(runs: Runs, given: dict[str, Any], host: str) -> dict[str, Any]:
    edges = []
    for spec in given["artifactFiles"]:
        _IDS[spec["artifactID"]]["files"].append(spec["name"])
        address = f"http://{host}/upload/{spec['name']}"
        node = {"storagePath": spec["name"], "uploadUrl": address, "uploadHeaders": []}
        node |= {"uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]}}
        edges.append({"node": node})
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def _commit_artifact(runs: Runs, given: dict[str, Any], host: str) -> dict[str, Any]:
    _IDS[given["artifactID"]]["committed"] = True
    return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}


_IDS: dict[str, dict[str, Any]] = {}
"""An artifact by its id, which is the one that the client chose."""
_ARTIFACTS = {
    "ArtifactType": lambda *_: {"project": {"artifact": None}},
    "CreateArtifact": _create_artifact,
    "CreateArtifactManifest": _artifact_manifest,
    "CreateArtifactFiles": _artifact_files,
    "ClientIDMapping": lambda _, given, host: {"clientIDMapping": {"serverID": given["clientID"]}},
    "CommitArtifact": _commit_artifact,
}
