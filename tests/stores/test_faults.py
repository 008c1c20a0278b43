"""The fault-injecting store: it records truly, and places a fault exactly where it is told to."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import ROOT
from vaultlayer_hf.errors import StoreError, StoreUnavailableError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.testing import Fault, FaultStore, Operation


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store(tmp_path / "vault")


def test_operations_are_recorded(folder: Store, tmp_path: Path) -> None:
    """Every call is numbered from 1 with its name and key, a deletion key by key."""
    local = tmp_path / "local"
    local.write_bytes(b"data")
    store = FaultStore(folder)
    store.create("a", b"x")
    store.upload("b", local, size=4)
    store.copy("b", "c")
    list(store.list("", after="a"))
    store.read("a", limit=5)
    store.read_range("a", 0, 1)
    store.head("a")
    store.write("d", b"x")
    store.delete(["a", "b"])
    expected = ["create a", "upload b", "copy c", "list ", "read a", "read_range a", "head a", "write d"]
    expected += ["delete a", "delete b"]
    assert [f"{operation.name} {operation.key}" for operation in store.operations] == expected
    assert [operation.number for operation in store.operations] == list(range(1, 11))


def test_before_and_after(folder: Store) -> None:
    """A fault before the call means that nothing happened, one after it that it happened unnoticed."""
    store = FaultStore(folder, {1: Fault.refused(), 2: Fault.lost_answer()})
    with pytest.raises(StoreUnavailableError, match="injected"):
        store.create("a", b"x")
    with pytest.raises(StoreUnavailableError, match="injected"):
        store.create("b", b"x")
    store.create("c", b"x")
    assert [info.key for info in folder.list("")] == ["b", "c"]


def test_a_plan_that_looks(folder: Store) -> None:
    """A plan may be a function, and an error of any kind may be raised."""

    def plan(operation: Operation) -> Fault | None:
        return Fault.refused(KeyError("mine")) if operation.key.startswith("log/") else None

    store = FaultStore(folder, plan)
    store.write("data/x", b"x")
    with pytest.raises(KeyError, match="mine"):
        store.write("log/1", b"x")


def test_held(folder: Store) -> None:
    """A held operation happens when it is let go, not before."""
    gate = threading.Event()
    store = FaultStore(folder, {1: Fault.held(gate)})
    thread = threading.Thread(target=store.write, args=("x", b"x"))
    thread.start()
    assert not folder.exists("x")
    gate.set()
    thread.join(30)
    assert folder.exists("x")


@pytest.mark.parametrize(("fault", "seen"), [("before", ["a"]), ("after", ["a", "b"]), ("during", ["a"])])
def test_killed(tmp_path: Path, fault: str, seen: list[str]) -> None:
    """The process is ended by a real SIGKILL before, after or in the middle of the chosen operation."""
    local = tmp_path / "local"
    local.write_bytes(bytes(20_000_000))
    program = f"""
from pathlib import Path
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.testing import Fault, FaultStore
store = FaultStore(open_store({str(tmp_path / "vault")!r}), {{2: Fault.killed_{fault}()}})
for key in "abc":
    store.upload(key, Path({str(local)!r}), size=20_000_000)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert [info.key for info in open_store(tmp_path / "vault").list("")] == seen


class Overwriting(FaultStore):
    """A store whose server ignores the condition of a create, as some do."""

    def create(self, key: str, data: bytes) -> None:
        self.inner.write(key, data)


class Refusing(FaultStore):
    """A store whose server doesn't know conditional writes."""

    def create(self, key: str, data: bytes) -> None:
        raise StoreError("create", key, "the server doesn't implement this")


@pytest.mark.parametrize("kind", [Overwriting, Refusing])
def test_the_probe_finds_out(folder: Store, kind: type[FaultStore]) -> None:
    """A store that overwrites on create, or refuses it, is found out whatever it says of itself."""
    store = kind(folder)
    assert store.supports_create
    assert not probe_create(store)
    assert not store.supports_create
    assert list(folder.list("")) == []


def test_a_probe_that_cannot_write_tells_nothing(folder: Store) -> None:
    """Where the store can't be reached the probe raises, and the promise stays as it was."""
    store = FaultStore(folder, lambda operation: Fault.refused())
    with pytest.raises(StoreUnavailableError):
        probe_create(store)
    assert store.supports_create
