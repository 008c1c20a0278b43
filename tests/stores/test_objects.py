"""What object stores add to the contract: parts, copies beyond the server's bound, memory, leftovers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from tests import ROOT
from tests.kit.inside import before_head
from tests.servers import SeaweedServer
from tests.sink import SinkServer
from vaultlayer_hf.errors import AlreadyExistsError, StoreDeniedError, StoreUnavailableError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.objects.azure import AZURE
from vaultlayer_hf.stores.objects.errors import translate
from vaultlayer_hf.stores.objects.parts import CHUNK, part_plan
from vaultlayer_hf.stores.objects.store import ObjectStore

TB = 10**12


@given(st.integers(1, 5 * TB), st.integers(1, 64))
def test_part_plan(size: int, concurrency: int) -> None:
    """Any size S3 can hold fits into its 10 000 parts of at least 5 MiB, and about 100 MB in memory below 280 GB."""
    part, parallel = part_plan(size, concurrency)
    assert -(-size // part) <= 10_000
    assert part >= 5 * 1024 * 1024
    assert part % CHUNK == 0
    assert 1 <= parallel <= concurrency
    if size < 280 * 10**9:
        assert part * (parallel + 2) <= 101_000_000


def test_small_files_use_what_was_asked_for() -> None:
    """Files of a usual size are sent in parts of 8 MiB with the concurrency that was set."""
    assert part_plan(10**9, 8) == (CHUNK, 8)
    assert part_plan(10**9, 3) == (CHUNK, 3)


def test_copy_beyond_the_bound(s3_uri: str, tmp_path: Path) -> None:
    """An object too large for the server's own copy is copied by streaming, bit by bit the same."""
    data = random.Random(7).randbytes(3 * CHUNK + 77)
    local = tmp_path / "local"
    local.write_bytes(data)
    store = open_store(s3_uri)
    assert isinstance(store, ObjectStore)
    store.largest_copy = CHUNK
    store.upload("a", local, size=len(data))
    store.write("b", b"old")
    assert store.copy("a", "b").size == len(data)
    assert bytes(store.read_range("b", 0, len(data))) == data


def test_a_denial_of_one_object_among_many() -> None:
    """Azure names the status of each deletion that it refuses, and no code: that is no passing trouble, and told."""
    said = OSError(
        "Generic MicrosoftAzure error: Bulk delete request failed for key run/x: This request is not authorized to"
        " perform this operation using this permission.\nRequestId:1 (code: 403)"
    )
    error = translate("delete", "", said, AZURE)
    assert type(error) is StoreDeniedError
    assert "delete (d)" in str(error)
    assert "RequestId" not in str(error)


