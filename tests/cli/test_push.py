"""`vl push`, against a server that answers as the Hub does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.vault.vaults import train
from vaultlayer_hf.cli import app


class Hub:
    """What a server has been asked, and what it holds.

    Attributes:
        files: content by path, as commits have brought it.
        summaries: of the commits.
        failing: how many of the next commits are answered with 503.
        refusing: everything is answered with 403.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.summaries: list[str] = []
        self.made: list[dict[str, Any]] = []
        self.failing = 0
        self.refusing = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if hub.refusing:
                    return self._answer(403, {"error": "no"})
                if self.path == "/api/repos/create":
                    hub.made.append(json.loads(body))
                    return self._answer(200, {"url": f"{hub.url}/me/model", "id": "1"})
                if "/preupload/" in self.path:
                    asked = json.loads(body)["files"]
                    regular = {"uploadMode": "regular", "shouldIgnore": False}
                    return self._answer(200, {"files": [{"path": item["path"], **regular} for item in asked]})
                if "/commit/" in self.path:
                    if hub.failing:
                        hub.failing -= 1
                        return self._answer(503, {"error": "later"})
                    for line in map(json.loads, body.splitlines()):
                        if line["key"] == "header":
                            hub.summaries.append(line["value"]["summary"])
                        else:
                            hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    return self._answer(
                        200, {"commitUrl": f"{hub.url}/me/model/commit/abc", "commitOid": "abc"}
                    )
                return self._answer(404, {"error": self.path})

            def do_GET(self) -> None:
                self._answer(403 if hub.refusing else 200, {"id": "me/model", "siblings": []})

            def _answer(self, status: int, what: dict[str, Any]) -> None:
                data = json.dumps(what).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub's client ask a server, which tests forbid it otherwise."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def push(hub: Hub, *arguments: str) -> Any:
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test"}
    return CliRunner().invoke(app, ["push", *arguments], env=variables)


def test_the_model_goes_to_the_hub(tmp_path: Path, hub: Hub) -> None:
    """What from_pretrained reads is sent in one commit, in spite of trouble that passes; the state isn't."""
    train(str(tmp_path / "vault"), tmp_path / "out", 2, 4, best=2, keep_last=None)
    hub.failing = 1
    done = push(hub, f"{tmp_path}/vault@best", "me/model", "--private", "--json")
    assert done.exit_code == 0, done.stderr
    assert (json.loads(done.stdout)["step"], json.loads(done.stdout)["url"]) == (
        2,
        f"{hub.url}/me/model/commit/abc",
    )
    assert set(hub.files) == {"model.safetensors", "tokenizer/vocab.bin"}
    assert hub.files["model.safetensors"] == (tmp_path / "out/checkpoint-2/model.safetensors").read_bytes()
    assert hub.summaries == ["Step 2 of a training"]
    assert "private" in json.dumps(hub.made[0])


def test_all_of_it_goes_where_it_is_asked_for(tmp_path: Path, hub: Hub) -> None:
    """--whole sends the training's state, too: another machine can go on from there."""
    train(str(tmp_path / "vault"), tmp_path / "out", 2)
    assert push(hub, f"{tmp_path}/vault", "me/model", "--whole").exit_code == 0
    assert {"optimizer.pt", "trainer_state.json", "model.safetensors"} <= set(hub.files)


def test_a_dry_run_lists_what_would_be_sent(tmp_path: Path, hub: Hub) -> None:
    """The very files that are sent without it, with their sizes; the Hub isn't asked for anything."""
    train(str(tmp_path / "vault"), tmp_path / "out", 2)
    hub.refusing = True
    done = push(hub, f"{tmp_path}/vault", "me/model", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    assert files["model.safetensors"] == (tmp_path / "out/checkpoint-2/model.safetensors").stat().st_size
    said = push(hub, f"{tmp_path}/vault", "me/model", "--dry-run", "--whole").stdout
    assert "optimizer.pt" in said
    assert "would be sent to me/model." in said
    hub.refusing = False
    assert (hub.made, hub.files) == ([], {})
    assert push(hub, f"{tmp_path}/vault", "me/model").exit_code == 0
    assert set(hub.files) == set(files)


def test_what_the_hub_refuses_is_said(tmp_path: Path, hub: Hub) -> None:
    """No right to write there, and a name that is none: one sentence each, and nothing is tried again."""
    train(str(tmp_path / "vault"), tmp_path / "out", 2)
    hub.refusing = True
    done = push(hub, f"{tmp_path}/vault", "me/model")
    assert done.exit_code == 3, done.stderr
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    assert push(hub, f"{tmp_path}/vault", "model").exit_code == 2
