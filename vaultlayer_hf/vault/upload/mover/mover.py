"""The process that moves large files: it computes their digests and sends them, away from the training's GIL.

Measured (tests/benchmarks, part c): beside an upload at full speed training keeps 0.97 of its speed with a process
of low priority, and 0.85 to 0.97 with a thread of low priority, which makes the training thread wait for the GIL
some 15 times in a step of 130 ms.

What is decided stays with the upload thread: it asks for one file after the other, is told four times a second how
far it is, and says whether to go on (before each chunk where a bandwidth cap is set). The log, manifests and small
files are its own business. A file isn't complete before it has agreed to the last bytes, so nothing that was given
up becomes visible.

It is a Python of its own (without PYTHON* variables, with this one's sys.path), and no fork, which the object store's
client wouldn't survive, and none of multiprocessing's, which would import the user's script again. It gets no signals:
whoever ends a training with SIGTERM or Ctrl-C means the training, which may want to send its last checkpoint. It stays
in the session and group of the training: in a session of its own its low priority would count for nothing (autogroup).
Where the training's environment has changed, another one takes its place: credentials may be renewed there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from vaultlayer_hf.base.priority import LOWEST
from vaultlayer_hf.stores.base import Pace, Store

PRIORITY = LOWEST
"""The process's "nice" value."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from vaultlayer_hf.vault.upload.mover.worker import main; main(*map(int, sys.argv[2:]))"
)
_INTERVAL = 0.25  # seconds between two questions whether to go on
_SLICE = 0.2  # seconds of waiting for an answer after which the pace is asked whether to go on
_SILENCE = 300  # such waits without a sign of life, which comes each second, after which it counts as dead
_LAST_WORD = 5.0  # seconds that it has to notice that a file isn't wanted
DEATHS = 3  # after which no other one is started
_LET_THROUGH = "SEGV BUS FPE ILL ABRT TRAP SYS PIPE CHLD TSTP TTIN TTOU"
"""Signals of its own doing, and those that stop a whole job."""


def _others() -> set[signal.Signals]:
    kept = {getattr(signal, f"SIG{name}", None) for name in _LET_THROUGH.split()}
    return {one for one in signal.valid_signals() if one not in kept and isinstance(one, signal.Signals)}


class GoneError(Exception):
    """There is no process to do it; what it was asked for hasn't become visible."""


class Mover:
    """Has a process move files; starts it when it is first needed.

    Args:
        reopen: opens the store over there; picklable.
        exact: ask before each chunk whether to go on, where a pace is more than a counter.
        say: called with a sentence where the process is in trouble.
    """

    def __init__(self, reopen: Callable[[], Store], *, exact: bool, say: Callable[[str], None]) -> None:
        self._reopen = reopen
        self._interval = 0.0 if exact else _INTERVAL
        self._say = say
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._environment: dict[str, str] = {}
        self._deaths = 0
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether the process is there, so that to ask it costs nothing."""
        return self._connection is not None and self._owner == os.getpid()

    def ask(self, operation: str, arguments: tuple[Any, ...], size: int, pace: Pace | None) -> Any:
        """Have one file moved and return the answer; ``size`` is how many bytes ``pace`` will be told of.

        Raises GoneError, the operation's own errors, and what ``pace`` raises.
        """
        if self._owner != os.getpid():  # forked off: the process belongs to the parent
            raise GoneError
        pace = pace or (lambda count: None)
        while not self._lock.acquire(timeout=_SLICE):
            pace(0)
        try:
            connection = self._started()
            self._send(connection, (operation, arguments))
            return self._follow(connection, size, pace)
        except GoneError as error:
            self._mourn(error)
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process; a file under way is given up."""
        self._closed = True
        if self._owner != os.getpid():
            return
        while not self._lock.acquire(timeout=_SLICE):
            process = self._process
            if process is not None:
                process.kill()  # who waits for it learns so
        try:
            self._end()
        finally:
            self._lock.release()

    def _follow(self, connection: Connection, size: int, pace: Pace) -> Any:
        agreed = 0
        try:
            while True:
                kind, value = self._receive(connection, (lambda: None) if agreed >= size else lambda: pace(0))
                if kind == "done":
                    return value
                if kind == "moves":
                    pace(value)
                    agreed += value
                    self._send(connection, "go")
                elif kind == "failed":
                    break
        except GoneError:
            raise
        except BaseException:  # the pace's
            self._give_up(connection)
            raise
        raise value

    def _give_up(self, connection: Connection) -> None:
        """Have the process leave off, or end it where it doesn't in time."""
        waits = 0

        def wait() -> None:
            nonlocal waits
            waits += 1
            if waits * _SLICE > _LAST_WORD:
                raise GoneError

        try:
            self._send(connection, "stop")
            while self._receive(connection, wait)[0] not in ("done", "failed", "stopped"):
                pass
        except GoneError:
            self._end(kill=True)

    def _started(self) -> Connection:
        if self._connection is not None and self._environment == os.environ:
            return self._connection
        self._end()
        if self._closed or self._deaths >= DEATHS:
            raise GoneError
        ours, theirs = Pipe()
        self._environment = dict(os.environ)
        folders = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
        command = [sys.executable, "-E", "-P", "-c", _START, json.dumps(folders)]
        command += map(str, (theirs.fileno(), self._owner, PRIORITY))
        # What is blocked here is blocked there, from its first moment.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _others())
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=self._environment,
            )
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: at the end of the interpreter
            self._deaths = DEATHS
            ours.close()
            raise GoneError(f"it can't be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._connection = ours
        self._send(ours, (self._reopen, self._interval))
        return ours

    def _mourn(self, error: GoneError) -> None:
        """Clear away after the process, and say so once it is the process's own trouble."""
        process = self._process
        reason = str(error)
        if process is not None:
            self._end(kill=True)
            self._deaths += 1
            reason = reason or f"it ended with {process.returncode}"
        if reason and not self._closed:
            again = "" if self._deaths < DEATHS else ", and will from now on"
            self._say(f"the process that moves large files is gone ({reason}): a thread does its work{again}")

    def _end(self, *, kill: bool = False) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return
        if not kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORD)
        process.kill()
        process.wait()

    @staticmethod
    def _send(connection: Connection, message: object) -> None:
        try:
            connection.send(message)
        except OSError as error:
            raise GoneError from error

    @staticmethod
    def _receive(connection: Connection, meanwhile: Callable[[], None]) -> tuple[str, Any]:
        """Return what comes next; call ``meanwhile`` each time that nothing has come for a while."""
        silent = 0
        while True:
            try:
                if connection.poll(_SLICE):
                    kind, value = connection.recv()
                    if kind != "alive":
                        return kind, value
                    silent = 0
                    continue
            except (EOFError, OSError) as error:
                raise GoneError from error
            silent += 1
            if silent > _SILENCE:
                raise GoneError("it doesn't answer")
            meanwhile()
