"""A TCP server between a client and a real S3 server that does to requests what networks and servers do to them."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

_PIECE = 16 * 2**10
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "server", "date"}


@dataclass(frozen=True)
class Act:
    """What is done to a request.

    Attributes:
        kind: ``late``: passed on after ``seconds``.
            ``reset``: the connection is reset before anything is read.
            ``lost``: it is carried out, and reset instead of answered.
            ``hang``: nothing happens while the fault lasts, then a reset.
            ``answer``: answered here with ``status``, ``code`` and ``headers``.
            ``slow``: both ways at ``rate`` bytes per second.
            ``flip``: one bit of the answer's body is another one.
            ``cut``: half of the answer's body, then a reset.
    """

    kind: str
    seconds: float = 0.0
    status: int = 503
    code: str = "SlowDown"
    headers: tuple[tuple[str, str], ...] = ()
    rate: float = 0.0


Plan = Callable[[str, str], Act | None]
"""Gets a request's method and path, returns what is done to it; None: it is passed on."""


class FaultProxy:
    """Passes requests on to ``target``, an ``http://`` URL, but for what ``plan`` says.

    Attributes:
        endpoint: where a client is to go.
        plan: what is done to requests; None: nothing.
        done: how many requests something was done to.
    """

    def __init__(self, target: str) -> None:
        self.plan: Plan | None = None
        self.done = 0
        self.over = threading.Event()
        self.over.set()
        self.connections: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, target))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def begin(self, plan: Plan) -> None:
        """Do from now on to requests what ``plan`` says."""
        self.over.clear()
        self.plan = plan

    def end(self) -> None:
        """Pass requests on again; those that hang are reset."""
        self.plan = None
        self.over.set()

    def reset_all(self) -> None:
        """Reset every connection that is open."""
        for each in list(self.connections):
            reset(each)

    def close(self) -> None:
        """End it."""
        self.end()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reset(connection: socket.socket) -> None:
    """Close a connection with RST, as a crashed server or a firewall does."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
        connection.close()
    except OSError:
        pass


def _handler(proxy: FaultProxy, target: str) -> type[BaseHTTPRequestHandler]:
    host, port = urlsplit(target).hostname or "", urlsplit(target).port

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            proxy.connections.add(self.connection)

        def finish(self) -> None:
            proxy.connections.discard(self.connection)
            try:
                super().finish()
            except OSError:
                pass

        def handle_any(self) -> None:
            plan = proxy.plan
            act = plan(self.command, self.path) if plan is not None else None
            proxy.done += act is not None
            kind = act.kind if act is not None else ""
            if act is not None and kind == "late":
                time.sleep(act.seconds)
            if kind == "hang":
                proxy.over.wait(60)
            if kind in ("hang", "reset"):
                self.end_it()
                return
            body = self.take(
                int(self.headers.get("content-length") or 0), act.rate if act is not None else 0.0
            )
            if act is not None and kind == "answer":
                text = f"<?xml version='1.0'?><Error><Code>{act.code}</Code><Message>no</Message></Error>".encode()
                self.give(act.status, [*act.headers, ("content-length", str(len(text)))], text)
                return
            try:
                status, headers, data = self.pass_on(body)
            except OSError:  # the server is gone: what a client sees of it is the connection
                self.end_it()
                return
            if kind == "lost":
                self.end_it()
                return
            if kind == "flip" and data and self.command == "GET":
                at = len(data) // 2
                data = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
            if kind == "cut" and len(data) > 1 and self.command == "GET":
                self.give(status, headers, data[: len(data) // 2])
                self.end_it()
                return
            self.give(status, headers, data, act.rate if act is not None else 0.0)

        def take(self, length: int, rate: float) -> bytes:
            pieces, left = [], length
            while left:
                piece = self.rfile.read(min(_PIECE, left))
                if not piece:
                    break
                pieces.append(piece)
                left -= len(piece)
                if rate:
                    time.sleep(len(piece) / rate)
            return b"".join(pieces)

        def pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(host, port, timeout=30)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():  # the signature covers the host that the client saw
                    connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                return response.status, response.getheaders(), response.read()
            except http.client.HTTPException as error:
                raise OSError(str(error)) from error
            finally:
                connection.close()

        def give(self, status: int, headers: list[tuple[str, str]], data: bytes, rate: float = 0.0) -> None:
            self.send_response_only(status)
            names = {name.lower() for name, _ in headers}
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            if "content-length" not in names and status not in (204, 304):
                self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            for at in range(0, len(data), _PIECE):
                self.wfile.write(data[at : at + _PIECE])
                if rate:
                    time.sleep(min(_PIECE, len(data) - at) / rate)

        def end_it(self) -> None:
            self.close_connection = True
            reset(self.connection)

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):  # reset from here, or the client has left
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
