"""Discover -> restore -> resume: which checkpoint a start goes on from, and bringing it to the disk.

Rank 0 alone decides, and all ranks learn it before any of them loads. Read only until the choice is known to
make sense; then claim; then bring the bytes. In this order:

1. What the vault says is read. Out of reach: VaultUnreachableError. Another model's: WrongModelError,
   before the right run is fenced and before anything is loaded.
2. The claim. From here on nobody else retires or commits.
3. A local snapshot, sealed or whole on this boot, that is newer than the newest commit, of the newest token before
   ours, is adopted: nobody else has written since.
4. Else the newest commit whose every digest holds, on every node; on any mismatch the reason is said and the one
   before is tried. Commits exist and none is usable: NoUsableCheckpointError. Never a silent start at step 0.

Each node fetches once what its ranks load, whichever node wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import (
    CorruptError,
    FormatVersionError,
    NoUsableCheckpointError,
    StoreError,
)
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.output_dir import clear_half_done, warn_of_unknown
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.adopt import adopt
from vaultlayer_hf.session.start.bring import bring_everywhere
from vaultlayer_hf.session.start.choice import StartChoice
from vaultlayer_hf.session.start.claiming import ClaimNote
from vaultlayer_hf.session.start.discover import (
    check_no_damage,
    check_none_vanished,
    choose,
    choose_from,
    claim_detail,
)
from vaultlayer_hf.session.start.fork import begin_fork
from vaultlayer_hf.session.start.look import check_fit, look, other_model
from vaultlayer_hf.session.start.notices import (
    empty_text,
    fresh_text,
    say_choice,
    say_nonfinite,
)
from vaultlayer_hf.session.start.ready import bring_best, make_ready, settle_all
from vaultlayer_hf.vault.log.entry import Entry, VaultState
from vaultlayer_hf.vault.manifest import read_manifest


def resume(session: Session, seam_files: CheckpointFiles) -> Path | None:
    """Claim the vault and return the local folder to resume from, as ``_resume`` does; say what is wrong with it.

    All ranks. Raises what ``_resume`` raises.
    """
    folder = _resume(session, seam_files)
    if folder is not None:
        say_nonfinite(session, folder)
    return folder


def _resume(session: Session, seam_files: CheckpointFiles) -> Path | None:
    """Claim the vault and return the local folder to resume from; None on an empty vault. All ranks.

    Raises, on all ranks alike, VaultUnreachableError, WrongModelError, WorldSizeError, NoSuchCheckpointError,
    NoUsableCheckpointError, CorruptError (the whole log), ResumeError (no space on a disk), SettingsError (another run
    uses ``output_dir``), RanksError.
    """
    note = ClaimNote(session.output_dir, session.former)
    choice, writers = _claim(session, seam_files, note)
    before = session.entered.before
    session.ranks.on_every_rank(lambda: clear_half_done(session.output_dir) if session.leads_node else None)
    if before is None and choice.fork is None:
        session.events.info(EventKind.FRESH, empty_text(session))
        if session.leads_node:
            warn_of_unknown(session.output_dir, session.events)
        session.start_uploads(None)
        return None
    say_choice(session, choice)
    adopted = None
    if choice.adopts and before is not None:
        adopted = adopt(
            session,
            before,
            seam_files,
            differs=lambda manifest: other_model(session, seam_files, manifest),
            spared=choice.left,
            writers=writers,
            on_found=note.remove,
        )
    # @STEP goes back once: behind that, the same command goes on from the newest of its line.
    session.goes_back = adopted is None and choice.named is not None and not choice.continues
    if adopted is None and choice.fork is not None:
        return begin_fork(session, seam_files, choice.fork)
    if adopted is None:
        return _restore_newest(session, seam_files, choice)
    assert before is not None
    bring_best(session.access, session, seam_files, before, adopted)
    return session.output_dir / f"checkpoint-{adopted.step}"


def _claim(
    session: Session, seam_files: CheckpointFiles, note: ClaimNote
) -> tuple[StartChoice, tuple[int, ...]]:
    """Claim the vault; return what to go on from, and whose snapshots count beside the newest claim's. All ranks.

    Nothing is claimed where what is there can't be this run's. Raises as ``_resume`` does.
    """
    found: list[tuple[VaultState | None, StartChoice]] = []

    def check(number: int, entry: Entry | None) -> Mapping[str, Any]:
        choice = choose(session, number, entry)
        found.append((entry.state if entry is not None else None, choice))
        _check_first_candidate(session, seam_files, choice, number, entry)
        if entry is None or not choice.adopts:
            return choice.detail
        return {**choice.detail, **note.write(entry.state, lambda token: claim_detail(session, token))}

    claim = session.enter(check)

    def choose_again() -> tuple[StartChoice, tuple[int, ...]]:
        # Between the look and the claim another writer may have committed or retired: what counts is the claim's.
        seen, choice = found[-1]
        before = claim.before
        if before is None or (seen is not None and seen.commits == before.commits):
            return choice, note.writers(before)
        again = choose_from(session, before)
        if not again.candidates and again.fork is None:
            check_none_vanished(session, session.entered.token - 1)
        return again, note.writers(before)

    return session.ranks.on_rank_zero(choose_again)


def _check_first_candidate(
    session: Session, seam_files: CheckpointFiles, choice: StartChoice, number: int, entry: Entry | None
) -> None:
    candidates, source = choice.candidates, session.access
    if choice.fork is not None and session.origin is not None:
        candidates, source = (choice.fork.commit,), session.origin
    if not candidates:
        check_no_damage(session, number, entry)
        return
    try:
        check_fit(source, session, seam_files, candidates[0], read_manifest(source.store, candidates[0]))
    except FormatVersionError:
        raise
    except CorruptError:
        pass  # said, with its reason, when it is this commit's turn
    except StoreError as error:
        raise source.unreachable(error) from error


def _restore_newest(session: Session, seam_files: CheckpointFiles, choice: StartChoice) -> Path | None:
    state = session.ranks.on_rank_zero(lambda: session.state)
    # A snapshot of several nodes, adopted just now, is committed as the newest, and is on this run's way.
    adopted = [one for one in reversed(state.commits) if one.token == session.entered.token]
    candidates = [*adopted, *choice.candidates]
    reasons = []
    for commit, before in zip(candidates, [*candidates[1:], None], strict=False):
        manifest, reason = look(session.access, session, seam_files, commit)
        if manifest is not None:
            reason = bring_everywhere(
                session, seam_files, commit, manifest, purpose=f"the run goes on from step {commit.step}"
            )
        if manifest is None or reason is not None:
            reasons.append(str(reason))
            then = "the one before is tried" if before is not None else "and there is none before it"
            session.warn_all(
                EventKind.WALK_BACK,
                f"{commit.name} (log entry {commit.number}) can't be resumed from, {then}: {reason}",
                step=commit.step,
                number=commit.number,
                reason=reason,
            )
            continue
        session.start_uploads(commit, spared=choice.left)
        return make_ready(session.access, session, seam_files, state, manifest)
    if candidates:
        count = "1 checkpoint" if len(candidates) == 1 else f"{len(candidates)} checkpoints"
        raise NoUsableCheckpointError(
            f"{session.address.uri} holds {count} that can't be resumed from, so nothing was loaded: "
            f"{'; '.join(reasons)}. `vl verify {session.address.uri}` tells whether files are damaged; to start over, "
            "name another vault, or put these aside with `vl archive`"
        )
    session.events.info(EventKind.FRESH, fresh_text(session.address.uri, state))
    session.start_uploads(None, spared=choice.left)
    settle_all(session, 0)
    return None
