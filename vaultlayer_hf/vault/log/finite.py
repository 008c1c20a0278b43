"""Checkpoints of a run whose weights or loss are nan: they count as any other, but never push out the last finite one.

The ranks find out at the save. What they found lies in the checkpoint's folder (``NAME``), so that it is known of a
snapshot, too, which a later start adopts; and in the detail of the entry that commits it, so that a later run of the
retention learns it with one request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from vaultlayer_hf.base.files import write_file
from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError
from vaultlayer_hf.vault.log.entry import Commit, Entry

NAME = "vaultlayer_nonfinite.json"
"""The file in a checkpoint's folder; it isn't there where all is finite."""
DETAIL = "nonfinite"
"""The name in the detail of a commit's entry."""


def write_nonfinite(folder: Path, what: str) -> None:
    """Note in a checkpoint's folder what isn't finite. Raises OSError."""
    write_file(folder / NAME, (json.dumps({DETAIL: what}) + "\n").encode())


def read_nonfinite(folder: Path) -> str:
    """Return what isn't finite of a checkpoint; empty: all is, as far as is known."""
    try:
        return str(json.loads((folder / NAME).read_bytes())[DETAIL])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        return "what is noted of it can't be read"


def newest_finite(
    commits: Sequence[Commit], read: Callable[[int], Entry], known: dict[int, bool] | None = None
) -> Commit | None:
    """Return the newest commit on the run's way that isn't known to be of a nan; None where there is none.

    One request for each commit that isn't ``known``, from the newest on until a finite one is found.

    Args:
        commits: live ones, oldest first.
        read: returns an entry of the log, as ``Log.read``.
        known: by number whether a commit is finite; grows by what is read.

    Raises StoreError.
    """
    known = {} if known is None else known
    for commit in reversed(commits):
        if commit.left_behind:
            continue
        if commit.number not in known:
            try:
                known[commit.number] = not read(commit.number).detail.get(DETAIL)
            except (CorruptError, ObjectNotFoundError):
                known[commit.number] = True  # kept rather than lost
        if known[commit.number]:
            return commit
    return None
