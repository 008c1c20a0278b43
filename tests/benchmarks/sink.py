"""A null sink that speaks enough of S3's API for every client of the benchmark, and costs next to nothing.

Uploads: bodies above 1 MiB are discarded inside the kernel (``recv`` with MSG_TRUNC copies nothing), their
size is remembered; smaller ones (log entries, manifests) are kept, conditional creates are honoured.
Downloads: a discarded object is served with sendfile(2) from the file of the seed folder whose relative path
ends its key, so that a client which verifies digests finds the right bytes.

(``tests.sink`` is a smaller one that gives zeros back, which no digest would pass.)

What a client reaches against it is therefore the client's own speed, on one machine with the sink's small
share: nothing is authenticated, stored or flushed. Run as ``python -m tests.benchmarks.sink PORT SEED``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import socketserver
import sys
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

KEEP = 1 << 20
"""Bodies up to this many bytes are kept, larger ones thrown away."""
SLICE = 4 << 20
"""Bytes asked of the kernel at once."""


@dataclass
class Stored:
    """One object: its bytes where it is small, else only its size."""

    size: int
    data: bytes | None
    when: float = field(default_factory=time.time)

    @property
    def etag(self) -> str:
        """A tag that changes with what is known of the content."""
        return hashlib.md5(self.data if self.data is not None else str(self.size).encode()).hexdigest()


class Objects:
    """The sink's memory: names and sizes, small bodies, and the seed folder for large ones."""

    def __init__(self, seed: Path) -> None:
        self.lock = threading.Lock()
        self.stored: dict[str, Stored] = {}
        self.parts: dict[str, dict[int, Stored]] = {}
        self.seed = {str(path.relative_to(seed)): path for path in seed.rglob("*") if path.is_file()}

    def source(self, key: str) -> Path | None:
        """Return the seed file whose relative path is the end of ``key``."""
        segments = key.split("/")
        for start in range(len(segments)):
            if path := self.seed.get("/".join(segments[start:])):
                return path
        return None


