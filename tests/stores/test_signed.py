"""Signed reads: the cheaper way to large ranges is taken where it is straight, and left in time where it isn't."""

from __future__ import annotations

import errno
import gc
import http.server
import logging
import random
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest

from tests.servers import CannedServer, SeaweedServer
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.objects.signed import SignedReads
from vaultlayer_hf.stores.objects.store import ObjectStore

DATA = random.Random(0).randbytes(3 * 2**20 + 17)
SECRET = "X-Amz-Signature=5ec7e7"
Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture
def canned() -> Iterator[Callable[[Reply], tuple[SignedReads, CannedServer]]]:
    """Gives signed reads whose server gives one answer to all."""
    servers: list[CannedServer] = []

    def make(reply: Reply) -> tuple[SignedReads, CannedServer]:
        servers.append(CannedServer(lambda *_: reply))
        return SignedReads(lambda name: f"{servers[-1].endpoint}/b/{name}?{SECRET}"), servers[-1]

    yield make
    for server in servers:
        server.close()


def read(reads: SignedReads, start: int = 10, length: int = 1000) -> bytes:
    """Return what comes of a range."""
    return b"".join(bytes(piece) for piece in reads.pieces("x", start, length))


def good(start: int = 10, length: int = 1000) -> Reply:
    """The answer that a store gives."""
    place = f"bytes {start}-{start + length - 1}/{len(DATA)}"
    return 206, {"Content-Range": place}, DATA[start : start + length]


def test_a_store_gives_them(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server takes the addresses; from eight threads at once each gets its bytes, and the client isn't asked."""
    store = open_store(s3_uri)
    assert isinstance(store, ObjectStore)
    store.write("ä b/x+y", DATA)
    monkeypatch.setattr(obstore, "get", None)
    chance = random.Random(1)
    ranges = [(chance.randrange(2**21), chance.randrange(1, 2**20)) for _ in range(40)]

    def one(place: tuple[int, int]) -> bytes:
        came: list[bytes] = []
        store.read_pieces("ä b/x+y", *place, lambda offset, piece: came.append(bytes(piece)))
        return b"".join(came)

    with ThreadPoolExecutor(8) as pool:
        for (start, length), came in zip(ranges, pool.map(one, ranges), strict=True):
            assert came == DATA[start : start + length]


def test_connections(canned: Callable[[Reply], tuple[SignedReads, CannedServer]]) -> None:
    """While a thread reads, another's connection is kept for the next; when the last one ends, all are closed."""
    reads, server = canned(good())
    peers = set()
    ask = server._server.RequestHandlerClass.handle_one_request

    def seen(handler: http.server.BaseHTTPRequestHandler) -> None:
        peers.add(handler.client_address)
        ask(handler)

    server._server.RequestHandlerClass.handle_one_request = seen  # type: ignore[method-assign] # to count
    first = reads.pieces("x", 10, 1000)
    assert bytes(next(first)) == DATA[10:1010]
    for _ in range(3):
        assert read(reads) == DATA[10:1010]
    first.close()
    assert len(peers) == 2
    assert read(reads) == DATA[10:1010]
    assert len(peers) == 3
    assert reads._idle == []
    assert reads._reading == 0


@pytest.mark.parametrize(
    ("reply", "came", "again"),
    [
        ((200, {}, DATA[:1010]), 0, False),
        ((206, {"Content-Range": f"bytes 0-999/{len(DATA)}"}, DATA[:1000]), 0, False),
        ((206, {"Content-Range": f"bytes 10-509/{len(DATA)}"}, DATA[10:510]), 0, False),
        ((206, {}, DATA[10:1010]), 0, False),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), 0, False),
        ((403, {}, f"<Error>{SECRET}</Error>".encode()), 0, False),
        ((404, {}, b""), 0, True),
        ((416, {}, b""), 0, True),
        ((503, {}, b""), 0, True),
        (
            (*good()[:1], {**good()[1], "Content-Length": "1000", "Connection": "close"}, DATA[10:310]),
            300,
            True,
        ),
        ((*good()[:1], {**good()[1], "Content-Length": "300"}, DATA[10:310]), 300, True),
        ((*good()[:1], {**good()[1], "Content-Length": "1200"}, DATA[10:1210]), 1000, True),
    ],
    ids=lambda item: str(item[0]) if isinstance(item, tuple) else None,
)
def test_other_answers(
    canned: Callable[[Reply], tuple[SignedReads, CannedServer]],
    caplog: pytest.LogCaptureFixture,
    reply: Reply,
    came: int,
    again: bool,
) -> None:
    """No byte is taken that isn't the one asked for; where it would be the same next time, there is no next time."""
    caplog.set_level(logging.DEBUG)
    reads, server = canned(reply)
    for _ in range(2):
        assert read(reads) == DATA[10 : 10 + came]
        assert reads._idle == []
    assert len(server.requests) == 1 + again
    assert "5ec7e7" not in caplog.text


