"""A way to the S3 server that counts the requests that pass, and can be cut."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

_PASSED_ON = ("content-length", "etag", "last-modified", "content-type", "content-range", "x-amz-copy-source")


class Proxy:
    """Passes requests on to a server.

    Attributes:
        endpoint: its URL; where a client is to go.
        requests: (method, path with query) of each request, in the order of their ends.
        cut: while true every request is answered with 503.
    """

    def __init__(self, target: str) -> None:
        self.requests: list[tuple[str, str]] = []
        self.cut = False
        host, port = urlsplit(target).hostname, urlsplit(target).port
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                if proxy.cut:
                    self.answer(503, {}, b"")
                    return
                connection = http.client.HTTPConnection(host or "", port, timeout=60)
                try:
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    # The signature covers the host that the client saw.
                    for name, value in self.headers.items():
                        connection.putheader(name, value)
                    connection.endheaders(body)
                    response = connection.getresponse()
                    data = response.read()
                    proxy.requests.append((self.command, unquote(self.path)))
                    self.answer(response.status, dict(response.getheaders()), data)
                finally:
                    connection.close()

            def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response_only(status)
                lower = {name.lower(): value for name, value in headers.items()}
                for name in _PASSED_ON:
                    if name in lower and not (name == "content-length" and self.command != "HEAD"):
                        self.send_header(name, lower[name])
                if self.command != "HEAD":
                    self.send_header("content-length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def puts(self, below: str) -> Counter[str]:
        """How often each object below a prefix was put, copies inside the store among them."""
        return Counter(
            urlsplit(path).path for method, path in self.requests if method == "PUT" and below in path
        )

    def gets(self, below: str) -> Counter[str]:
        """How often each file of a checkpoint below a prefix was fetched; manifests don't count."""
        return Counter(
            urlsplit(path).path
            for method, path in self.requests
            if method == "GET" and below in path and "list-type" not in path and "/.vault/" not in path
        )

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
