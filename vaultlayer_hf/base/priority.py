"""Uploads give way to training: their threads run at the lowest priority where the system has one for a thread.

Only Linux has (a "nice" value of each thread); elsewhere nothing is done. A thread never gets a higher one back.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

LOWEST = 19
"""The lowest "nice" value that Linux has."""


def give_way() -> None:
    """Give the calling thread and those of the object stores' client the lowest priority.

    Threads that these start later inherit it. The client's have no other mark than their name, so those of another
    library in this process that has such a runtime, too, are among them.
    """
    if sys.platform != "linux":
        return
    _lower(threading.get_native_id())
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            if (task / "comm").read_text().startswith("tokio"):
                _lower(int(task.name))


def _lower(thread: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, LOWEST)
