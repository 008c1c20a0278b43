"""Discover -> restore -> resume: which checkpoint a start goes on from, and bringing it to the disk.

Read only until the choice is known to make sense; then claim; then bring the bytes. In this order:

1. What the vault says is read. Out of reach: VaultUnreachableError. Another model's: WrongModelError,
   before the right run is fenced and before anything is loaded.
2. The claim. From here on nobody else retires or commits.
3. A sealed local snapshot newer than the newest commit, of the newest token before ours, is adopted:
   nobody else has written since.
4. Else the newest commit whose every digest holds; on any mismatch the reason is said and the one before
   is tried. Commits exist and none is usable: NoUsableCheckpointError. Never a silent start at step 0.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from vaultlayer_hf import files
from vaultlayer_hf.errors import (
    CorruptError,
    FormatVersionError,
    NoSuchCheckpointError,
    NoUsableCheckpointError,
    StoreError,
    WrongModelError,
)
from vaultlayer_hf.events import size_text
from vaultlayer_hf.fingerprint import Parameters, differences
from vaultlayer_hf.session import Session
from vaultlayer_hf.vault.entry import Commit, Entry, State
from vaultlayer_hf.vault.manifest import Manifest, read_manifest
from vaultlayer_hf.vault.restore import place, restore, set_age
from vaultlayer_hf.vault.snapshot import LOCAL, Snapshot, find_sealed, local_folder, move, verify

_OLDER = 60.0


@dataclass(frozen=True)
class Wish:
    """What the seam wants of a checkpoint.

    Attributes:
        parameters: of the model at hand; empty where it isn't known.
        world_size: ranks of this run.
        missing: returns what a checkpoint with these files lacks at a world size; empty means whole.
        localise: given a folder and ``output_dir``, returns new content for files that name paths of the
            old host, by file name.
        best: whether the best checkpoint must be on the disk too.
    """

    parameters: Parameters
    world_size: int
    missing: Callable[[set[str], int], list[str]]
    localise: Callable[[Path, Path], dict[str, bytes]]
    best: bool = False


def resume(session: Session, wish: Wish) -> Path | None:
    """Claim the vault and return the local folder to resume from; None on an empty vault.

    Raises VaultUnreachableError, WrongModelError, NoSuchCheckpointError, NoUsableCheckpointError,
    CorruptError (the whole log), ResumeError (no space on the disk).
    """
    seen = session.last()
    if seen[1] is not None:
        _check_first_candidate(session, wish, seen[1].state)
    before = session.claim(seen)
    _clear_leftovers(session.output_dir)
    if before is None:
        session.events.info("fresh", f"{session.address.uri} is empty: the run starts fresh")
        _warn_of_local(session)
        session.start_uploads(None)
        return None
    try:
        return _adopt(session, wish, before) or _restore_newest(session, wish)
    except StoreError as error:
        raise session.unreachable(error) from error


def _candidates(session: Session, state: State) -> list[Commit]:
    step = session.address.step
    if step is None:
        return [commit for commit in reversed(state.commits) if not commit.abandoned]
    found = [commit for commit in reversed(state.commits) if commit.step == step]
    if not found:
        steps = ", ".join(str(commit.step) for commit in state.commits) or "none"
        raise NoSuchCheckpointError(
            f"{session.address.uri} has no checkpoint of step {step}; it has: {steps}. Name one of them, or leave "
            "out @<step> for the newest"
        )
    return found


def _check_first_candidate(session: Session, wish: Wish, state: State) -> None:
    candidates = _candidates(session, state)
    if not candidates:
        return
    try:
        _check_model(session, wish, candidates[0], read_manifest(session.connect(), candidates[0]))
    except FormatVersionError:
        raise
    except CorruptError:
        pass  # said, with its reason, when it is this commit's turn
    except StoreError as error:
        raise session.unreachable(error) from error


def _check_model(session: Session, wish: Wish, commit: Commit, manifest: Manifest) -> None:
    if manifest.parameters and wish.parameters:
        words = differences(manifest.parameters, wish.parameters)
        if words:
            raise WrongModelError(
                f"{commit.name} in {session.address.uri} belongs to another model: {words}. Give each run a vault "
                "of its own, or build the model that this vault was written with"
            )


def _restore_newest(session: Session, wish: Wish) -> Path | None:
    state = session.writer.state
    candidates = _candidates(session, state)
    reasons = []
    for commit in candidates:
        try:
            manifest = read_manifest(session.connect(), commit)
            if unfit := _unfit(wish, manifest):
                raise CorruptError(f"{commit.name}: {unfit}")
            path = _bring(session, wish, commit, manifest)
        except FormatVersionError:
            raise
        except CorruptError as error:
            reasons.append(str(error))
            session.events.warn(
                "walk-back",
                f"{commit.name} (log entry {commit.number}) can't be resumed from, the one before it is tried: {error}",
                step=commit.step,
                number=commit.number,
                reason=str(error),
            )
            continue
        session.start_uploads(commit)
        _bring_best(session, wish, state, manifest)
        settle(session.output_dir, manifest.step)
        return path
    if candidates:
        raise NoUsableCheckpointError(
            f"{session.address.uri} holds {len(candidates)} checkpoint(s) and none can be resumed from, so nothing was "
            f"loaded: {'; '.join(reasons)}. Look with `vl verify {session.address.uri}`; to start over, name an "
            "empty vault"
        )
    session.events.info("fresh", f"{session.address.uri} holds no checkpoint yet: the run starts fresh")
    session.start_uploads(None)
    settle(session.output_dir, 0)
    return None


def _bring(session: Session, wish: Wish, commit: Commit, manifest: Manifest) -> Path:
    final = session.output_dir / f"checkpoint-{manifest.step}"

    def finish(staging: Path) -> None:
        for name, data in wish.localise(staging, session.output_dir).items():
            files.write_file(staging / name, data)

    with tqdm(total=manifest.bytes, unit="B", unit_scale=True, desc=f"Restoring {commit.name}") as bar:
        fetched = restore(
            session.connect(),
            commit.folder,
            manifest,
            final,
            concurrency=session.settings.upload_concurrency,
            on_bytes=bar.update,
            finish=finish,
        )
    session.events.info(
        "restore",
        f"{commit.name} (log entry {commit.number}) restored and verified: {size_text(fetched)} fetched, "
        f"{size_text(manifest.bytes - fetched)} were here; the run goes on from step {commit.step}",
        step=commit.step,
        number=commit.number,
        fetched=fetched,
    )
    return final


def _bring_best(session: Session, wish: Wish, state: State, manifest: Manifest) -> None:
    """Bring the best checkpoint too, where the end of training will load it."""
    step = manifest.best_step
    if not wish.best or step is None or step == manifest.step:
        return
    final = session.output_dir / f"checkpoint-{step}"
    for commit in reversed(state.commits):
        if commit.step != step or commit.abandoned:
            continue
        try:
            best = read_manifest(session.connect(), commit)
            with tqdm(
                total=best.bytes, unit="B", unit_scale=True, desc=f"Restoring the best, {commit.name}"
            ) as bar:
                restore(session.connect(), commit.folder, best, final, on_bytes=bar.update)
        except CorruptError as error:
            session.events.warn(
                "walk-back", f"the best checkpoint can't be restored: {error}", reason=str(error)
            )
            continue
        session.events.info(
            "restore", f"the best checkpoint, {commit.name}, restored and verified", step=step
        )
        return
    session.events.warn(
        "notice",
        f"the best checkpoint so far (step {step}) isn't in the vault: load_best_model_at_end can only choose among "
        "later ones",
    )


def _adopt(session: Session, wish: Wish, before: Entry) -> Path | None:
    """Adopt the newest sealed snapshot that is newer than the newest commit; None where there is none."""
    if session.address.step is not None:
        return None
    state = before.state
    newest = state.newest
    floor = newest.seq if newest is not None and newest.token == state.token else 0
    for snapshot in find_sealed(local_folder(session.output_dir, state.vault_id, state.token)):
        if snapshot.seq <= floor:
            break
        try:
            sound = verify(snapshot)
            reason = _unfit(wish, sound.manifest)
        except (CorruptError, OSError) as error:
            reason = str(error)
        if not reason:
            return _take_over(session, wish, sound, newest)
        session.events.warn("walk-back", f"the local {snapshot.name} isn't adopted: {reason}", reason=reason)
    return None


def _unfit(wish: Wish, manifest: Manifest) -> str:
    """Return why a checkpoint can't be resumed from; empty where it can."""
    lacking = wish.missing(manifest.paths, wish.world_size)
    if lacking:
        return f"it lacks {', '.join(lacking)}, so a resume would not be the same run"
    return (
        differences(manifest.parameters, wish.parameters) if manifest.parameters and wish.parameters else ""
    )


