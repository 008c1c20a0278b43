"""What a start notes on its disk ahead of its claim, so that a kill right behind that claim loses no snapshot.

A snapshot counts only while its writer's claim is the newest one in the log: after another claim somebody may have
gone on elsewhere. But a start that dies between its claim and its look at the disk has gone on nowhere. The next start
on that disk can tell that this has happened, because the claim's entry and this note have one id. The note also says
whose snapshots counted then.

<output_dir>/_vaultlayer/<vault_id>/claiming    {"start": id, "writers": [token, …]}    on rank 0's disk
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.snapshot import LOCAL

START = "start"
"""In a claim's detail and in the note: the id of a start."""
_NAME = "claiming"


class ClaimNote:
    """The note of one start.

        note = ClaimNote(output_dir)
        detail = note.write(state, detail_of)  # goes into the claim's entry
        writers = note.writers(claim.before)   # whose snapshots count, besides those of the newest claim before ours
        note.remove()                          # once these are found, and begun to be adopted

    Args:
        output_dir: of the run.
        former: its folders before, where such a note may lie, too.
    """

    def __init__(self, output_dir: Path, former: Sequence[Path] = ()) -> None:
        self._output_dir, self._former = output_dir, former
        self._path: Path | None = None
        self._writers: tuple[int, ...] = ()

    def write(self, state: VaultState, detail_of: Callable[[int], Mapping[str, Any]]) -> dict[str, Any]:
        """Note a claim that is about to be made on a vault in this state, and return what its entry is to say.

        ``detail_of``: returns what a claim's entry says, by its token; only called where a note lies there. On a disk
        that can't be written to nothing is noted. Raises what ``detail_of`` raises.
        """
        path, *others = (
            place / LOCAL / state.vault_id / _NAME for place in (self._output_dir, *self._former)
        )
        if not any(one.parent.is_dir() for one in (path, *others)):
            return {}  # no snapshot is on this disk, so a kill loses none
        noted = dict(filter(None, map(_read, (path, *others))))
        died = noted.get(str(detail_of(state.token).get(START))) if noted else None
        mine, self._writers = uuid.uuid4().hex, (state.token, *(died or ()))
        try:
            files.make_folder(path.parent)
            files.write_file(path, json.dumps({START: mine, "writers": self._writers}).encode())
        except OSError:
            return {}
        self._path = path
        return {START: mine}

    def writers(self, before: VaultState | None) -> tuple[int, ...]:
        """Return tokens of writers whose snapshots count besides the newest claim's.

        None where ``before``, the state ahead of our claim, is of another claim than ``write`` was told of.
        """
        newest = self._writers[:1]
        return self._writers[1:] if before is not None and newest == (before.token,) else ()

    def remove(self) -> None:
        """Remove the note, and ones that kills have cut short: what it is for is found. One that stays does no harm."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                files.remove_file(self._path)
                for path in self._path.parent.glob(f"{files.TEMPORARY}*"):
                    files.remove_file(path)


def _read(path: Path) -> tuple[str, tuple[int, ...]] | None:
    try:
        found = json.loads(path.read_bytes())
        return str(found[START]), tuple(token for token in found["writers"] if type(token) is int)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