def test_a_cancelled_upload_leaves_no_parts(s3_server: SeaweedServer, s3_uri: str, tmp_path: Path) -> None:
    """A cancelled upload in parts is aborted on the server, so that its parts cost nothing."""

    def open_uploads() -> int:
        request = urllib.request.Request(
            f"{s3_server.filer}/buckets/{s3_server.bucket}/.uploads/?limit=1000",
            headers={"Accept": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return len(json.load(answer)["Entries"] or [])

    local = tmp_path / "local"
    local.write_bytes(bytes(6 * CHUNK))
    seen: list[int] = []

    def pace(_: int) -> None:
        seen.append(open_uploads())
        if len(seen) == 5:
            raise KeyError("stop")

    store = open_store(s3_uri, upload_concurrency=1)
    before = open_uploads()
    with pytest.raises(KeyError):
        store.upload("x", local, size=6 * CHUNK, pace=pace)
    assert max(seen) == before + 1
    assert open_uploads() == before
    assert not store.exists("x")


def test_uploads_in_parts_take_turns(tmp_path: Path) -> None:
    """Two large files at once are sent one after the other, so memory doesn't grow; waiting can be cancelled."""
    local = tmp_path / "local"
    local.write_bytes(bytes(3 * CHUNK))
    store = ObjectStore(MemoryStore(), uri="memory://")
    first_runs, go_on = threading.Event(), threading.Event()

    def holding(_: int) -> None:
        first_runs.set()
        assert go_on.wait(60)

    def cancelling(count: int) -> None:
        assert count == 0, "it was let in beside the other"
        raise KeyError("cancelled while waiting")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.upload, "first", local, size=3 * CHUNK, pace=holding)
        assert first_runs.wait(60)
        with pytest.raises(KeyError, match="while waiting"):
            store.upload("second", local, size=3 * CHUNK, pace=cancelling)
        store.upload("small", local, size=CHUNK)
        go_on.set()
        first.result()
    assert [info.key for info in store.list("")] == ["first", "small"]


def test_without_conditional_writes() -> None:
    """Where the probe found no atomic create, a create still refuses what it can see to exist."""
    store = ObjectStore(MemoryStore(), uri="memory://")
    store.supports_create = False
    store.create("x", b"one")
    with pytest.raises(AlreadyExistsError):
        store.create("x", b"two")
    assert store.read("x", limit=10) == b"one"


def test_an_upload_that_arrived_short(tmp_path: Path) -> None:
    """An object that has another size than what was sent is noticed."""
    client = MemoryStore()
    store = ObjectStore(client, uri="memory://")
    local = tmp_path / "local"
    local.write_bytes(bytes(3 * CHUNK))
    before_head(store, lambda key: client.put(key, b"short"))
    with pytest.raises(StoreUnavailableError, match="bytes were sent"):
        store.upload("x", local, size=3 * CHUNK)


FORK = """
import os, signal
from vaultlayer_hf.errors import StoreError
from vaultlayer_hf.stores import open_store

def child(use):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.alarm(30)
    try:
        use()
    except StoreError as error:
        os._exit(3 if "forked process" in str(error) else 4)
    os._exit(0)

store = open_store("s3://bucket/run")
assert child(lambda: store.write("x", b"x")) == 0       # nobody has used it yet
store.write("x", b"x")
assert child(lambda: store.write("x", b"x")) == 3
assert child(lambda: open_store("s3://bucket/other").write("x", b"x")) == 3
assert child(lambda: None) == 0                         # as the workers of a data loader
store.write("y", b"y")
assert store.head("y").size == 1
print("the parent is well")
"""


def test_forked_processes(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child of a process that has used an object store is refused at once, and its parent works on."""
    sink = SinkServer()
    try:
        for name, value in sink.env().items():
            monkeypatch.setenv(name, value)
        ended = subprocess.run(
            [sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
    finally:
        sink.close()
    assert ended.stdout == "the parent is well\n", ended.stderr


MEMORY = """
import resource, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from vaultlayer_hf.stores import open_store

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

source, size = Path(sys.argv[1]), int(sys.argv[2])
store = open_store("s3://bucket/run")
store.upload("warm", source, size=30_000_000)
before, rates = most(), []

def timed(name, work):
    start = time.monotonic()
    work()
    rates.append(f"{name} {size / 1e6 / (time.monotonic() - start):.0f} MB/s")

def read():
    step = 8 << 20
    def one(start):
        return len(store.read_range("big", start, min(step, size - start)))
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(0, size, step))) == size

timed("upload", lambda: store.upload("big", source, size=size))
timed("read", read)
timed("copy", lambda: store.copy("big", "again"))
assert store.head("big").size == store.head("again").size == size
print(", ".join(rates))
print(most() - before)
"""


@pytest.mark.slow
def test_memory_is_bounded(no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploading, reading and copying 10 GB needs at most 200 MB of memory, and no more than S3's own bounds."""
    size = 10 * 10**9
    source = tmp_path / "sparse"
    with open(source, "wb") as file:
        file.truncate(size)
    sink = SinkServer()
    try:
        for name, value in sink.env().items():
            monkeypatch.setenv(name, value)
        ended = subprocess.run(
            [sys.executable, "-c", MEMORY, str(source), str(size)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=280,
        )
    finally:
        sink.close()
    rates, grown = ended.stdout.splitlines()
    print(rates, f"and {int(grown) / 1e6:.0f} MB more memory")
    assert int(grown) <= 200_000_000
