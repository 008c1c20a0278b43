"""A null sink that speaks enough of S3: it counts the bytes of what is put, throws them away, and gives zeros.

    python -m tests.sink            prints its port and serves until it is killed

It holds to one rule of Amazon's that the small servers don't have: no copy of more than 5 GiB. Bytes are dropped
by the kernel (MSG_TRUNC), so the sink costs little and what is measured is the client.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.parse
import uuid

from tests import ROOT
from tests.servers import die_with_parent

_BUFFER = 1024 * 1024
_ZEROS = memoryview(bytes(_BUFFER))
_LARGEST_COPY = 5 * 1024**3
_DATE = "Tue, 24 Nov 2026 12:00:00 GMT"


class _Objects:
    """Sizes of what was put: the only memory of the sink."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sizes: dict[str, int] = {}
        self.parts: dict[str, dict[str, int]] = {}


class _Handler(socketserver.BaseRequestHandler):
    request: socket.socket

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waiting = b""
        with contextlib.suppress(ConnectionError):
            while self._one():
                pass

    def _one(self) -> bool:
        while b"\r\n\r\n" not in self.waiting:
            data = self.request.recv(65536)
            if not data:
                return False
            self.waiting += data
        head, self.waiting = self.waiting.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path, _, query = target.partition("?")
        if "100-continue" in headers.get("expect", "").lower():
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        keep = method == "POST"  # the small bodies are looked at, the large ones never
        body = self._drop(int(headers.get("content-length", 0)), keep)
        size = int(headers.get("x-amz-decoded-content-length", headers.get("content-length", 0)))
        self._answer(
            method, urllib.parse.unquote(path), urllib.parse.parse_qs(query, True), headers, size, body
        )
        return True

    def _drop(self, count: int, keep: bool) -> bytes:
        body, self.waiting = self.waiting[:count], self.waiting[count:]
        left, kept = count - len(body), [body]
        buffer = bytearray(min(left, _BUFFER))
        while left:
            if keep:
                data = self.request.recv(min(left, _BUFFER))
                kept.append(data)
                got = len(data)
            else:
                got = self.request.recv_into(buffer, min(left, _BUFFER), socket.MSG_TRUNC)
            if not got:
                raise ConnectionError("the client went away")
            left -= got
        return b"".join(kept) if keep else b""

    def _answer(
        self,
        method: str,
        key: str,
        query: dict[str, list[str]],
        headers: dict[str, str],
        size: int,
        body: bytes,
    ) -> None:
        objects: _Objects = self.server.objects  # type: ignore[attr-defined]
        upload = query.get("uploadId", [""])[0]
        with objects.lock:
            known = objects.sizes.get(key)
        if method == "PUT" and "x-amz-copy-source" in headers:
            origin = "/" + urllib.parse.unquote(headers["x-amz-copy-source"]).lstrip("/")
            with objects.lock:
                have = objects.sizes.get(origin)
                if have is not None and have <= _LARGEST_COPY:
                    objects.sizes[key] = have
            if have is None:
                return self._error(404, "NoSuchKey")
            if have > _LARGEST_COPY:
                return self._error(400, "InvalidRequest")
            return self._xml(f"<CopyObjectResult><ETag>&quot;{have}&quot;</ETag></CopyObjectResult>")
        if method == "PUT" and upload:
            with objects.lock:
                objects.parts[upload][query["partNumber"][0]] = size
            return self._send(200, {"ETag": f'"{size}"'})
        if method == "PUT":
            if known is not None and headers.get("if-none-match") == "*":
                return self._error(412, "PreconditionFailed")
            with objects.lock:
                objects.sizes[key] = size
            return self._send(200, {"ETag": f'"{size}"'})
        if method == "POST" and "uploads" in query:
            upload = uuid.uuid4().hex
            with objects.lock:
                objects.parts[upload] = {}
            inside = f"<Bucket>b</Bucket><Key>k</Key><UploadId>{upload}</UploadId>"
            return self._xml(f"<InitiateMultipartUploadResult>{inside}</InitiateMultipartUploadResult>")
        if method == "POST" and upload:
            with objects.lock:
                parts = objects.parts.pop(upload)
                if len(parts) <= 10_000:
                    total = objects.sizes[key] = sum(parts.values())
            if len(parts) > 10_000:
                return self._error(400, "InvalidArgument")
            inside = f"<Location>x</Location><Key>k</Key><ETag>&quot;{total}&quot;</ETag>"
            return self._xml(f"<CompleteMultipartUploadResult>{inside}</CompleteMultipartUploadResult>")
        if method == "POST" and "delete" in query:
            with objects.lock:
                for name in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                    objects.sizes.pop("/" + key.strip("/") + "/" + name, None)
            return self._xml("<DeleteResult></DeleteResult>")
        if method == "DELETE":
            with objects.lock:
                objects.sizes.pop(key, None)
                objects.parts.pop(upload, None)
            return self._send(204, {})
        if method == "GET" and "list-type" in query:
            return self._list(key.strip("/"), query.get("prefix", [""])[0], objects)
        if method == "GET" and key.count("/") < 2:
            return self._xml("<LocationConstraint></LocationConstraint>")
        if known is None:
            return self._error(404, "NoSuchKey", method == "HEAD")
        return self._give(method, known, headers.get("range", ""))

    def _list(self, bucket: str, prefix: str, objects: _Objects) -> None:
        with objects.lock:
            found = sorted((k[len(bucket) + 2 :], v) for k, v in objects.sizes.items())
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;{size}&quot;</ETag>"
            "<LastModified>2026-11-24T12:00:00.000Z</LastModified></Contents>"
            for key, size in found
            if key.startswith(prefix)
        )
        count = rows.count("<Key>")
        more = f"<KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>"
        self._xml(f"<ListBucketResult><Name>{bucket}</Name>{more}{rows}</ListBucketResult>")

    def _give(self, method: str, size: int, wanted: str) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        start, end = 0, size
        if match:
            start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
            if start >= size:
                return self._error(416, "InvalidRange")
        headers = {"ETag": f'"{size}"', "Last-Modified": _DATE, "Accept-Ranges": "bytes"}
        if match:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._send(206 if match else 200, headers, length=end - start)
        left = 0 if method == "HEAD" else end - start
        while left:
            chunk = _ZEROS[: min(left, _BUFFER)]
            self.request.sendall(chunk)
            left -= len(chunk)
        return None

    def _error(self, status: int, code: str, headless: bool = False) -> None:
        body = "" if headless else f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._send(status, {"Content-Type": "application/xml"}, body.encode())

    def _xml(self, body: str) -> None:
        self._send(200, {"Content-Type": "application/xml"}, body.encode())

    def _send(
        self, status: int, headers: dict[str, str], body: bytes = b"", length: int | None = None
    ) -> None:
        fields = {"x-amz-request-id": "0", **headers}
        if status != 204:
            fields["Content-Length"] = str(len(body) if length is None else length)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.request.sendall(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


class SinkServer:
    """The null sink in a process of its own. Any key and bucket will do.

    Attributes:
        endpoint: its URL.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sink"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def env(self) -> dict[str, str]:
        """AWS_* variables that lead a client here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "SINK",
            "AWS_SECRET_ACCESS_KEY": "sink-secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def main() -> None:
    """Serve until killed."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.objects = _Objects()  # type: ignore[attr-defined]
        print(server.server_address[1], flush=True)
        sys.stdout.close()
        server.serve_forever()


if __name__ == "__main__":
    main()
