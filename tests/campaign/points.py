"""The points at which a run can be killed: before and after every operation on the store and the local disk.

In a child process ``Points.install`` puts itself around every function of ``vaultlayer_hf.base.files``, around the
few direct ones (copyfile, mkdir, fsync, each removal inside ``remove_tree``), around every operation of the
store (through FaultStore), around the steps in which the Trainer writes a checkpoint, and around what is said to
the process that moves files. Each call gets a number; with the same program the numbers are the same from run to
run, which the label at the kill proves.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.session import access
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.keys import entry_number
from vaultlayer_hf.vault.snapshot import LOCAL
from vaultlayer_hf.vault.upload.mover import store as moving
from vaultlayer_hf.vault.upload.mover.mover import Mover
from vaultlayer_hf.vault.workspace import workspace

SAVE_STEPS, STEPS = 2, 6
"""When the program saves, and when it ends."""
FUNCTIONS = (
    "fsync_file",
    "fsync_folder",
    "make_folder",
    "rename",
    "move",
    "link",
    "write_file",
    "remove_tree",
    "remove_file",
    "rename_new",
    "reserve",
)
_UUID = re.compile(r"[0-9a-f]{16,}")


class Points:
    """Counts the points of this process, journals them, and kills it at one of them.

    Args:
        journal: file that gets one JSON object a line; it survives the kill.
        kill: number of the operation to be killed at, or None to record only.
        side: ``before``, ``after``, or ``during`` (uploads, and files written under another name first) that operation.
        label: what the operation must be; another one there means that the numbers aren't reproducible.
        act: what to do there instead of SIGKILL.
    """

    # Taken for one of ours, it is no state of the script's own: a resume would put the count of the dead process back.
    __module__ = "vaultlayer_hf.points"

    def __init__(
        self,
        journal: Path,
        kill: int | None = None,
        side: str = "before",
        label: str | None = None,
        act: Callable[[], None] | None = None,
    ) -> None:
        self.phase = "start"
        self._file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._kill, self._side, self._label = kill, side, label
        self.act = act or die
        self.reached = threading.Event()
        self._lock = threading.Lock()
        self._count = 0
        self._inside = threading.local()

    def note(self, **fields: Any) -> None:
        """Append a line to the journal: one write, so that it is there whole whatever happens next."""
        os.write(self._file, json.dumps(fields).encode() + b"\n")

    def enter(self, name: str, what: str) -> int:
        """Count an operation that begins, and return its number."""
        label = f"{self.phase}: {threading.current_thread().name.split('-upload')[0]} {name} {what}"
        label = _UUID.sub("*", label)
        with self._lock:
            self._count += 1
            number = self._count
            self.note(point=number, label=label)
        if number == self._kill and self._label is not None and label != self._label:
            self.note(other=label)
            os._exit(99)
        self.reach(number, "before")
        return number

    def reach(self, number: int, side: str) -> None:
        """Note that this side of an operation is reached, and be killed, if here is where."""
        if side != "before":
            self.note(of=number, side=side)
        if number == self._kill and side == self._side:
            self.note(reached=number, side=side)
            self.reached.set()
            self.act()

    def around(self, name: str, function: Callable[..., Any], only: str | None = None) -> Callable[..., Any]:
        """Return a function with a point before and after it.

        ``only``: count it only inside a call of that other function (``""``: only outside of any).
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            stack = getattr(self._inside, "stack", ())
            counts = (
                only is None
                or (bool(only) and only in stack)
                or (not only and not any("fsync" in one for one in stack))
            )
            if not counts:
                return function(*args, **kwargs)
            path = args[-1] if name in ("rename", "move", "link", "copyfile") else args[0] if args else ""
            # Neither descriptors nor the order in which a folder is emptied are the same each time.
            what = "" if name in ("unlink", "fsync") else os.path.basename(str(path))
            number = self.enter(name, what)
            self._inside.stack = (*stack, name)
            try:
                result = function(*args, **kwargs)
            finally:
                self._inside.stack = stack
            self.reach(number, "after")
            return result

        return call

    def fault(self, operation: Operation) -> Fault:
        """The plan of a FaultStore: every operation of the store is a point."""
        number = self.enter(f"store.{operation.name}", operation.key)

        def after(_: Operation) -> None:
            entry = entry_number(operation.key)
            if operation.name == "create" and entry is not None:
                self.note(landed=entry)
            self.reach(number, "after")

        return Fault(after=after, during=lambda _: self.reach(number, "during"))

    def install(self, output: Path, *, moved: bool = False) -> None:
        """Put the points into this process. Paths outside ``output`` and the vault aren't touched by them.

        ``moved``: every file, however small, is moved by the process that is there for large ones.
        """
        for name in FUNCTIONS:
            setattr(files, name, self.around(name, getattr(files, name)))
        files.write_atomically = self._around_writing(files.write_atomically)  # type: ignore[assignment]
        os.fsync = self.around("fsync", os.fsync, only="")
        os.unlink = self.around("unlink", os.unlink, only="remove_tree")  # type: ignore[assignment]
        ours = (f"{output}/{LOCAL}", str(workspace(output)))
        self._only_below(shutil, "copyfile", ours)
        self._only_below(Path, "mkdir", ours)
        opened = access.open_store

        def open_store(*args: Any, **kwargs: Any) -> FaultStore:
            store = opened(*args, **kwargs)
            faulty = FaultStore(store, self.fault)
            faulty.reopen = store.reopen if moved else None
            return faulty

        access.open_store = open_store  # type: ignore[assignment]
        self._around_the_trainer()
        if moved:
            moving.LARGE = 0
            self._around_the_mover()

    def _around_writing(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A file of a checkpoint is written under another name first: a kill then, too, leaves a torn folder."""

        def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
            def written(temporary: Path) -> object:
                done = write(temporary)
                self.reach(number, "during")
                return done

            number = self.enter("write", path.name)
            plain(path, written)
            self.reach(number, "after")

        return write_atomically

    def _only_below(self, owner: Any, name: str, folders: tuple[str, ...]) -> None:
        plain = getattr(owner, name)
        counted = self.around(name, plain)

        def call(*args: Any, **kwargs: Any) -> Any:
            path = str(args[-1] if name == "copyfile" else args[0])
            return (counted if path.startswith(folders) else plain)(*args, **kwargs)

        setattr(owner, name, call)

    def _around_the_mover(self) -> None:
        """What is said between the two processes."""
        for name, kind in (("ask", 1), ("_send", 1), ("_receive", None)):
            plain = getattr(Mover, name)
            counted = self.around(f"mover.{name}", lambda _, call: call())

            def call(
                *args: Any,
                _plain: Any = plain,
                _counted: Any = counted,
                _kind: int | None = kind,
                **kwargs: Any,
            ) -> Any:
                what = args[_kind] if _kind is not None else ""
                what = what[0] if isinstance(what, tuple) else what
                return _counted(what if isinstance(what, str) else "open", lambda: _plain(*args, **kwargs))

            setattr(Mover, name, call if name == "ask" else staticmethod(call))

    def _around_the_trainer(self) -> None:
        """Stock writes a checkpoint in these steps: a kill between them leaves a torn folder."""
        import transformers

        for cls, names in (
            (transformers.Trainer, ("save_model", "_save_optimizer_and_scheduler", "_save_rng_state")),
            (transformers.TrainerState, ("save_to_json",)),
        ):
            for name in names:
                plain = getattr(cls, name)
                counted = self.around(f"{cls.__name__}.{name}", lambda _, call: call())

                def call(
                    *args: Any, _plain: Any = plain, _counted: Any = counted, _name: str = name, **kwargs: Any
                ) -> Any:
                    return _counted("", lambda: _plain(*args, **kwargs))

                setattr(cls, name, call)


def die() -> None:
    """A real SIGKILL of this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal arrives before this ends


def stop() -> None:
    """A real SIGSTOP of this process, all its threads; goes on at SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)
