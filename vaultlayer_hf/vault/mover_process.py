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
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vaultlayer_hf.digest import digest_file
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
    opening: Future[Store] | None = ThreadPoolExecutor(1).submit(
        reopen
    )  # while the first file is read for its digest
    store: Store | None = None
    while True:
        request = line.receive()
        if request == "stop":  # for what was done before it came
            continue
        try:
            operation, arguments = request
            if operation == "digest":
                path, size = arguments
                line.send("done", digest_file(Path(path), _Pace(line, size, interval)))
                continue
            if store is None:
                store, opening = (opening.result() if opening else reopen()), None
            if operation == "copy":
                line.send("done", store.copy(*arguments))
            else:
                key, path, size = arguments
                done = store.upload(key, Path(path), size=size, pace=_Pace(line, size, interval))
                line.send("done", done)
        except _Stopped:
            line.send("stopped")
        except Exception as error:
            line.send("failed", _portable(error))


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
