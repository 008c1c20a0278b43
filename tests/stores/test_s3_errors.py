"""What goes wrong on S3 is told apart, in one short line that says what to do and holds no secret."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from tests.servers import CannedServer, SeaweedServer, free_ports
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.objects import opening
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.write_bytes(bytes(20_000_000))
    return path


def reads(store: Store) -> dict[str, Callable[[], object]]:
    """Every operation that reads."""
    return {
        "read": lambda: store.read("x", limit=10),
        "read_range": lambda: store.read_range("x", 0, 1),
        "head": lambda: store.head("x"),
        "list": lambda: list(store.list("log/")),
    }


def writes(store: Store, local: Path) -> dict[str, Callable[[], object]]:
    """Every operation that writes."""
    return {
        "create": lambda: store.create("x", b"x"),
        "write": lambda: store.write("x", b"x"),
        "upload": lambda: store.upload("x", local, size=100),
        "upload in parts": lambda: store.upload("x", local, size=20_000_000),
        "copy": lambda: store.copy("x", "y"),
        "delete": lambda: store.delete(["x", "y"]),
    }


def lead_to(server: CannedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have AWS_* variables lead to a server that checks no keys."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")


def one_line(error: StoreError, secrets: tuple[str, ...] = ()) -> None:
    """A message is one short line without XML; neither it nor the traceback nor repr holds a secret."""
    text = str(error)
    assert "\n" not in text
    assert "<" not in text
    assert len(text) < 300
    everything = text + repr(error) + "".join(traceback.format_exception(error))
    for secret in secrets:
        assert secret not in everything


def test_no_such_bucket(s3_env: dict[str, str], local: Path) -> None:
    """A bucket that doesn't exist is told as such by every operation, never as an absent object."""
    store = open_store("s3://no-such-bucket/run")
    calls = reads(store) | writes(store, local)
    for name, call in calls.items():
        with pytest.raises(StoreDeniedError, match="the bucket doesn't exist") as caught:
            call()
        assert caught.value.operation == name.split(" ")[0]
        one_line(caught.value)


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("AWS_ACCESS_KEY_ID", "the server doesn't know this access key"),
        ("AWS_SECRET_ACCESS_KEY", "the secret key is wrong"),
    ],
)
def test_wrong_keys(
    s3_uri: str,
    s3_env: dict[str, str],
    local: Path,
    variable: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A wrong key or secret is StoreDeniedError with a hint; neither appears in messages, traces or the log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(variable, "SomethingElse123")
    secrets = "SomethingElse123", s3_env["AWS_SECRET_ACCESS_KEY"]
    store = open_store(s3_uri)
    calls = reads(store) | writes(store, local)
    for name, call in calls.items():
        with pytest.raises(StoreDeniedError) as caught:
            call()
        one_line(caught.value, secrets)
        assert caught.value.hint
        if name not in ("head", "copy"):  # the answer to HEAD has no body
            assert caught.value.reason == reason
            assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    assert not any(secret in caplog.text for secret in secrets)


def test_a_reader(
    s3_server: SeaweedServer, s3_uri: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that may only read can read; each write is denied with a hint at the permissions."""
    open_store(s3_uri).write("x", b"data")
    for name, value in s3_server.env(reader=True).items():
        monkeypatch.setenv(name, value)
    store = open_store(s3_uri)
    assert store.read("x", limit=10) == b"data"
    assert [info.key for info in store.list("")] == ["x"]
    for call in writes(store, local).values():
        with pytest.raises(StoreDeniedError, match="s3:ListBucket") as caught:
            call()
        one_line(caught.value)
    assert [info.key for info in store.list("")] == ["x"]


def test_nobody_there(s3_uri: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection and an unknown name are passing trouble, told apart, with the variable that led there."""
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    for endpoint, reason in ((nobody, "refuses the connection"), ("http://server.invalid", "isn't found")):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = open_store(s3_uri)
        calls = reads(store) | writes(store, local)
        for name in calls if endpoint == nobody else ("create", "head"):
            with pytest.raises(StoreUnavailableError, match=reason) as caught:
                calls[name]()
            assert endpoint in str(caught.value)
            assert "AWS_ENDPOINT_URL names it" in str(caught.value)
            one_line(caught.value)


def test_no_answer(s3_server: SeaweedServer, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and doesn't answer is passing trouble once the time is up."""
    monkeypatch.setattr(opening, "QUICK_TIMEOUT", timedelta(seconds=1))
    store = open_store(s3_uri)
    s3_server.pause()
    try:
        with pytest.raises(StoreUnavailableError, match="didn't answer in time"):
            store.create("x", b"x")
    finally:
        s3_server.resume()


def test_an_outage_is_outlasted(s3_server: SeaweedServer, s3_uri: str, local: Path) -> None:
    """While the server is down operations wait, and they are done when it is back with its data."""
    bare = open_store(s3_uri)
    bare.write("before", b"x")
    down = threading.Event()
    retries: list[type[StoreError]] = []

    def on_retry(error: StoreError, attempt: int, delay: float) -> None:
        retries.append(type(error))
        down.set()

    policy = RetryPolicy(base=0.2, longest=1.0, deadline=120.0)
    store = RetryingStore(bare, policy, on_retry=on_retry)
    s3_server.stop()
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(store.upload, "during", local, size=20_000_000)
        assert down.wait(60)
        s3_server.start()
        upload.result()
    assert StoreUnavailableError in retries
    assert [(info.key, info.size) for info in store.list("")] == [("before", 1), ("during", 20_000_000)]


@pytest.fixture
def canned(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CannedServer]]:
    """Starts a server with one answer for all, and has AWS_* variables lead to it."""
    servers: list[CannedServer] = []

    def start(status: int, code: str = "", **headers: str) -> CannedServer:
        region = "<Region>eu-west-1</Region>"  # MinIO names its own in every error
        said = f"<Code>{code}</Code><Message>m</Message>{region}"
        body = f"<?xml version='1.0'?><Error>{said}</Error>" if code else ""
        server = CannedServer(lambda *_: (status, headers, body.encode()))
        servers.append(server)
        lead_to(server, monkeypatch)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (412, "PreconditionFailed", AlreadyExistsError, "exists already"),
        (409, "ConditionalRequestConflict", StoreUnavailableError, "409 ConditionalRequestConflict"),
        (409, "OperationAborted", StoreUnavailableError, "409 OperationAborted"),
        (429, "", StoreUnavailableError, "429"),
        (500, "InternalError", StoreUnavailableError, "500 InternalError"),
        (503, "SlowDown", StoreUnavailableError, "503 SlowDown"),
        (504, "", StoreUnavailableError, "504"),
        (400, "RequestTimeout", StoreUnavailableError, "RequestTimeout"),
        (404, "NoSuchBucket", StoreDeniedError, "the bucket doesn't exist"),
        (400, "ExpiredToken", StoreDeniedError, "have expired"),
        (400, "InvalidToken", StoreDeniedError, "session token"),
        (403, "AccessDenied", StoreDeniedError, "s3:ListBucket on the bucket"),
        (403, "RequestTimeTooSkewed", StoreDeniedError, "clock"),
        (403, "SomethingNew", StoreDeniedError, "SomethingNew"),
        (401, "", StoreDeniedError, "denied"),
        (301, "PermanentRedirect", StoreDeniedError, "AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", StoreDeniedError, "set AWS_REGION=eu-west-1"),
        (507, "XMinioStorageFull", StoreFullError, "full"),
        (400, "QuotaExceeded", StoreFullError, "quota"),
        (501, "NotImplemented", StoreError, "doesn't implement"),
        (400, "InvalidArgument", StoreError, "400 InvalidArgument"),
    ],
)
def test_answers(
    canned: Callable[..., CannedServer], status: int, code: str, kind: type[StoreError], text: str
) -> None:
    """Each answer of a server becomes the error that says what to do, for a create as for a listing."""
    canned(status, code)
    store = open_store("s3://bucket/run")
    for call in (lambda: store.create("log/1", b"x"), lambda: list(store.list("log/"))):
        with pytest.raises(StoreError) as caught:
            call()
        if kind is not AlreadyExistsError or caught.value.operation == "create":
            assert type(caught.value) is kind
            assert text in str(caught.value)
        one_line(caught.value)
        assert caught.value.transient is issubclass(kind, StoreUnavailableError)