def _take_over(session: Session, wish: Wish, snapshot: Snapshot, newest: Commit | None) -> Path:
    step = snapshot.manifest.step
    mine = move(snapshot, session.snapshots, session.next_seq(), session.writer.token)
    final = session.output_dir / f"checkpoint-{step}"
    staging = session.output_dir / LOCAL / f"restore-{uuid.uuid4().hex}"
    for entry in mine.manifest.files:
        target = staging / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not files.link(mine.files / entry.path, target):
            shutil.copyfile(mine.files / entry.path, target)
    for name, data in wish.localise(staging, session.output_dir).items():
        files.write_file(staging / name, data)
    place(staging, final)
    session.events.info(
        "adopt",
        f"{mine.name} was complete on this disk and is newer than the newest commit: adopted, the run goes on from "
        f"step {step}",
        step=step,
    )
    session.start_uploads(newest)
    session.adopt(mine)
    _bring_best(session, wish, session.writer.state, mine.manifest)
    settle(session.output_dir, step)
    return final


def _clear_leftovers(output_dir: Path) -> None:
    """Remove half-restored folders that a stop left."""
    folder = output_dir / LOCAL
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(("restore-", "old-")):
            files.remove_tree(path)


def _warn_of_local(session: Session) -> None:
    """Say that checkpoints from before the vault aren't looked at."""
    names = sorted(path.name for path in session.output_dir.glob("checkpoint-*") if path.is_dir())
    if names:
        session.events.warn(
            "notice",
            f"{session.output_dir} holds checkpoints that this vault doesn't know ({', '.join(names[:3])}…): to go on "
            "from one, call train(resume_from_checkpoint=…) with it once; what it saves from then on is in the vault",
        )


def settle(output_dir: Path, step: int) -> None:
    """Make the checkpoint folders in ``output_dir`` harmless for the Trainer's rotation.

    Folders of later steps are what a dead process left, torn perhaps, and never committed, or stand
    after the step that was asked for: they would be counted as the newest, and the new ones deleted in
    their place. They are moved aside, not deleted. All others are made to look older than any new one.
    """
    for path in output_dir.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if not path.is_dir() or not number.isdigit():
            continue
        if int(number) > step:
            aside = output_dir / LOCAL / "aside"
            files.make_folder(aside)
            files.remove_tree(aside / path.name)
            files.rename(path, aside / path.name)
        else:
            set_age(path, _OLDER)
