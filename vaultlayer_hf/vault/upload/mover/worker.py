"""What runs in the process that moves large files: see mover.py, which starts it and speaks with it.

It has nothing of its own: it reads snapshots and puts objects where it is told to, and never touches the log, so
whatever becomes of it, only an orphan can be left. It ends with the training process: at once where the connection
is closed, else (a worker that was forked off has the other end, too) when it has another parent.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vaultlayer_hf.base.digest import digest_file
from vaultlayer_hf.errors import ObjectNotFoundError, StoreUnavailableError
from vaultlayer_hf.stores.base import Store

_LOOK = 1.0
"""Seconds between two looks at who the parent is, and between two signs of life."""


class _Stopped(Exception):  # noqa: N818  no error: the other side has given the file up
    """The file isn't wanted any more."""


class _Line:
    """The connection: what comes is read by a thread of its own, so that its end is noticed during work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self._inbox.put(self._connection.recv())
            except (EOFError, OSError):
                os._exit(0)

    def receive(self) -> Any:
        return self._inbox.get()

    def send(self, kind: str, value: Any = None) -> None:
        with self._sending:
            try:
                self._connection.send((kind, value))
            except OSError:
                os._exit(0)


class _Pace:
    """Asks the other side before bytes are moved: at intervals, and before the last ones, so that it can stop them."""

    def __init__(self, line: _Line, size: int, interval: float) -> None:
        self._line, self._size, self._interval = line, size, interval
        self._moved = self._unsaid = 0
        self._said = -interval

    def __call__(self, count: int) -> None:
        self._moved += count
        self._unsaid += count
        if self._moved < self._size and time.monotonic() - self._said < self._interval:
            return
        self._line.send("moves", self._unsaid)
        if self._line.receive() != "go":
            raise _Stopped
        self._unsaid, self._said = 0, time.monotonic()


def main(descriptor: int, parent: int, nice: int) -> None:
    """Serve the process ``parent`` at the other end of a connection until it ends."""
    if nice:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)  # before there are threads: they inherit it
    line = _Line(Connection(descriptor))
    threading.Thread(target=_look_out, args=(line, parent), daemon=True).start()
    reopen, interval = line.receive()
    worker = _Worker(line, reopen, interval)
    while True:
        request = line.receive()
        if request == "stop":  # for what was done before it came
            continue
        try:
            line.send("done", worker.do(*request))
        except _Stopped:
            line.send("stopped")
        except Exception as error:
            line.send("failed", _portable(error))


class _Worker:
    """Does what is asked for, with a store that it opens while the first file is read for its digest."""

    def __init__(self, line: _Line, reopen: Callable[[], Store], interval: float) -> None:
        self._line, self._reopen, self._interval = line, reopen, interval
        self._opening: Future[Store] | None = ThreadPoolExecutor(1).submit(reopen)
        self._store: Store | None = None

    def do(self, operation: str, arguments: tuple[Any, ...]) -> Any:
        if operation == "digest":
            path, size = arguments
            return digest_file(Path(path), _Pace(self._line, size, self._interval))
        store = self._opened(operation, arguments[0])
        if operation == "copy":
            return store.copy(*arguments)
        key, path, size = arguments
        return store.upload(key, Path(path), size=size, pace=_Pace(self._line, size, self._interval))

    def _opened(self, operation: str, key: str) -> Store:
        if self._store is None:
            opening, self._opening = self._opening, None
            try:
                self._store = opening.result() if opening else self._reopen()
            except ObjectNotFoundError as error:
                # The other side has had it open: a mount that is gone for now.
                raise StoreUnavailableError(operation, key, error.reason) from None
        return self._store


def _look_out(line: _Line, parent: int) -> None:
    while os.getppid() == parent:
        line.send("alive")
        time.sleep(_LOOK)
    os._exit(0)


def _portable(error: Exception) -> Exception:
    """Return an error that the other side can unpickle."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
