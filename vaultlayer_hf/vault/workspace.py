"""Where a run writes what is no checkpoint yet: a hidden folder beside ``output_dir``, not in it.

<parent>/.<name>.vaultlayer/lock                     see session/lock.py
<parent>/.<name>.vaultlayer/restore-<id>/            a restore under way
<parent>/.<name>.vaultlayer/old-<id>/                what a restore has replaced
<parent>/.<name>.vaultlayer/pending-checkpoint-500/  a checkpoint that is written beside the training, until it is whole

Many scripts end where their output folder holds files and no checkpoint ("already exists and is not empty"). A run that
dies ahead of its first checkpoint leaves an empty one, as stock does. A script that empties its output folder at each
start doesn't take the lock of another run away, either.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vaultlayer_hf.vault.snapshot import LOCAL

_MOUNTS = Path("/proc/self/mountinfo")


def workspace(output_dir: Path) -> Path:
    """Return the folder, which needn't exist; the same for every name of ``output_dir``.

    Where none can be beside it, as it is the top of a file system or its parent isn't this user's to write to, that is
    ``<output_dir>/_vaultlayer``.
    """
    real = Path(os.path.realpath(output_dir))
    above = real.parent
    while not above.exists():
        above = above.parent
    if _is_mount(real) or not os.access(above, os.W_OK | os.X_OK):
        return output_dir / LOCAL
    return real.with_name(f".{real.name}.vaultlayer")


def leave_workspace(output_dir: Path) -> None:
    """Remove the folder where nothing is in it; not ``_vaultlayer``, which holds snapshots. Never raises."""
    folder = workspace(output_dir)
    if folder.name != LOCAL:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _is_mount(path: Path) -> bool:
    """Tell whether a file system begins here, or a part of one that is mounted here, too: no rename leads into it."""
    if os.path.ismount(path):
        return True
    try:
        points = (line.split(" ", 5)[4] for line in _MOUNTS.read_text().splitlines())
        return str(path) in (point.replace("\\040", " ") for point in points)
    except (OSError, IndexError, ValueError):  # not Linux
        return False
