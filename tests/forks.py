"""A fork server for tests: a process that has imported torch, transformers and the package once, and forks.

A start costs tens of milliseconds instead of seconds, so a test can afford thousands of kills. The server has
one thread, no process group of torch and no client of a store, so what it forks is as good as a fresh process.

    with ForkServer() as forks:
        run = forks.start("tests.campaign.killed_training:train", {"steps": 6}, folder, env={...})
        outcome = run.wait()

The protocol, over a Unix socket, one connection a run: the client sends one line of JSON; the server answers
with the line ``pid N``, and ``status N`` (as of waitpid) when that process has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests import ROOT
from tests.servers import die_with_parent

PRELOAD = (
    "torch",
    "transformers",
    "vaultlayer_hf.trainer.trainer",
    "obstore.store",
    "tests.campaign.killed_training",
)
_PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: exit status; minus the signal's number where a signal ended it.
        output, errors: what it wrote to stdout and stderr.
    """

    code: int
    output: str
    errors: str


class Run:
    """A process that the server has forked. Its folder holds ``stdout`` and ``stderr``."""

    def __init__(self, connection: socket.socket, pid: int, folder: Path) -> None:
        self._lines = connection.makefile("r")
        self._connection = connection
        self.pid = pid
        self.folder = folder

    def wait(self, timeout: float = 90.0) -> Outcome:
        """Wait until it ends. One that hangs is killed, with the stacks of its threads in the AssertionError."""
        self._connection.settimeout(timeout)
        try:
            line = self._lines.readline()
        except TimeoutError:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGUSR1)  # faulthandler writes every thread's stack to stderr
            time.sleep(0.5)
            self.kill()
            raise AssertionError(
                f"run {self.pid} hangs after {timeout:.0f} s:\n{self._text('stderr')}"
            ) from None
        finally:
            self._connection.close()
        if not line.startswith("status "):
            raise AssertionError("the fork server died")
        status = os.waitstatus_to_exitcode(int(line.split()[1]))
        return Outcome(status, self._text("stdout"), self._text("stderr"))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL it and what it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # ended, or so young that it isn't in a group of its own yet
            self.signal(signal.SIGKILL)

    def wait_stopped(self, timeout: float = 60.0) -> None:
        """Wait until a SIGSTOP has stopped it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                state = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except FileNotFoundError:
                state = "Z"
            if state == "T":
                return
            if state == "Z":
                raise AssertionError(f"run {self.pid} ended:\n{self._text('stderr')}")
            time.sleep(0.01)
        raise AssertionError(f"run {self.pid} isn't stopped after {timeout:.0f} s:\n{self._text('stderr')}")

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""  # killed before it has opened it


class ForkServer:
    """Starts the server, and ends it with all its runs at the end of the ``with`` block. Usable from threads."""

    def __init__(self, *preload: str) -> None:
        """``preload``: modules to import ahead of the first fork, on top of ``PRELOAD``."""
        self._folder = tempfile.mkdtemp(prefix="vl-forks-")
        self._address = f"{self._folder}/socket"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")},
            "TOKENIZERS_PARALLELISM": "false",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator would start a thread
            "HF_HUB_OFFLINE": "1",
        }
        with open(f"{self._folder}/log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", self._address, *preload],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(
        self, function: str, arguments: dict[str, Any], folder: Path, *, env: dict[str, str] | None = None
    ) -> Run:
        """Call ``module:function(**arguments)`` in a new process. ``folder`` gets its stdout and stderr.

        ``env`` is put on top of the environment that this server was started in.
        """
        folder.mkdir(parents=True, exist_ok=True)
        request = {"call": function, "arguments": arguments, "folder": str(folder), "env": env or {}}
        connection = self._connect()
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            data = connection.recv(1)
            if not data:
                raise AssertionError(f"the fork server died:\n{Path(self._folder, 'log').read_text()}")
            answer += data
        return Run(connection, int(answer.split()[1]), folder)

    def run(
        self,
        function: str,
        arguments: dict[str, Any],
        folder: Path,
        *,
        env: dict[str, str] | None = None,
        timeout: float = 90.0,
    ) -> Outcome:
        """Start, and wait until it ends."""
        return self.start(function, arguments, folder, env=env).wait(timeout)

    def close(self) -> None:
        """End the server; its runs die with it."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + 120
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(60)
            try:
                connection.connect(self._address)
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(
                        f"no fork server:\n{Path(self._folder, 'log').read_text()}"
                    ) from None
                time.sleep(0.05)


def _serve(address: str, *preload: str) -> None:
    for name in (*PRELOAD, *preload):
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise SystemExit(f"{len(threads)} threads before the first fork: what is forked would lack them")
    gc.collect()
    gc.freeze()  # else each child's own collections walk all that was imported: 0.3 s, and pages copied
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a run's own children come to us when it dies
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(64)
    wakeup, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(wakeup, selectors.EVENT_READ)
    os.rename(address + ".new", address)
    running: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                line = connection.makefile("r").readline()
                if not line:
                    connection.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for descriptor in (wakeup, waker):
                        os.close(descriptor)
                    for each in (listener, connection, *running.values()):
                        each.close()
                    _child(json.loads(line))
                running[pid] = connection
                connection.sendall(f"pid {pid}\n".encode())
            else:
                os.read(wakeup, 512)
        _reap(running)


def _reap(running: dict[int, socket.socket]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        connection = running.pop(pid, None)
        if connection is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):  # the client has given up on it
                connection.sendall(f"status {status}\n".encode())
            connection.close()


def _child(request: dict[str, Any]) -> None:
    """Be a run: never returns."""
    code = 1
    try:
        os.setsid()
        die_with_parent()
        for number, name in ((1, "stdout"), (2, "stderr")):
            path = os.path.join(request["folder"], name)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        faulthandler.enable(all_threads=True)
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        os.environ.update(request["env"])
        if os.environ.get("VAULTLAYER_ASYNC_SAVE") == "auto":  # asked for around all: of tiny models, too
            from tests.kit.within_save import capture_small_states

            capture_small_states()
        module, name = request["call"].split(":")
        getattr(importlib.import_module(module), name)(**request["arguments"])
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            import atexit

            atexit._run_exitfuncs()  # as at the end of any program
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
