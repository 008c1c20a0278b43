"""A stand-in for W&B's server: takes what `wandb sync` sends, and keeps each run's lines by their place, as it does."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
_PROJECT = {"id": "p", "name": "mine", "entity": {"id": "e", "name": "me"}}


class WandbServer:
    """The runs that were sent.

    Attributes:
        url: where it listens.
        runs: by id, then by the name of the file, the lines by their number: a later one takes an earlier one's place.
    """

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, dict[str, dict[int, str]]] = {}

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return what a run has logged, in order."""
        return [json.loads(line) for _, line in sorted(self.runs[run].get(HISTORY, {}).items())]

    def take(self, run: str, sent: dict[str, Any]) -> None:
        """Keep lines of a run's files."""
        for name, chunk in sent.items():
            lines = self.runs.setdefault(run, {}).setdefault(name, {})
            lines.update(enumerate(chunk["content"], chunk["offset"]))

    def answer(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a GraphQL query: of those that a sync asks."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        match found and found[1]:
            case "UpsertBucket":
                self.runs.setdefault(values["name"], {})
                bucket = {"id": values["name"], "name": values["name"], "displayName": values["name"]}
                return {"upsertBucket": {"bucket": {**bucket, "project": _PROJECT}, "inserted": True}}
            case "RunResumeStatus":
                return {"model": {**_PROJECT, "bucket": self._status(values["name"])}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in values["files"]]
                return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}, "features": []}}

    def _status(self, run: str) -> dict[str, Any] | None:
        if run not in self.runs:
            return None
        last = {name: [lines[max(lines)]] for name, lines in self.runs[run].items() if lines}
        return {
            "id": run,
            "name": run,
            "displayName": run,
            "summaryMetrics": last.get(SUMMARY, ["{}"])[0],
            "historyLineCount": len(self.runs[run].get(HISTORY, {})),
            "eventsLineCount": len(self.runs[run].get("wandb-events.jsonl", {})),
            "logLineCount": len(self.runs[run].get("output.log", {})),
            "historyTail": json.dumps(last.get(HISTORY, [])),
            "eventsTail": json.dumps(last.get("wandb-events.jsonl", [])),
            "config": "{}",
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serve for a while, on this machine alone."""
    known = WandbServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer: dict[str, Any] = {}
            if self.path.startswith("/files/"):
                known.take(self.path.split("/")[4], json.loads(body).get("files", {}))
            elif self.path == "/graphql":
                asked = json.loads(body)
                answer = {"data": known.answer(asked["query"], asked.get("variables") or {})}
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()
