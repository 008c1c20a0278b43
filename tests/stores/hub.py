"""A double of the Hugging Face Hub: a model repository behind the calls that huggingface_hub makes for a vault.

Its rules are those of the Hub's documentation and of answers that people have posted: 412 where main isn't the parent
that a commit names, 404 with an error code where a file is absent, a limit of commits, files above a size or of some
names by LFS, and reading them by a redirect to another server, which wants no token. No test here has reached the Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PART = 16 * 2**20
"""Bytes of a part of a large file; a smaller one goes up in one request."""
_REGULAR = 10 * 2**20  # bytes of the largest file that git itself keeps


@dataclass(frozen=True)
class Blob:
    """A file of the repository: its content, or the SHA-256 of what LFS keeps."""

    data: bytes
    oid: str
    lfs: bool
    commit: str
    date: str


@dataclass
class Repository:
    """One repository.

    Attributes:
        name: ``namespace/name``.
        history: its files by path, by the commit.
        titles: of the commits, in their order.
        main: the newest commit.
        objects: what LFS keeps, by SHA-256.
        ignored: names that its .gitignore leaves out.
    """

    name: str
    history: dict[str, dict[str, Blob]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    main: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    ignored: str = "$^"


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "", text: str = "") -> None:
        super().__init__(code or text)
        self.status, self.code, self.text = status, code, text


class HubServer:
    """The Hub, with one repository.

    Attributes:
        url: for HF_ENDPOINT.
        token: that may do all; ``reader``: one that may only read.
        private: whether it is seen with a token alone.
        commits_left: as many commits are taken, then 429.
        lose: of the next so many commits the answer is lost.
        before_commit: called ahead of a commit; for a race.
        requests: method and path of each request so far.
    """

    token, reader = "hf_writerOfTheTests0123456789", "hf_readerOfTheTests0123456789"

    def __init__(self, name: str = "me/vault") -> None:
        self.repository = Repository(name)
        self.private, self.full = True, False
        self.commits_left, self.lose = 10**9, 0
        self.before_commit: Any = lambda: None
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._parts: dict[tuple[str, int], bytes] = {}
        self._hub = _serve(self._answer)
        self._cdn = _serve(self._served)
        self.url = f"http://127.0.0.1:{self._hub.server_port}"
        self.commit([(".gitattributes", b"*.lfs filter=lfs diff=lfs merge=lfs -text\n")], "initial commit")

    def close(self) -> None:
        """End it."""
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def commit(self, added: list[tuple[str, bytes]], title: str, parent: str | None = None) -> str:
        """Have somebody else commit files; return the commit."""
        lines = [
            {"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode()}}
            for path, data in added
        ]
        return self._commit({"summary": title, "parentCommit": parent}, lines)

    def files(self) -> dict[str, Blob]:
        """What main holds, by path."""
        return self.repository.history[self.repository.main]

    # what is answered

    def _answer(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        place, _, query = target.partition("?")
        self.requests.append((method, place))
        path = [urllib.parse.unquote(part) for part in place.lstrip("/").split("/")]
        if path[0] == "upload":  # addresses that the Hub has given out: their signature is enough
            return self._uploaded(path[1:], body)
        self._check(method, headers, path)
        name = "/".join(path[2:4] if path[0] == "api" else path[:2]).removesuffix(".git")
        if name != self.repository.name:
            raise Refusal(404, "RepoNotFound")
        if path[0] != "api":
            if path[2:] == ["info", "lfs", "objects", "batch"]:
                return _json({"objects": [self._batch(item) for item in json.loads(body)["objects"]]})
            return self._resolve(path[3], "/".join(path[4:]), headers)
        asked, revision = path[4], (path[5] if len(path) > 5 else "main")
        if asked == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": self.repository.main}
            return _json({"branches": [main], "converts": [], "tags": []})
        files = self._at(revision)
        if asked == "preupload":
            return _json({"files": [self._mode(item, files) for item in json.loads(body)["files"]]})
        if asked == "paths-info":
            said = self._form(headers, body)
            found = [path for path in said["paths"] if path in files]
            return _json([_info(path, files[path], said["expand"]) for path in found])
        if asked == "tree":
            return self._tree(files, "/".join(path[6:]), query, place)
        if asked == "commit":
            return self._asked_to_commit(body)
        if asked == "revision":
            return _json({"id": name, "sha": self.repository.main, "private": self.private, "siblings": []})
        raise Refusal(404)

    def _check(self, method: str, headers: Any, path: list[str]) -> None:
        token = (headers.get("authorization") or "").removeprefix("Bearer ")
        if not token:
            if self.private:
                raise Refusal(401, "RepoNotFound")
        elif token not in (self.token, self.reader):
            raise Refusal(401, text="Invalid credentials in Authorization header")
        if method == "POST" and "paths-info" not in path and token != self.token:
            raise Refusal(403, text="you need write access to this repository")

    def _at(self, revision: str) -> dict[str, Blob]:
        commit = self.repository.main if revision == "main" else revision
        if commit not in self.repository.history:
            raise Refusal(404, "RevisionNotFound")
        return self.repository.history[commit]

    @staticmethod
    def _form(headers: Any, body: bytes) -> dict[str, Any]:
        form = urllib.parse.parse_qs(body.decode())
        return {"paths": form["paths"], "expand": form["expand"][0].lower() == "true"}

    def _mode(self, item: dict[str, Any], files: dict[str, Blob]) -> dict[str, Any]:
        path = item["path"]
        mode = "lfs" if item["size"] > _REGULAR or path.endswith(".lfs") else "regular"
        there = files.get(path)
        ignored = re.search(self.repository.ignored, path) is not None
        said = {"path": path, "uploadMode": mode, "shouldIgnore": ignored}
        return said | ({"oid": there.oid} if there is not None else {})

    def _batch(self, item: dict[str, Any]) -> dict[str, Any]:
        oid, size = item["oid"], item["size"]
        if oid in self.repository.objects:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{self.url}/upload/{oid}/whole"}
        if size > PART:
            count = -(-size // PART)
            parts = {str(part): f"{self.url}/upload/{oid}/{part}" for part in range(1, count + 1)}
            upload = {"href": f"{self.url}/upload/{oid}/end", "header": {"chunk_size": str(PART), **parts}}
        return {"oid": oid, "size": size, "actions": {"upload": upload}}

    def _uploaded(self, path: list[str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        oid, what = path
        if what.isdigit():
            self._parts[oid, int(what)] = body
            return 200, {"etag": f'"{oid[:8]}-{what}"'}, b""
        if what == "end":
            parts = [self._parts.pop((oid, item["partNumber"])) for item in json.loads(body)["parts"]]
            body = b"".join(parts)
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, text="not the bytes that were announced")
        self.repository.objects[oid] = body
        return 200, {}, b""

    def _asked_to_commit(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        header, *lines = map(json.loads, body.splitlines())
        self.before_commit()
        if self.full:
            raise Refusal(403, text="Storage limit reached: 100 GB of 100 GB")
        if self.commits_left <= 0:
            raise Refusal(429, text="You have exceeded the rate limit for repository commits (128 per hour)")
        self.commits_left -= 1
        commit = self._commit(header["value"], lines)
        if self.lose:
            self.lose -= 1
            raise ConnectionResetError
        url = f"https://huggingface.co/{self.repository.name}/commit/{commit}"  # older clients read no other
        return _json({"commitUrl": url, "commitOid": commit})

    def _commit(self, header: dict[str, Any], lines: list[dict[str, Any]]) -> str:
        with self._lock:
            was = self.repository
            parent = header.get("parentCommit")
            if parent is not None and parent != was.main:
                raise Refusal(412, text="A commit has happened since. Please refresh and try again.")
            files = dict(was.history.get(was.main, {}))
            said = f"{was.main} {len(was.titles)} {json.dumps(lines)}"
            commit = hashlib.sha1(said.encode()).hexdigest()
            date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
            for line in lines:
                value = line["value"]
                path = value["path"]
                if line["key"] == "deletedFile":
                    if files.pop(path, None) is None:
                        raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
                elif line["key"] == "lfsFile":
                    data = was.objects[value["oid"]]
                    files[path] = Blob(data, value["oid"], True, commit, date)
                else:
                    data = base64.b64decode(value["content"])
                    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                    files[path] = Blob(data, oid, False, commit, date)
            was.history[commit] = files
            was.titles.append(header["summary"])
            was.main = commit
            return commit

    def _tree(
        self, files: dict[str, Blob], folder: str, query: str, place: str
    ) -> tuple[int, dict[str, str], bytes]:
        asked = urllib.parse.parse_qs(query)
        below = f"{folder}/" if folder else ""
        names = sorted(path for path in files if path.startswith(below))
        if folder and not names:
            raise Refusal(404, "EntryNotFound")
        start, most = int(asked.get("cursor", ["0"])[0]), 1000
        page = [_info(path, files[path], False) for path in names[start : start + most]]
        page.append({"type": "directory", "path": folder or "some", "oid": "0" * 40, "size": 0})
        status, headers, body = _json(page)
        if start + most < len(names):
            headers["Link"] = f'<{self.url}{place}?recursive=True&cursor={start + most}>; rel="next"'
        return status, headers, body

    def _resolve(self, revision: str, path: str, headers: Any) -> tuple[int, dict[str, str], bytes]:
        blob = self._at(revision).get(path)
        if blob is None:
            raise Refusal(404, "EntryNotFound")
        if blob.lfs:
            return 302, {"Location": f"http://127.0.0.1:{self._cdn.server_port}/{blob.oid}"}, b""
        return _ranged(blob.data, headers)

    def _served(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if headers.get("authorization"):
            raise Refusal(400, text="a token that isn't for here")
        return _ranged(self.repository.objects[target.lstrip("/")], headers)


def train(**arguments: Any) -> None:
    """As ``tests.trainer.programs.train``, in a forked process, which else keeps away from the Hub."""
    from huggingface_hub import constants

    from tests.trainer import programs

    constants.HF_HUB_OFFLINE = False  # read from the environment at its import
    programs.train(**arguments)


def _info(path: str, blob: Blob, expand: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid[:40]}
    if blob.lfs:
        said["lfs"] = {"oid": blob.oid, "size": len(blob.data), "pointerSize": 130}
    if expand:
        said["lastCommit"] = {"id": blob.commit, "title": "a commit", "date": blob.date}
    return said


def _ranged(data: bytes, headers: Any) -> tuple[int, dict[str, str], bytes]:
    first, _, last = (headers.get("range") or "bytes=0-").removeprefix("bytes=").partition("-")
    if int(first) >= len(data):
        return 416, {}, b""
    return 206, {}, data[int(first) : int(last or len(data)) + 1]


def _json(what: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(what).encode()


def _serve(answer: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def serve(self) -> None:
            if self.headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                status, headers, data = answer(self.command, self.path, self.headers, body)
            except Refusal as refusal:
                data = json.dumps({"error": refusal.text or refusal.code}).encode()
                status, headers = refusal.status, {"Content-Type": "application/json"}
                headers["X-Error-Message"] = refusal.text or refusal.code
                if refusal.code:
                    headers["X-Error-Code"] = refusal.code
            except ConnectionResetError:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = serve

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:  # a client that went away
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
