"""What a start says of the checkpoint that it has chosen."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import StoreError
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.choice import StartChoice
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.log.finite import newest_finite, read_nonfinite
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.near import is_slip, near_vault


def say_choice(session: Session, choice: StartChoice) -> None:
    """Say what ``@STEP`` comes to."""
    named = choice.named
    if choice.continues:
        newest = choice.candidates[0]
        what = f"step {named.step}" if named is not None else f"@{choice.name}"
        copies = (
            f". To begin from step {named.step} once more, fork it: Settings(vault='a new one', "
            f"fork='{session.address.uri}@{named.step}')"
            if named is not None
            else ""
        )
        session.warn_all(
            EventKind.NOTICE,
            f"{session.address}: this run went back to {what} before, and goes on from what it has trained "
            f"since, step {newest.step}{copies}",
            step=newest.step,
        )
    elif named is not None and choice.left:
        names = ", ".join(f"{commit.name} (log entry {commit.number})" for commit in choice.left)
        session.warn_all(
            EventKind.NOTICE,
            f"{session.address}: the run goes back to step {named.step} and leaves {names} behind; they are kept while "
            "it goes on from there. The next start of the same command goes on from the newest that is trained now",
            step=named.step,
        )


def empty_text(session: Session) -> str:
    """Return that a run begins in an empty vault, and what such a vault doesn't save it from."""
    address = session.address
    text = f"{address.uri} is empty: the run starts fresh"
    if (other := _of_the_same_name(address)) is not None:
        text += f"; there is a vault at {other}, if that one is meant: a start from another folder needs its whole path"
    elif (near := near_vault(address)) is not None and _within(address, near):
        text += (
            f"; it lies within another vault, {near}, so whoever moves, copies or deletes that one does it to both: "
            "if that isn't meant, stop this run and name a place beside it"
        )
    elif near is not None and is_slip(_name(address.uri), _name(near)):
        text += f"; there is a vault {near}, if the name is mistyped: stop this run then, and name that one"
    try:
        one_disk = address.scheme == "file" and (
            os.stat(address.path).st_dev == os.stat(_there(session.output_dir)).st_dev
        )
    except OSError:
        one_disk = False
    if not one_disk:
        return text
    if os.path.realpath(address.path).startswith(os.path.realpath(session.output_dir) + os.sep):
        return f"{text}; it lies in output_dir, so whoever empties that folder deletes the vault, too"
    return f"{text}; it is on the same disk as output_dir, so losing that disk loses both"


def _within(address: VaultAddress, other: str) -> bool:
    return (address.path if address.scheme == "file" else address.uri).startswith(other.rstrip("/") + "/")


def _name(vault: str) -> str:
    return vault.rstrip("/").rpartition("/")[2]


def _of_the_same_name(address: VaultAddress) -> Path | None:
    """Return the vault that would have been meant, had this start been made in the script's folder, or one above.

    ``resume="my-vault"`` is looked for in the folder that a start is made in, so from elsewhere it is another.
    """
    try:
        here, script = Path.cwd(), getattr(sys.modules.get("__main__"), "__file__", None)
        below = Path(address.path).relative_to(here)
        folders = [here.parent, *([Path(script).resolve().parent] if script else [])]
        others = [
            folder / below for folder in folders if folder != here and (folder / below / "log").is_dir()
        ]
    except (OSError, ValueError):
        # A folder that is gone or can't be read; a vault elsewhere, or in no folder.
        return None
    return others[-1] if others else None


def _there(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there: the first save makes the others on its disk."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def fresh_text(uri: str, state: VaultState) -> str:
    """Return why a run begins at step 0 in a vault that has a log."""
    archived = [commit for commit in state.commits if commit.archived]
    if not archived:
        return f"{uri} holds no checkpoint yet: the run starts fresh"
    name = archived[-1].archived
    return (
        f"{uri}: what it held up to step {archived[-1].step} was archived as {name}, so the run begins anew at step 0. "
        f"`vl archive {uri} --undo` takes {name} back"
    )


def say_nonfinite(session: Session, folder: Path) -> None:
    """Say that the checkpoint that is gone on from isn't finite, and which finite one is there. All ranks."""

    def look() -> tuple[str, tuple[int, ...], int | None]:
        what = read_nonfinite(folder)
        if not what:
            return "", (), None
        known: dict[int, bool] = {}
        try:
            finite = newest_finite(session.state.commits, session.access.log().read, known)
        except StoreError:  # it was reached a moment ago; what to say of it isn't worth a start
            finite = None
        lost = {commit.step for commit in session.state.commits if not known.get(commit.number, True)}
        return what, tuple(lost), finite.step if finite is not None else None

    what, lost, finite = session.ranks.on_rank_zero(look, within=2 * session.settings.resume_timeout)
    if not what:
        return
    session.nonfinite |= set(lost)
    there = (
        f"the newest finite one is of step {finite}: to go on from there, name {session.address.uri}@{finite}"
        if finite is not None
        else "the vault holds no finite one"
    )
    session.warn_all(
        EventKind.NOTICE, f"{folder.name}, which the run goes on from, isn't finite: {what}; {there}"
    )


def say_world_size(session: Session, manifest: Manifest) -> None:
    """Say that another number of ranks goes on than has written the checkpoint, where that is so."""
    if manifest.world_size != session.ranks.world_size:
        session.warn_all(
            EventKind.NOTICE,
            f"the checkpoint was written by {manifest.world_size} rank(s), and {session.ranks.world_size} go on from "
            "it: which rank sees which sample and the ranks' random states aren't those of an unbroken run any more",
        )


def say_frozen(session: Session, manifest: Manifest, remark: str) -> None:
    """Say, once, how weights that aren't trained differ from those that the checkpoint was trained on."""
    session.events.warn_once(
        "frozen",
        EventKind.INEXACT,
        f"weights that aren't trained are other ones than when checkpoint-{manifest.step} was saved. The run goes on, "
        f"and its numbers may differ from an unbroken run's: {remark}",
    )