def test_a_short_answer_to_head(canned: Callable[..., CannedServer]) -> None:
    """403 and 404 without a body are an error of permissions and an absent object."""
    canned(404)
    with pytest.raises(ObjectNotFoundError):
        open_store("s3://bucket/run").head("x")
    canned(403)
    with pytest.raises(StoreDeniedError, match="s3:ListBucket"):
        open_store("s3://bucket/run").head("x")


@pytest.mark.parametrize("page", ["<html>welcome, please log in</html>", "", "{}", "<a><b></a>"])
def test_a_login_page_is_no_empty_vault(no_aws: None, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    """What answers everything with a page is out of reach: neither an object nor an empty listing is made of it."""
    server = CannedServer(lambda *_: (200, {"Content-Type": "text/html"}, page.encode()))
    try:
        lead_to(server, monkeypatch)
        store = open_store("s3://bucket/run")
        for call in (reads(store) | {"create": lambda: store.create("x", b"x")}).values():
            with pytest.raises(StoreError) as caught:
                call()
            one_line(caught.value)
    finally:
        server.close()


def test_a_forgotten_upload_is_passing_trouble(
    no_aws: None, monkeypatch: pytest.MonkeyPatch, local: Path
) -> None:
    """A server that no longer knows the upload in parts when it is completed has it sent again."""

    def answer(
        method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if method == "POST" and "uploads" in path:
            inside = "<Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>"
            return (
                200,
                {},
                f"<InitiateMultipartUploadResult>{inside}</InitiateMultipartUploadResult>".encode(),
            )
        if method == "PUT":
            return 200, {"ETag": '"e"'}, b""
        if method == "DELETE":
            return 204, {}, b""
        return 404, {}, b"<Error><Code>NoSuchUpload</Code><Message>m</Message></Error>"

    server = CannedServer(answer)
    try:
        lead_to(server, monkeypatch)
        with pytest.raises(StoreUnavailableError, match="NoSuchUpload"):
            open_store("s3://bucket/run").upload("x", local, size=20_000_000)
    finally:
        server.close()
