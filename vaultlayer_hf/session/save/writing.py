"""Writing a checkpoint's folder on all ranks: whatever goes wrong costs this checkpoint, on all of them alike.

A full disk is no reason to stop either: local copies of what the vault holds are given up, and all write once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.text import error_text
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.save.full_disk import freed_text, is_full, make_room, what_fills
from vaultlayer_hf.session.save.rounds import forget_written
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.vault.log.entry import Commit

_TRIES = 2
"""How often a checkpoint is written where the disk is full: once more, when room has been made."""


def write_on_all(
    session: Session,
    folder: Path,
    write: Callable[[], object],
    *,
    remove: Callable[[], None] | None = None,
    keep: Collection[int] = (),
) -> str | None:
    """Have every rank write its files; return why this checkpoint is lost, or None where all have written. All ranks.

    What was written in vain is removed; not where a rank doesn't answer: it may have written. Raises nothing: an error
    of ``write``, of a full disk or of an object of the script's own, is returned in words, with the rank that it is of.

    Args:
        session: of this rank.
        folder: what is written to.
        write: writes this rank's files.
        remove: removes what was written in vain, on leaders; None: ``folder`` with all that it holds.
        keep: steps whose local folders aren't given up on a full disk.
    """
    reason = None
    for attempt in range(_TRIES):
        try:
            reason, full, committed = _write(session, folder, write, f"{session.coming_seq}/{attempt}")
        except RanksError as missing:
            return str(missing)
        if reason is None:
            return None
        if session.leads_node:
            forget_written(session)
            _removed(session, folder, remove or (lambda: files.remove_tree(folder)))
        if not full or attempt == _TRIES - 1 or not _made_room(session, committed, keep, attempt):
            break
    return reason


def _removed(session: Session, folder: Path, remove: Callable[[], object]) -> None:
    """Remove what was written in vain; what can't be is said."""
    try:
        remove()
    except OSError as error:
        what = f"{folder.name}: what was written in vain can't be removed: {error}"
        session.events.warn_once("in vain", EventKind.TROUBLE, what)


def _write(
    session: Session, folder: Path, write: Callable[[], object], tag: str
) -> tuple[str | None, bool, tuple[Commit, ...]]:
    """Write once; return why it failed on any rank, whether a disk is full, and what the vault holds.

    Raises RanksError.
    """
    error, full = None, False
    try:
        write()
    except Exception as found:  # torch, safetensors and the script's objects raise what they like
        error, full = _words(found), is_full(found, folder)
    if error is not None and full:  # only now: what was written in vain is held open by the error's traceback
        error = f"the disk is full ({error}): {what_fills(session.output_dir)}"

    def agree(found: list[tuple[str | None, bool]]) -> tuple[str | None, bool, tuple[Commit, ...]]:
        failed = [(rank, words) for rank, (words, _) in enumerate(found) if words is not None]
        if not failed:
            return None, False, ()
        rank, words = failed[0]
        where = f"rank {rank}: " if len(found) > 1 else ""
        live = tuple(commit for commit in session.state.commits if not commit.left_behind)
        return f"{where}it can't be written: {words}", any(full for _, full in found), live

    return session.ranks.decide(
        (error, full), agree, tag=f"written/{tag}", timeout=session.settings.part_timeout
    )


def _made_room(session: Session, committed: tuple[Commit, ...], keep: Collection[int], attempt: int) -> bool:
    """Give up what the vault holds, on each node; return whether that has freed anything. All ranks.

    The folder of what was written in vain is gone on all nodes once this returns.
    """
    freed = 0
    with contextlib.suppress(OSError):  # nothing is freed then; the other ranks wait for the answer
        freed = make_room(session, committed, keep) if session.leads_node else 0
    try:
        total: int = session.ranks.decide(
            freed,
            sum,
            tag=f"room/{session.coming_seq}/{attempt}",
            timeout=session.settings.part_timeout,
        )
    except RanksError:
        return False
    if total and session.ranks.rank == 0:
        session.events.warn_once("full disk", EventKind.TROUBLE, freed_text(session, "written"))
    return total > 0


def _words(error: Exception) -> str:
    """Return an error for people, in one line."""
    text = error_text(error).partition("\n")[0]
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}".removesuffix(": ")
