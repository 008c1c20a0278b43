"""A double of Google Cloud Storage for benchmarks: the XML API, for obstore, and of the JSON API what gcsfs uses.

Both in front of one SeaweedFS, and in a process of its own: ``python -m tests.benchmarks.google`` prints its address.
Bodies are passed on while they come, so the double holds none of them: a client that sends one large piece after
another must not wait until each has been taken in twice.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import sys
import urllib.parse
import uuid
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from tests.servers import SeaweedServer
from tests.stores.gateways import GoogleGateway, Refusal

_PIECE = 2**20
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class _Body:
    """The next ``length`` bytes of a request, for http.client to send on."""

    def __init__(self, source: Any, length: int) -> None:
        self.source, self.left = source, length

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.source.read(min(self.left, size if size >= 0 else self.left))
        self.left -= len(data)
        return data


class GoogleDouble(GoogleGateway):
    """Both APIs. The JSON API is open to everybody: a benchmark doesn't measure who may do what."""

    def __init__(self, behind: SeaweedServer) -> None:
        self._uploads: dict[str, tuple[str, str, list[str]]] = {}  # key, the id behind, the parts' tags
        super().__init__(behind)

    def serve(self, handler: Any) -> None:
        body = _Body(handler.rfile, int(handler.headers.get("content-length") or 0))
        place = urllib.parse.urlsplit(handler.path)
        query = dict(urllib.parse.parse_qsl(place.query, keep_blank_values=True))
        try:
            before, json_api, rest = place.path.partition("/storage/v1/b/")
            if json_api:
                bucket, _, name = rest.partition("/o")
                key = urllib.parse.unquote(name.strip("/"))
                self._json(handler, before.strip("/"), f"/{bucket}", key, query, body)
            else:
                headers = {name.lower(): value for name, value in handler.headers.items()}
                path, headers = self.translate(handler.command, handler.path, headers, b"")
                with self._asked(handler.command, path, body, headers) as answer:
                    handler.pass_on(answer)
        except Refusal as refusal:
            while body.read(_PIECE):
                pass
            handler.reply(refusal.status, refusal.headers, [refusal.body])

    @contextlib.contextmanager
    def _asked(self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None) -> Any:
        """Ask the server behind; a body is passed on in pieces."""
        signed = self.signed(method, path, headers or {}, b"")
        length = body.left if isinstance(body, _Body) else len(body)
        if method in ("PUT", "POST"):
            signed["content-length"] = str(length)
        upstream = http.client.HTTPConnection(self._address.netloc, timeout=120, blocksize=_PIECE)
        with contextlib.closing(upstream):
            upstream.request(method, path, body if length else None, signed)
            yield upstream.getresponse()

    def _json(
        self, handler: Any, kind: str, bucket: str, key: str, query: dict[str, str], body: _Body
    ) -> None:
        if kind == "upload":
            self._upload(handler, bucket, query, body)
        elif kind == "download" or query.get("alt") == "media":
            wanted = {"range": handler.headers["range"]} if "range" in handler.headers else {}
            with self._asked("GET", _path(bucket, key), headers=wanted) as answer:
                handler.pass_on(answer)
        elif key:
            with self._asked("HEAD", _path(bucket, key)) as answer:
                found = answer.status == 200
                said = self._resource(
                    bucket, key, answer.getheader("content-length"), answer.getheader("etag")
                )
            self._say(
                handler, said if found else {"error": {"message": "No such object"}}, 200 if found else 404
            )
        else:
            self._say(handler, self._listing(bucket, query))

    def _upload(self, handler: Any, bucket: str, query: dict[str, str], body: _Body) -> None:
        if query.get("uploadType") == "resumable":
            said = body.read()
            key = query.get("name") or json.loads(said)["name"]
            with self._asked("POST", f"{_path(bucket, key)}?uploads=") as answer:
                behind = ElementTree.fromstring(answer.read()).findtext("{*}UploadId") or ""
            mine = uuid.uuid4().hex
            self._uploads[mine] = key, behind, []
            where = f"{self.endpoint}/upload/storage/v1/b{bucket}/o?upload_id={mine}"
            handler.reply(200, {"Location": where, "Content-Length": "0"}, [])
        elif "upload_id" in query:
            self._piece(handler, bucket, query["upload_id"], body)
        else:
            about, data = parts_of(handler.headers["content-type"], body.read())
            key = json.loads(about)["name"]
            with self._asked("PUT", _path(bucket, key), data) as answer:
                answer.read()
                self._say(handler, self._resource(bucket, key, str(len(data)), answer.getheader("etag")))

    def _piece(self, handler: Any, bucket: str, upload: str, body: _Body) -> None:
        """Take a piece of a resumable upload: a part behind it, which is made an object with the last one."""
        key, behind, tags = self._uploads[upload]
        place, total = handler.headers["content-range"].removeprefix("bytes ").split("/")
        end = int(place.partition("-")[2])
        path = _path(bucket, key)
        with self._asked("PUT", f"{path}?partNumber={len(tags) + 1}&uploadId={behind}", body) as answer:
            answer.read()
            tags.append(answer.getheader("etag"))
        if end + 1 < int(total):
            handler.reply(308, {"Range": f"bytes=0-{end}", "Content-Length": "0"}, [])
            return
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            for number, tag in enumerate(tags, 1)
        )
        whole = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        with self._asked("POST", f"{path}?uploadId={behind}", whole) as answer:
            tag = ElementTree.fromstring(answer.read()).findtext("{*}ETag")
        self._say(handler, self._resource(bucket, key, total, tag))

    def _listing(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        asked = {
            "list-type": "2",
            "prefix": query.get("prefix", ""),
            "max-keys": query.get("maxResults", "1000"),
        }
        asked |= {"delimiter": query["delimiter"]} if query.get("delimiter") else {}
        with self._asked(
            "GET", f"{bucket}?{urllib.parse.urlencode(asked, safe='/', quote_via=urllib.parse.quote)}"
        ) as answer:
            found = ElementTree.fromstring(answer.read())
        items = [
            self._resource(bucket, *(one.findtext(f"{{*}}{name}") for name in ("Key", "Size", "ETag")))
            for one in found.iterfind("{*}Contents")
        ]
        folders = [one.findtext("{*}Prefix") for one in found.iterfind("{*}CommonPrefixes")]
        return {"kind": "storage#objects", "items": items, "prefixes": folders}

    @staticmethod
    def _resource(bucket: str, key: Any, size: Any, tag: Any) -> dict[str, Any]:
        now = "2026-01-01T00:00:00.000Z"
        return {
            "kind": "storage#object", "name": key, "bucket": bucket.strip("/"), "size": size, "etag": tag,
            "generation": "1", "updated": now, "timeCreated": now, "contentType": "application/octet-stream",
        }  # fmt: skip

    @staticmethod
    def _say(handler: Any, what: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(what).encode()
        handler.reply(status, {"Content-Type": "application/json", "Content-Length": str(len(data))}, [data])


def parts_of(content_type: str, body: bytes) -> tuple[bytes, bytes]:
    """Return what an object is to be called and so on, and its data, of an upload in two parts (RFC 2387).

    Google's own client ends its lines with CR LF and gcsfs with LF alone, and before the next boundary stands one end
    of a line: what comes ahead of that is data, be it a CR.
    """
    boundary = b"--" + content_type.partition('boundary="')[2][:-1].encode()
    parts = body.split(boundary)[1:3]
    end = b"\r\n" if parts[0].startswith(b"\r\n") else b"\n"
    about, data = (_END_OF_HEAD.split(part, 1)[1].removesuffix(end) for part in parts)
    return about, data


def _path(bucket: str, key: str) -> str:
    return f"{bucket}/{urllib.parse.quote(key, safe='/-_.~')}"


if __name__ == "__main__":
    server = SeaweedServer(Path(sys.argv[1]))
    server.start()
    try:
        double = GoogleDouble(server)
        print(double.endpoint, flush=True)
        sys.stdin.read()  # until whoever has started it is gone, or closes it
        double.close()
    finally:
        server.close()