def test_the_client_goes_on(
    canned: Callable[[Reply], tuple[SignedReads, CannedServer]], s3_uri: str, s3_server: SeaweedServer
) -> None:
    """After a connection that broke, the object client goes on from the byte that was reached."""
    store = open_store(s3_uri)
    assert isinstance(store, ObjectStore)
    store.write("x", DATA)
    broken = {**good(10, 1000)[1], "Content-Length": "1000", "Connection": "close"}
    store._signed, _ = canned((206, broken, DATA[10:310]))
    came: list[tuple[int, bytes]] = []
    store.read_pieces("x", 10, 1000, lambda offset, piece: came.append((offset, bytes(piece))))
    assert [offset for offset, _ in came] == [10, 310]
    assert b"".join(piece for _, piece in came) == DATA[10:1010]


def test_an_error_of_the_taker(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk comes out as it is: it isn't taken for a lost connection, and the connection is closed."""
    store = open_store(s3_uri)
    assert isinstance(store, ObjectStore)
    store.write("x", DATA)
    monkeypatch.setattr(obstore, "get", None)

    def full(offset: int, piece: memoryview) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with pytest.raises(OSError, match="no space left") as caught:
        store.read_pieces("x", 0, len(DATA), full)
    assert caught.value.errno == errno.ENOSPC
    assert store._signed is not None
    assert store._signed._reading == 0
    gc.collect()  # a socket that nobody has closed would warn now


def test_nobody_listens() -> None:
    """A server that is gone gives nothing, now; it is tried again later."""
    reads = SignedReads(lambda name: f"http://127.0.0.1:1/{name}?{SECRET}")
    assert read(reads) == b""
    assert reads.refused is None


def test_nothing_to_sign_with(caplog: pytest.LogCaptureFixture) -> None:
    """Where no address can be signed, it isn't tried again, and what the signer said appears nowhere."""
    caplog.set_level(logging.DEBUG)

    def sign(name: str) -> str:
        raise ValueError(SECRET)

    reads = SignedReads(sign)
    assert read(reads) == b""
    assert reads.refused == "no address can be signed (ValueError)"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("exempt", [False, True])
def test_a_proxy(
    canned: Callable[[Reply], tuple[SignedReads, CannedServer]], monkeypatch: pytest.MonkeyPatch, exempt: bool
) -> None:
    """Where a proxy is to be used the client does that; a server that is exempt from it is asked directly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1" if exempt else "")
    reads, server = canned(good())
    assert read(reads) == (DATA[10:1010] if exempt else b"")
    assert len(server.requests) == exempt


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(tmp_path: Path, trusted: bool) -> None:
    """A server with a certificate of a private authority is read where that is trusted, and left alone otherwise."""
    if shutil.which("openssl") is None:
        pytest.skip("apt-get install openssl: a certificate is made here")
    made = [
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout a.key -out a.pem",
        "openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout s.key -out s.csr",
        "openssl x509 -req -in s.csr -CA a.pem -CAkey a.key -CAcreateserial -days 2 -extfile s.ext -out s.pem",
    ]
    (tmp_path / "s.ext").write_text("subjectAltName=DNS:localhost\n")
    for command in made:
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = good()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "s.pem", tmp_path / "s.key")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # a refused handshake is meant
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            address = f"https://localhost:{server.server_address[1]}/x?{SECRET}"
            reads = SignedReads(lambda name: address, (tmp_path / "a.pem").read_bytes() if trusted else None)
            assert read(reads) == (DATA[10:1010] if trusted else b"")
        finally:
            server.shutdown()
            thread.join()
    assert reads.refused == (None if trusted else "the certificate isn't trusted")
