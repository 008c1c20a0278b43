"""One run at a time in an ``output_dir``: two would write into each other's checkpoint folders, and commit a mixture.

A lock on a file beside it (``lock`` in the folder that vault/workspace.py names) by flock(2), from the claim to the end
of training: the system lets go of it when the process dies, however it dies. One rank of each file system holds it. Who
lets go of it removes the file, while holding it: who gets a lock looks whether it is still on the file that is there. A
file system without such locks, or a system without flock, is used without: that is said, and training goes on.

A process of the *same* vault may still live there: one that a launcher has just told to end, or that hangs. It never
keeps the next start of its run away, since the claim fences it: it is waited for, for a bounded time, and then left
alone. It commits nothing any more, and stops when it learns so, at its next upload.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vaultlayer_hf.base import files, locks
from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.base.forks import forget_in_children
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.vault.workspace import leave_workspace, workspace

_NAME = "lock"
_READ_SECONDS = 1.0
"""How long a lock without a readable holder is looked at again: whoever has just taken it writes its name next."""
LAST_HOLDER_SECONDS = 15.0
"""How long a process of the same vault is waited for: about what one takes that a launcher has told to end."""
_LOOK_SECONDS = 0.1
_LIMIT_BYTES = 65536


@dataclass(frozen=True)
class LockHolder:
    """Who holds a lock.

    Attributes:
        vault: URI of its vault.
        host: name of its host.
        pid: of the process.
        since: when it took the lock, for people.
    """

    vault: str
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.vault} (process {self.pid} on {self.host}, since {self.since})"


class OutputLock:
    """The lock of one run's ``output_dir``.

    Args:
        output_dir: what is locked.
        vault: URI of the run's vault.
        events: where to say what keeps it from being locked.
    """

    def __init__(self, output_dir: Path, vault: str, events: Events) -> None:
        self._output_dir, self._vault, self._events = output_dir, vault, events
        self._path = workspace(output_dir) / _NAME
        self._file: int | None = None
        self.held = False
        # DataLoader's workers and the like would hold the lock of a process that was killed.
        forget_in_children(self.forget)

    def acquire(self) -> None:
        """Take the lock, unless a process of the same vault has it. Raises SettingsError where another run has it."""
        if os.name != "posix" or self.held or not self._open():
            return
        deadline = time.monotonic() + _READ_SECONDS
        while not self._try():
            if self._file is None:
                return
            holder = self._read()
            if holder is not None and holder.vault == self._vault:
                return
            if time.monotonic() > deadline:
                self.release()
                who = str(holder) if holder is not None else "a process that has left no name"
                raise SettingsError(
                    f"{self._output_dir} is in use by another run, {who}, and this one's vault is {self._vault}: two "
                    "runs in one folder would write into each other's checkpoints. Give each an output_dir of its own, "
                    "or end the other one first"
                )
            time.sleep(_LOOK_SECONDS)

    def wait_for_last_holder(self) -> None:
        """Give a process of the same vault, which is fenced now, time to end; then go on beside it."""
        if self.held or self._file is None:
            return
        holder = self._read()
        if holder is not None and (holder.host, holder.pid) == (platform.node(), os.getpid()):
            return  # an earlier training of this very process, such as of a notebook's cell that is run again
        who = f", process {holder.pid} on {holder.host}, since {holder.since}," if holder is not None else ""
        self._events.warn(
            EventKind.NOTICE,
            f"another process of this run{who} still uses {self._output_dir}: it has lost the vault to this one and "
            f"will end; this one waits up to {LAST_HOLDER_SECONDS:.0f} s for that",
        )
        deadline = time.monotonic() + LAST_HOLDER_SECONDS
        while time.monotonic() < deadline and self._file is not None:
            if self._try():
                return
            time.sleep(_LOOK_SECONDS)
        self._events.warn(
            EventKind.NOTICE,
            f"{who} hasn't ended: this run goes on beside it. What it still writes to {self._output_dir} counts for "
            "nothing, but end it if you can",
        )

    def retry(self) -> None:
        """Take the lock once the process of the same vault that had it has ended. Never waits."""
        if not self.held and self._file is not None:
            self._try()

    def release(self) -> None:
        """Let go of the lock. Safe to call twice."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self.held:
                # Whoever waits with this file open is to read no name of a holder that is gone.
                os.ftruncate(file, 0)
                if _is_at(file, self._path):
                    files.remove_file(self._path)
        except OSError:
            pass  # a file that stays says nothing where the lock is free
        self.held = False
        os.close(file)
        leave_workspace(self._output_dir)

    def forget(self) -> None:
        """In a forked child: close its copy. The lock stays the parent's, and ends with it, not with its children."""
        file, self._file, self.held = self._file, None, False
        if file is not None:
            os.close(file)

    def _open(self) -> bool:
        if self._file is not None:
            return True
        for last in (False, False, True):
            try:
                files.make_folder(self._path.parent)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
                break
            except FileNotFoundError as error:  # who has let go of it has just removed the folder
                if last:
                    self._warn(error)
                    return False
            except OSError as error:
                self._warn(error)
                return False
        return True

    def _try(self) -> bool:
        """Take the lock if it is free; a file system that has no locks leaves no open file behind."""
        assert self._file is not None
        try:
            self.held = locks.try_lock(self._file)
        except OSError as error:
            self.release()
            self._warn(error)
        if not self.held or self._file is None:
            return False
        if not _is_at(self._file, self._path):
            # Its last holder has removed it: the next one is at the new file.
            self.forget()
            return self._open() and self._try()
        holder = LockHolder(self._vault, platform.node(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(asdict(holder)).encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds without a name
        return True

    def _read(self) -> LockHolder | None:
        assert self._file is not None
        try:
            found = json.loads(os.pread(self._file, _LIMIT_BYTES, 0))
            return LockHolder(str(found["vault"]), str(found["host"]), int(found["pid"]), str(found["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _warn(self, error: OSError) -> None:
        self._events.warn_once(
            "lock",
            EventKind.NOTICE,
            f"{self._output_dir} can't be locked ({error}): make sure that no other run uses it",
        )


def _is_at(file: int, path: Path) -> bool:
    """Tell whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False
