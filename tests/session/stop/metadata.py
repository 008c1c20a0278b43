"""A metadata server on this machine that answers as those of AWS, GCP and Azure do, by their documentation.

What it says is set from outside while it runs. Each request is counted; those that the real servers would refuse
(no token, no ``Metadata`` header) are refused.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class MetadataServer:
    """All three clouds at one address; usable as a context manager.

    Attributes:
        action: AWS's spot/instance-action, or None.
        rebalance: AWS's rebalance recommendation, or None.
        preempted, maintenance: GCP's values.
        events: Azure's scheduled events.
        vm: Azure's name of this VM.
        requests: how often each path was asked for.
        refused: requests that lacked what they need.
    """

    def __init__(self) -> None:
        self.action: dict[str, str] | None = None
        self.rebalance: dict[str, str] | None = None
        self.preempted, self.maintenance = "FALSE", "NONE"
        self.events: list[dict[str, Any]] = []
        self.vm = "vm-7"
        self.requests: Counter[str] = Counter()
        self.refused: list[str] = []
        self._tokens: set[str] = set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner._answer(self)

            do_PUT = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> MetadataServer:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead to this server."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": url,
            "GCE_METADATA_HOST": url.removeprefix("http://"),
            "VAULTLAYER_AZURE_METADATA": url,
        }

    def expire_tokens(self) -> None:
        """Let AWS's tokens run out."""
        self._tokens.clear()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        self.requests[path.partition("?")[0]] += 1
        status, text = self.find(request.command, path, request.headers)
        if status in (400, 401, 403):
            self.refused.append(f"{request.command} {path}")
        body = text.encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def find(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        if path.startswith("/latest/"):
            return self._aws(method, path, headers)
        if path.startswith("/computeMetadata/v1/instance/"):
            if headers.get("Metadata-Flavor") != "Google":
                return 403, "Missing Metadata-Flavor:Google header."
            values = {"preempted": self.preempted, "maintenance-event": self.maintenance}
            return 200, values[path.rsplit("/", 1)[1]]
        if path.startswith("/metadata/"):
            if headers.get("Metadata") != "true" or "api-version=" not in path:
                return 400, json.dumps({"error": "Bad request. Required metadata header not specified"})
            if path.startswith("/metadata/instance/compute/name"):
                return 200, self.vm
            return 200, json.dumps({"DocumentIncarnation": len(self.events), "Events": self.events})
        return 404, ""

    def _aws(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        if path == "/latest/api/token":
            if method != "PUT" or "X-aws-ec2-metadata-token-ttl-seconds" not in headers:
                return 400, ""
            token = secrets.token_hex(8)
            self._tokens.add(token)
            return 200, token
        if headers.get("X-aws-ec2-metadata-token") not in self._tokens:
            return 401, ""
        value = {
            "/latest/meta-data/spot/instance-action": self.action,
            "/latest/meta-data/events/recommendations/rebalance": self.rebalance,
        }.get(path)
        return (200, json.dumps(value)) if value is not None else (404, "")
