"""The faults: what each does while it lasts. ``LAYERS`` says which there are in each place.

wrapper   a store around the store, in a vault on a folder
proxy     a TCP server between the training and a real S3 server
server    the real S3 server itself
machine   the machine that trains
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.faults.proxy import Act, FaultProxy, Plan
from tests.fuse import mount, unmount
from vaultlayer_hf.errors import StoreDeniedError, StoreFullError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing import faults
from vaultlayer_hf.testing.faults import FaultStore, Operation
from vaultlayer_hf.vault.log import log

_MS_REMOUNT, _MS_RDONLY, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 1, 4096, 16384, 1 << 18
_CLONE_NEWNS = 0x00020000
_START_SECONDS = 1.5
"""How long a fault around a start lasts."""
NOTHING = "nothing"
"""Begins the kind of a fault that is prepared as others of its layer, which are compared with it, and never begins."""
HOST = "store.faults.test"
"""The name of the server where names can fail."""


class Fault:
    """One kind of fault, in one process.

    Args:
        name: as in ``LAYERS``, such as ``proxy/reset``.
        place: a folder for what it needs.
        note: writes a line into the run's journal.
    """

    def __init__(self, name: str, place: Path, note: Callable[..., None]) -> None:
        self.name, self.place, self.note = name, place, note
        self.kind = name.partition("/")[2]
        self.begins = not self.kind.startswith(NOTHING)

    def prepare(self) -> None:
        """Before the training is made."""

    def store(self, vault: str) -> Store | None:
        """Return the store to use for a vault; None: the one that its URI names."""

    def begin(self) -> None:
        """It begins."""

    def begin_for_a_start(self) -> None:
        """It begins, and is over in a second or two, whatever the start has come to."""
        self.begin()
        timer = threading.Timer(_START_SECONDS, self.end)
        timer.daemon = True
        timer.start()

    def end(self) -> None:
        """It is over. May be called twice."""

    def close(self) -> None:
        """At the end of the training."""


class WrapperFault(Fault):
    """A store around the store: errors and waits in the place of the store's own answers."""

    active = False

    def store(self, vault: str) -> Store:
        return _Lying(open_store(vault), self)

    def begin(self) -> None:
        self.active = True

    def end(self) -> None:
        self.active = False

    def plan(self, operation: Operation) -> faults.Fault | None:
        """Return what is done to an operation while the fault lasts."""
        kind = self.kind if self.kind != "mixture" else _CHANCE.choice([*_WRAPPED, "", "", "", ""])
        return _WRAPPED[kind](self, operation) if self.active and kind in _WRAPPED else None

    def wait(self, _: Operation) -> None:
        """Wait until it is over."""
        while self.active:
            time.sleep(0.02)


_CHANCE = random.Random(5)
_WRITES = ("create", "write", "upload", "copy", "delete")


def _raising(make: Callable[[Operation], Exception]) -> Callable[[WrapperFault, Operation], faults.Fault]:
    return lambda _, operation: faults.Fault.refused(make(operation))


def _lost(_: WrapperFault, operation: Operation) -> faults.Fault | None:
    return faults.Fault.lost_answer() if operation.name in _WRITES else None


_WRAPPED: dict[str, Callable[[WrapperFault, Operation], faults.Fault | None]] = {
    "latency": lambda _, __: faults.Fault(before=lambda _: time.sleep(0.1)),
    "unavailable": lambda _, __: faults.Fault.refused(),
    "lost answers": _lost,
    "slow link": lambda _, __: faults.Fault(during=lambda _: time.sleep(0.2)),
    "hang": lambda fault, _: faults.Fault(before=fault.wait),
    "expired credentials": _raising(
        lambda op: StoreDeniedError(op.name, op.key, "the credentials have expired")
    ),
    "full": _raising(lambda op: StoreFullError(op.name, op.key, "the store is full")),
}


class _Lying(FaultStore):
    """Fails as planned, and where bits flip or ends are missing it gives other bytes than were put there."""

    def __init__(self, inner: Store, fault: WrapperFault) -> None:
        super().__init__(inner, fault.plan)
        self._fault = fault

    def read(self, key: str, *, limit: int) -> bytes:
        return bytes(self._changed(super().read(key, limit=limit)))

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        return memoryview(self._changed(bytes(super().read_range(key, start, length))))

    def _changed(self, data: bytes) -> bytes:
        if not self._fault.active or not data:
            return data
        at = len(data) // 2
        if self._fault.kind == "bit flips":
            return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        return data[:at] if self._fault.kind == "truncation" else data


def _answers(status: int, code: str, *headers: tuple[str, str]) -> Plan:
    return lambda method, path: Act("answer", status=status, code=code, headers=headers)


def _of_writes(act: Act) -> Plan:
    return lambda method, path: act if method in ("PUT", "POST", "DELETE") else None


_PROXIED: dict[str, Plan] = {
    "latency": lambda method, path: Act("late", 0.1),
    "resets": lambda method, path: Act("reset"),
    "lost answers": _of_writes(Act("lost")),
    "503": _answers(503, "ServiceUnavailable", ("retry-after", "1")),
    "429 with Retry-After": _answers(429, "SlowDown", ("retry-after", "1")),
    "slow link": lambda method, path: Act("slow", rate=2e6),
    "hang": lambda method, path: Act("hang"),
    "expired credentials": _answers(403, "ExpiredToken"),
    "server's clock off by a day": _answers(403, "RequestTimeTooSkewed"),
    "full": _answers(507, "InsufficientStorage"),
    "bit flips": lambda method, path: Act("flip"),
    "truncation": lambda method, path: Act("cut"),
}


