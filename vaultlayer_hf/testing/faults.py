"""FaultStore: a store around a store that numbers every operation and fails where it is told to.

Record first, then place a fault at each number in turn:

    recorder = FaultStore(open_store(uri))
    save(recorder)
    for operation in recorder.operations:
        save(FaultStore(open_store(fresh_uri), {operation.number: Fault.lost_answer()}))

A fault acts before the call (nothing happened), after it (it happened, and the caller doesn't know), or while
an upload is under way. It raises an error, or calls any function: wait, hang, kill the process.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vaultlayer_hf.errors import StoreUnavailableError
from vaultlayer_hf.stores.base import ObjectInfo, Pace, Store, WrappedStore

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a store's method.

    Attributes:
        number: from 1, in the order of the calls. Threads make that order differ from run to run.
        name: of the method, such as ``"create"``.
        key: the object's key; the prefix for ``list``, the target for ``copy``. ``delete`` is one operation
            for each key.
    """

    number: int
    name: str
    key: str


_Operations = list[Operation]  # inside a class that has a method `list`, the name means that one
Action = Callable[[Operation], None]
"""What a fault does. It may raise, wait, or never return."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at one operation.

    Attributes:
        before: called before the operation.
        after: called after the operation has landed, and before its caller gets to know.
        during: called by an upload before each chunk but the first; by the first where there is only one.
    """

    before: Action | None = None
    after: Action | None = None
    during: Action | None = None

    @classmethod
    def refused(cls, error: Exception | None = None) -> Fault:
        """The operation raises ``error`` (StoreUnavailableError by default), and nothing has happened."""
        return cls(before=partial(_raise, error, "injected: refused"))

    @classmethod
    def lost_answer(cls, error: Exception | None = None) -> Fault:
        """The operation happens, and raises ``error`` (StoreUnavailableError by default) nevertheless."""
        return cls(after=partial(_raise, error, "injected: the answer was lost"))

    @classmethod
    def held(cls, until: threading.Event) -> Fault:
        """The operation hangs until an event is set, then happens."""

        def wait(_: Operation) -> None:
            until.wait()

        return cls(before=wait)

    @classmethod
    def killed_before(cls) -> Fault:
        """SIGKILL of this process before the operation."""
        return cls(before=_kill)

    @classmethod
    def killed_after(cls) -> Fault:
        """SIGKILL of this process after the operation has landed."""
        return cls(after=_kill)

    @classmethod
    def killed_during(cls) -> Fault:
        """SIGKILL of this process in the middle of an upload."""
        return cls(during=_kill)


Plan = Mapping[int, Fault] | Callable[[Operation], Fault | None]
"""Which operation fails, and how: by number, or by a function that looks at the operation."""


class FaultStore(WrappedStore):
    """A store that fails as planned.

    Args:
        inner: the store to use.
        plan: which operations fail; none by default, which only records.

    Attributes:
        operations: every operation so far, in order, with those that failed.
    """

    def __init__(self, inner: Store, plan: Plan | None = None) -> None:
        super().__init__(inner)
        self.plan: Plan = {} if plan is None else plan
        self.operations: _Operations = []
        self._lock = threading.Lock()

    def read(self, key: str, *, limit: int) -> bytes:
        return self._run("read", key, lambda: self.inner.read(key, limit=limit))

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        return self._run("read_range", key, lambda: self.inner.read_range(key, start, length))

    def head(self, key: str) -> ObjectInfo:
        return self._run("head", key, lambda: self.inner.head(key))

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        yield from self._run("list", prefix, lambda: list(self.inner.list(prefix, after=after)))

    def create(self, key: str, data: bytes) -> None:
        self._run("create", key, lambda: self.inner.create(key, data))

    def write(self, key: str, data: bytes) -> None:
        self._run("write", key, lambda: self.inner.write(key, data))

    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        operation, fault = self._begin("upload", key)
        if fault.during is not None:
            pace = _Meddling(partial(fault.during, operation), pace, size)
        return self._finish(operation, fault, lambda: self.inner.upload(key, source, size=size, pace=pace))

    def copy(self, source: str, target: str) -> ObjectInfo:
        return self._run("copy", target, lambda: self.inner.copy(source, target))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._run("delete", key, partial(self.inner.delete, [key]))

    def _run(self, name: str, key: str, function: Callable[[], _T]) -> _T:
        operation, fault = self._begin(name, key)
        return self._finish(operation, fault, function)

    def _begin(self, name: str, key: str) -> tuple[Operation, Fault]:
        with self._lock:
            operation = Operation(len(self.operations) + 1, name, key)
            self.operations.append(operation)
        plan = self.plan
        fault = plan(operation) if callable(plan) else plan.get(operation.number)
        return operation, fault or Fault()

    @staticmethod
    def _finish(operation: Operation, fault: Fault, function: Callable[[], _T]) -> _T:
        if fault.before is not None:
            fault.before(operation)
        result = function()
        if fault.after is not None:
            fault.after(operation)
        return result


class _Meddling:
    """A pace that acts in the middle of an upload."""

    def __init__(self, act: Callable[[], None], pace: Pace | None, size: int) -> None:
        self._act, self._pace, self._size, self._seen = act, pace, size, 0

    def __call__(self, count: int) -> None:
        if self._pace is not None:
            self._pace(count)
        if self._seen or count >= self._size:
            self._act()
        self._seen += count


def _raise(error: Exception | None, reason: str, operation: Operation) -> None:
    raise error or StoreUnavailableError(operation.name, operation.key, reason)


def _kill(_: Operation) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal arrives before this ends
