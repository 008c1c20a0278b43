"""Saves beside a training of tiny models, and deaths within them: for programs that are killed there.

capture_small_states()                        they are copied, and written from the copy, too
kill_within_save("renamed", "checkpoint-4")   SIGKILL of this process at a moment of that checkpoint's save
kill_in_turn("captured checkpoint-4,renamed checkpoint-8")   the first in the first process, the second in the next one
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.state.capture import copier, recorded
from vaultlayer_hf.state.capture.writing import FileWriter
from vaultlayer_hf.vault.snapshot import SEAL

MOMENTS = ("captured", "half written", "written", "renamed", "sealed")


def capture_small_states() -> None:
    """Have states of any size copied; training would wait for the files of small ones, and write some at once."""
    copier.SMALL = recorded.WRITTEN_AT_ONCE = 0


def kill_within_save(moment: str, name: str) -> None:
    """Have this process killed at one of MOMENTS of the save of the checkpoint with this name."""
    pending = f"pending-{name}"
    if moment == "captured":
        _around(FileWriter, "write_file", lambda _, one, *__: pending in str(one.path), behind=False)
    elif moment == "half written":
        _around(
            FileWriter,
            "write_file",
            lambda _, one, *__: pending in str(one.path) and isinstance(one, recorded.TorchFile),
        )
    elif moment in ("written", "renamed"):
        _around(files, "rename", lambda _, target: target.name == name, behind=moment == "renamed")
    elif moment == "sealed":
        _around(
            files,
            "write_file",
            lambda path, *_: path.name == SEAL and path.parent.name.endswith(f"-{name}"),
        )
    else:
        raise ValueError(moment)


def kill_in_turn(plan: str) -> None:
    """Have this process killed within a save as the plan says; the next one, in the same folder, at the plan's next."""
    for number, one in enumerate(plan.split(",")):
        begun = Path(f"killed-{number}")
        if not begun.exists():
            begun.touch()
            moment, _, name = one.rpartition(" ")
            kill_within_save(moment, name)
            return


def _around(owner: Any, name: str, at: Callable[..., bool], *, behind: bool = True) -> None:
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        dies = at(*args)
        if dies and not behind:
            _die()
        found = original(*args, **kwargs)
        if dies:
            _die()
        return found

    setattr(owner, name, call)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
