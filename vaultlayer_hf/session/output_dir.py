"""What lies in ``output_dir``: checkpoint folders, which are the Trainer's, and ``_vaultlayer``, which is ours.

<output_dir>/checkpoint-500                  the Trainer's; it rotates them by save_total_limit
<output_dir>/_vaultlayer/<vault_id>/...      snapshots: see vault/snapshot.py
<output_dir>/_vaultlayer/<vault_id>/claiming   a start that has claimed, and not looked for snapshots yet
<output_dir>/_vaultlayer/old-<id>/           what local retention has taken out
<output_dir>/_vaultlayer/aside/checkpoint-N  what a dead process left behind the step that the run goes on from

What is written ahead of the first checkpoint, the lock above all, lies beside it: see vault/workspace.py.

The Trainer lists and deletes checkpoint folders on the training thread, and an error there would be raised
into training. So folders appear and vanish by one rename, on that thread only; slow deletion is elsewhere.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.vault.snapshot import LOCAL
from vaultlayer_hf.vault.workspace import workspace

PENDING = "pending-"
"""How a folder is called, in the run's workspace, that becomes a checkpoint's once it is whole."""
FORMER_VARIABLE = "VAULTLAYER_RUN_FORMER"
"""Set by `vl run`: the folders in which earlier attempts of this run have trained, separated as in PATH."""
_OLDER = 60.0
"""Seconds by which what was here at the start looks older than anything that this run writes."""
_APART = 2.0
"""Seconds between two such folders: the Trainer distrusts mtimes that are all within one second."""


def former_output_dirs(output_dir: Path) -> list[Path]:
    """Return where the run had its folder before, as far as that is still there.

    A script may name its output folder anew at each start, by the time of day, say: what its last attempt had
    saved, and not yet committed, is whole in a folder that this start would never look into.
    """
    named = filter(None, os.environ.get(FORMER_VARIABLE, "").split(os.pathsep))
    return [path for path in map(Path, named) if path != output_dir and (path / LOCAL).is_dir()]


def checkpoints(output_dir: Path) -> dict[int, Path]:
    """Return the checkpoint folders in ``output_dir`` by step, lowest step first."""
    found = {}
    for path in output_dir.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and path.is_dir():
            found[int(number)] = path
    return dict(sorted(found.items()))


def clear_half_done(output_dir: Path) -> None:
    """Remove what a stop left half restored or half deleted."""
    for folder in {output_dir / LOCAL, workspace(output_dir)}:
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(("restore-", "old-", PENDING)):
                files.remove_tree(path)


def settle(output_dir: Path, step: int) -> None:
    """Make the checkpoint folders in ``output_dir`` harmless for the Trainer's rotation.

    Folders of later steps than ``step`` are what a dead process left, torn perhaps, and never committed, or
    stand after the step that was asked for: they would be counted as the newest, and the new ones deleted in
    their place. They are moved aside, not deleted. All others get mtimes in the order of their steps and
    older than any new one: some versions of the Trainer rotate by step, others by mtime.
    """
    limit = time.time() - _OLDER
    for number, path in reversed(checkpoints(output_dir).items()):
        if number > step:
            aside = output_dir / LOCAL / "aside"
            files.make_folder(aside)
            files.remove_tree(aside / path.name)
            files.rename(path, aside / path.name)
        else:
            stat = path.stat()
            limit = min(limit, stat.st_mtime)
            os.utime(path, (limit, limit))
            limit -= _APART


def warn_of_unknown(output_dir: Path, events: Events) -> None:
    """Say that checkpoints from before the vault aren't looked at."""
    names = [path.name for path in checkpoints(output_dir).values()]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        events.warn(
            EventKind.NOTICE,
            f"{output_dir} holds checkpoints that this vault doesn't know ({', '.join(names[-3:])}{more}): to go on "
            "from one, call train(resume_from_checkpoint=…) with it once; what it saves from then on is in the vault",
        )