class Connection(socketserver.BaseRequestHandler):
    """One keep-alive connection; HTTP/1.1 is parsed by hand, since http.server's own cost would be measured."""

    server: Sink

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.objects = self.server.objects
        self.buffer = b""
        self.scratch = bytearray(SLICE)

    def handle(self) -> None:
        # a client that hangs up is no error of the sink
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            while self.one():
                pass

    def one(self) -> bool:
        """Serve one request; False at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            received = self.request.recv(65536)
            if not received:
                return False
            self.buffer += received
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, target, _ = first.split(" ", 2)
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        url = urlsplit(target)
        self.query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        self.bucket, _, self.key = unquote(url.path).lstrip("/").partition("/")
        if self.headers.get("expect", "").lower() == "100-continue":
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.body()
        getattr(self, f"do_{self.method.lower()}")(body)
        return self.headers.get("connection", "").lower() != "close"

    def body(self) -> Stored:
        """Take a request's body: kept where it is small, discarded by the kernel where it isn't."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            raise NotImplementedError("no client of the benchmark sends chunks without a length")
        length = int(self.headers.get("content-length", 0))
        size = int(self.headers.get("x-amz-decoded-content-length", length))
        if length <= KEEP:
            while len(self.buffer) < length:
                received = self.request.recv(length - len(self.buffer))
                if not received:
                    raise ConnectionError
                self.buffer += received
            data, self.buffer = self.buffer[:length], self.buffer[length:]
            return Stored(size, _decoded(data) if size != length else data)
        left = length - len(self.buffer)
        self.buffer = b""
        while left:
            received = self.request.recv_into(self.scratch, min(left, SLICE), socket.MSG_TRUNC)
            if not received:
                raise ConnectionError
            left -= received
        return Stored(size, None)

    def reply(self, status: str, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        """Send a status line, headers and a small body; ``length`` announces one that follows by itself."""
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Length: {len(body) if length is None else length}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        self.request.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def xml(self, name: str, inner: str) -> None:
        """Send an XML document of S3's namespace."""
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        text = f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{space}">{inner}</{name}>'
        self.reply("200 OK", text.encode(), Content_Type="application/xml")

    def fail(self, status: str, code: str) -> None:
        """Send an error document; a HEAD has no body."""
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message/></Error>'
        body = b"" if self.method == "HEAD" else text.encode()
        self.reply(status, body, Content_Type="application/xml")

    def do_put(self, body: Stored) -> None:
        if "uploadId" in self.query:
            with self.objects.lock:
                self.objects.parts[self.query["uploadId"]][int(self.query["partNumber"])] = body
            self.reply("200 OK", ETag=f'"{body.etag}"')
            return
        source = self.headers.get("x-amz-copy-source")
        with self.objects.lock:
            if source:
                body = self.objects.stored[unquote(source).lstrip("/").partition("/")[2]]
            if self.headers.get("if-none-match") == "*" and self.key in self.objects.stored:
                self.fail("412 Precondition Failed", "PreconditionFailed")
                return
            self.objects.stored[self.key] = body
        if source:
            self.xml("CopyObjectResult", f"<ETag>&quot;{body.etag}&quot;</ETag>")
        else:
            self.reply("200 OK", ETag=f'"{body.etag}"')

    def do_post(self, body: Stored) -> None:
        if "uploads" in self.query:
            name = os.urandom(8).hex()
            with self.objects.lock:
                self.objects.parts[name] = {}
            inner = f"<Bucket>{self.bucket}</Bucket><Key>{escape(self.key)}</Key><UploadId>{name}</UploadId>"
            self.xml("InitiateMultipartUploadResult", inner)
        elif "uploadId" in self.query:
            with self.objects.lock:
                parts = self.objects.parts.pop(self.query["uploadId"])
                whole = Stored(sum(part.size for part in parts.values()), None)
                if whole.size <= KEEP:
                    whole.data = b"".join(parts[n].data or b"" for n in sorted(parts))
                self.objects.stored[self.key] = whole
            inner = f"<Key>{escape(self.key)}</Key><ETag>&quot;{whole.etag}&quot;</ETag>"
            self.xml("CompleteMultipartUploadResult", f"<Bucket>{self.bucket}</Bucket>{inner}")
        else:
            names = re.findall(rb"<Key>(.*?)</Key>", body.data or b"")
            with self.objects.lock:
                for name in names:
                    self.objects.stored.pop(unescape(name.decode()), None)
            gone = "".join(f"<Deleted><Key>{name.decode()}</Key></Deleted>" for name in names)
            self.xml("DeleteResult", gone)

    def do_delete(self, body: Stored) -> None:
        with self.objects.lock:
            self.objects.stored.pop(self.key, None)
            self.objects.parts.pop(self.query.get("uploadId", ""), None)
        self.reply("204 No Content")

    def do_head(self, body: Stored) -> None:
        self.do_get(body)

    def do_get(self, body: Stored) -> None:
        if not self.key:
            self.listing()
            return
        with self.objects.lock:
            stored = self.objects.stored.get(self.key)
        if stored is None:
            self.fail("404 Not Found", "NoSuchKey")
            return
        start, end, status, extra = 0, stored.size, "200 OK", {}
        if wanted := self.headers.get("range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else stored.size - int(last)
            end = min(int(last) + 1, stored.size) if first and last else stored.size
            status, extra = "206 Partial Content", {"Content_Range": f"bytes {start}-{end - 1}/{stored.size}"}
        self.reply(
            status,
            length=end - start,
            ETag=f'"{stored.etag}"',
            Last_Modified=formatdate(stored.when, usegmt=True),
            Accept_Ranges="bytes",
            Content_Type="application/octet-stream",
            **extra,
        )
        if self.method == "HEAD":
            return
        if stored.data is not None:
            self.request.sendall(stored.data[start:end])
            return
        source = self.objects.source(self.key)
        if source is None or source.stat().st_size != stored.size:
            raise ConnectionError(f"the seed folder has no {self.key} of {stored.size} bytes")
        with open(source, "rb") as file:
            while start < end:
                start += os.sendfile(self.request.fileno(), file.fileno(), start, min(end - start, SLICE))

    def listing(self) -> None:
        """Answer ListObjects (both versions) and the probes of a bucket, unpaged."""
        if "location" in self.query or self.method == "HEAD":
            self.xml("LocationConstraint", "") if self.method == "GET" else self.reply("200 OK")
            return
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        after = self.query.get("start-after", self.query.get("marker", ""))
        inner, folders = [], set()
        with self.objects.lock:
            found = sorted(
                (k, s) for k, s in self.objects.stored.items() if k.startswith(prefix) and k > after
            )
        for key, stored in found:
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.when))
            inner.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified>"
                f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{stored.size}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        inner += [f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders)]
        name = f"<Name>{self.bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(inner)}</KeyCount>"
        self.xml(
            "ListBucketResult",
            f"{name}<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(inner)}",
        )


def _decoded(data: bytes) -> bytes:
    """Return the payload of a body in aws-chunked coding."""
    parts = []
    while data:
        head, _, data = data.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if not size:
            break
        parts.append(data[:size])
        data = data[size + 2 :]
    return b"".join(parts)


class Sink(socketserver.ThreadingTCPServer):
    """The server: a thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, seed: Path) -> None:
        self.objects = Objects(seed)
        super().__init__(("127.0.0.1", port), Connection)


if __name__ == "__main__":
    Sink(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