def _mixture(method: str, path: str) -> Act | None:
    if _CHANCE.random() < 0.6:
        return None
    return _PROXIED[_CHANCE.choice([kind for kind in _PROXIED if kind != "hang"])](method, path)


class ProxyFault(Fault):
    """A TCP server between the training and the S3 server that the AWS_* variables name."""

    def prepare(self) -> None:
        self.proxy = FaultProxy(os.environ["AWS_ENDPOINT_URL"])
        os.environ["AWS_ENDPOINT_URL"] = self.proxy.endpoint

    def begin(self) -> None:
        self.proxy.begin(_mixture if self.kind == "mixture" else _PROXIED[self.kind])

    def end(self) -> None:
        self.proxy.end()

    def close(self) -> None:
        self.note(meddled=self.proxy.done)


class NameFault(ProxyFault):
    """The server's name can't be looked up. In this process only: it gets an ``/etc/hosts`` of its own."""

    def prepare(self) -> None:
        super().prepare()
        self._hosts = self.place / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost {HOST}\n")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "no mount namespace of one's own can be made here")
        mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)
        mount(str(self._hosts), Path("/etc/hosts"), "", _MS_BIND)
        os.environ["AWS_ENDPOINT_URL"] = f"http://{HOST}:{urlsplit(self.proxy.endpoint).port}"

    def begin(self) -> None:
        self._hosts.write_text("127.0.0.1 localhost\n")
        self.proxy.reset_all()

    def end(self) -> None:
        self._hosts.write_text(f"127.0.0.1 localhost {HOST}\n")


class ServerFault(Fault):
    """The server is killed, or frozen: whoever started it sees this in the journal and does it."""

    def begin(self) -> None:
        self.note(server=self.kind)
        self._wait("down")

    def end(self) -> None:
        if (self.place / "down").exists():
            self.note(server="up")
            self._wait("up")

    def _wait(self, sign: str) -> None:
        deadline = time.monotonic() + 60
        while not (self.place / sign).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


class OpenFiles(Fault):
    """No file can be opened any more."""

    def begin(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), self._before[1]))

    def end(self) -> None:
        if hasattr(self, "_before"):
            resource.setrlimit(resource.RLIMIT_NOFILE, self._before)


class Clock(Fault):
    """This machine's clock, as far as the program asks for it, jumps by a day; back again when it is over."""

    def prepare(self) -> None:
        self._real = time.time, log.now

    def begin(self) -> None:
        seconds = 86400.0 if self.kind.endswith("ahead") else -86400.0
        real = self._real[0]
        time.time = lambda: real() + seconds
        log.now = lambda: (log.datetime.now(log.UTC) + timedelta(seconds=seconds)).isoformat()

    def end(self) -> None:
        time.time, log.now = self._real


class Disk(Fault):
    """The file system below a folder, a small one in memory, is full, or can only be read."""

    def prepare(self) -> None:
        self._output = self.place / "disk" / "output"
        self._output.mkdir(exist_ok=True)

    def begin(self) -> None:
        if self.kind.startswith("read-only"):
            # Mounted over itself: a file system with a file that is open for writing, as the lock is, stays writable.
            mount(str(self._output), self._output, "", _MS_BIND)
            mount("none", self._output, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
            return
        free = os.statvfs(self.place / "disk")
        with open(self.place / "disk" / "ballast", "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - 2**18))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def end(self) -> None:
        if self.kind.startswith("read-only"):
            unmount(self._output)
        else:
            (self.place / "disk" / "ballast").unlink(missing_ok=True)


LAYERS: dict[str, tuple[type[Fault], tuple[str, ...]]] = {
    "wrapper": (WrapperFault, (*_WRAPPED, "bit flips", "truncation", "mixture")),
    "proxy": (ProxyFault, (*_PROXIED, "mixture")),
    "name": (NameFault, ("not found",)),
    "server": (ServerFault, ("killed", "frozen")),
    "disk": (Disk, ("full output folder", "read-only output folder", "full vault")),
    "machine": (OpenFiles, ("too many open files",)),
    "clock": (Clock, ("a day ahead", "a day behind")),
}
"""By layer: the class of its faults, and their kinds."""
NEEDS_ROOT = ("name", "disk")


def every_fault() -> list[str]:
    """Return the names of all faults, ``layer/kind``."""
    return [f"{layer}/{kind}" for layer, (_, kinds) in LAYERS.items() for kind in kinds]


def fault_named(name: str, place: Path, note: Callable[..., Any]) -> Fault:
    """Return the fault of a name."""
    return LAYERS[name.partition("/")[0]][0](name, place, note)


def clear_up(name: str, place: Path) -> None:
    """End a fault whose process was killed, where it outlives that."""
    if name.startswith("disk/"):
        fault = fault_named(name, place, lambda **_: None)
        fault.prepare()
        fault.end()


def small_disk(folder: Path, size: str) -> None:
    """Mount a file system of ``size`` in memory. Raises OSError."""
    folder.mkdir()
    mount("tmpfs", folder, "tmpfs", 0, f"size={size}")


def unmount_disk(folder: Path) -> None:
    """Take it away."""
    unmount(folder)
