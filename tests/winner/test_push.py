"""Uploading: listed and agreed to before, no text of the dataset, no paths, errors with the fix."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_bundle import save_bundle
from huggingface_hub import HfApi
from safetensors.torch import load_file

from sftray.cli.main import main
from sftray.config import TrialConfig
from sftray.errors import SftrayError
from sftray.winner.push import push

ADAPTER = {
    "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
    "repeat.py", "sweep.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


class FakeHub:
    """As much of HfApi as is used; keeps what was uploaded."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    def whoami(self) -> dict[str, str]:
        return {"name": "somebody"}

    def create_repo(self, repo: str, **options: Any) -> None:
        self.made.append({"repo": repo, **options})

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        self.files = {p.name: p.read_bytes() for p in folder_path.rglob("*") if p.is_file()}
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}")


@pytest.fixture
def sweep(tiny: TrialConfig, tmp_path: Path) -> Path:
    """A sweep's folder with a bundle and samples."""
    save_bundle(tmp_path / "best", tiny)
    samples = tmp_path / "trials" / "t0001"
    samples.mkdir(parents=True)
    (samples / "samples.jsonl").write_text('{"prompt": "SECRET"}\n')
    (tmp_path / "base_samples.jsonl").write_text('{"prompt": "SECRET"}\n')
    return tmp_path


def test_nothing_is_uploaded_before_it_was_listed_and_agreed_to(sweep: Path) -> None:
    hub, lines, asked = FakeHub(), [], []

    def agree(question: str) -> bool:
        asked.append((question, len(lines)))
        return False

    assert push(str(sweep), "me/it", agree=agree, log=lines.append, api=hub) is None
    assert (hub.made, hub.files) == ([], {})
    assert asked == [("upload to me/it?", len(lines))]
    assert lines[0].startswith("to me/it as somebody (PUBLIC if it is made now")
    assert {line.split()[-1] for line in lines[1 : len(ADAPTER) + 1]} == ADAPTER
    assert "others cannot load it" in lines[-1]  # its base is a local folder


def test_the_adapter_is_uploaded_without_the_datasets_text_and_this_machines_paths(
    sweep: Path, tiny: TrialConfig
) -> None:
    hub = FakeHub()
    address = push(
        str(sweep), "me/it", private=True, agree=lambda _: True, log=lambda _: None, api=hub
    )
    assert address == "https://hub/me/it"
    assert hub.made == [{"repo": "me/it", "private": True, "exist_ok": True}]
    assert hub.files.keys() == ADAPTER
    told = {name: hub.files[name].decode() for name in ("README.md", "repeat.py", "sweep.json")}
    for text in told.values():
        assert "SECRET" not in text
        assert "/home/somebody" not in text
        assert "demo/chats.jsonl" not in text
        assert "chats.jsonl" in text
    assert json.loads(told["sweep.json"])["packs"] == "0123"
    best = sweep / "best"
    assert (
        hub.files["adapter_model.safetensors"] == (best / "adapter_model.safetensors").read_bytes()
    )
    assert "demo/chats.jsonl" in (best / "repeat.py").read_text()  # here it goes on to work


def test_samples_are_uploaded_only_when_asked_for(sweep: Path) -> None:
    hub = FakeHub()
    options: dict[str, Any] = {"agree": lambda _: True, "log": lambda _: None, "api": hub}
    push(str(sweep), "me/it", with_samples=True, **options)
    assert hub.files.keys() == ADAPTER | {"samples.jsonl", "base_samples.jsonl"}
    with pytest.raises(SftrayError, match="--with-samples is for a sweep's folder"):
        push(str(sweep / "best"), "me/it", with_samples=True, **options)


def test_the_merged_model_is_uploaded_instead(sweep: Path, tmp_path: Path) -> None:
    hub = FakeHub()
    push(str(sweep), "me/it", merged=True, agree=lambda _: True, log=lambda _: None, api=hub)
    assert "adapter_model.safetensors" not in hub.files
    (tmp_path / "got.safetensors").write_bytes(hub.files["model.safetensors"])
    assert not any("lora" in name for name in load_file(tmp_path / "got.safetensors"))
    assert b", merged\n" in hub.files["README.md"]


@pytest.fixture
def hub_that_refuses() -> Iterator[str]:
    """A server that knows the token and lets it write nowhere."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, status: int, values: dict[str, Any]) -> None:
            body = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            known = self.path == "/api/whoami-v2"
            self._answer(200 if known else 404, {"name": "somebody", "type": "user"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(403, {"error": "no"})

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_no_permission_no_network_and_no_token_are_told_with_the_fix(
    sweep: Path, hub_that_refuses: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(api: HfApi, repo: str = "me/it") -> str:
        with pytest.raises(SftrayError) as raised:
            push(str(sweep), repo, agree=lambda _: True, log=lambda _: None, api=api)
        assert "hf_secret" not in str(raised.value)
        return str(raised.value)

    refusing = HfApi(endpoint=hub_that_refuses, token="hf_secret")
    assert error(refusing) == (
        "me/it: the token may not write there (403); take one that may, or a name of yours"
    )
    assert "must be user/name" in error(refusing, "no//name")
    nowhere = HfApi(endpoint="http://127.0.0.1:9", token="hf_secret")
    assert error(nowhere).startswith("me/it: the Hub is out of reach (")
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    assert "`hf auth login`" in error(HfApi())


def test_without_a_terminal_one_has_to_say_yes(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["push", str(sweep), "--repo", "me/it"])
    assert "hint: pass --yes" in capsys.readouterr().err
