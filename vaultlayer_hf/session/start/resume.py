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
    WorldSizeError,
    WrongModelError,
)
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.output_dir import clear_half_done, settle, warn_of_unknown
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.adopt import adopt
from vaultlayer_hf.session.start.bring import bring_everywhere, conversion_for
from vaultlayer_hf.session.start.choice import StartChoice
from vaultlayer_hf.session.start.discover import check_no_damage, choose, choose_from
from vaultlayer_hf.session.start.notices import say_choice, say_frozen, say_world_size
from vaultlayer_hf.state.model_identity import compare_parameters
from vaultlayer_hf.vault.log.entry import Commit, Entry, VaultState
from vaultlayer_hf.vault.manifest import Manifest, read_manifest


def resume(session: Session, expected: CheckpointFiles) -> Path | None:
    """Claim the vault and return the local folder to resume from; None on an empty vault. All ranks.

    Raises, on all ranks alike, VaultUnreachableError, WrongModelError, WorldSizeError, NoSuchCheckpointError,
    NoUsableCheckpointError, CorruptError (the whole log), ResumeError (no space on a disk), SettingsError (another run
    uses ``output_dir``), RanksError.
    """
    found: list[tuple[VaultState | None, StartChoice]] = []

    def check(number: int, entry: Entry | None) -> Mapping[str, Any]:
        choice = choose(session, number, entry)
        found.append((entry.state if entry is not None else None, choice))
        _check_first_candidate(session, expected, choice, number, entry)
        return choice.detail

    claim = session.enter(check)

    def choose_again() -> StartChoice:
        # Between the look and the claim another writer may have committed or retired: what counts is the claim's.
        seen, choice = found[-1]
        before = claim.before
        if before is None or (seen is not None and seen.commits == before.commits):
            return choice
        return choose_from(session, before)

    choice = session.ranks.on_rank_zero(choose_again)
    session.ranks.on_every_rank(lambda: clear_half_done(session.output_dir) if session.leads_node else None)
    if claim.before is None:
        session.events.info(EventKind.FRESH, f"{session.address.uri} is empty: the run starts fresh")
        if session.leads_node:
            warn_of_unknown(session.output_dir, session.events)
        session.start_uploads(None)
        return None
    say_choice(session, choice)
    adopted = None
    if choice.adopts:
        adopted = adopt(
            session,
            claim.before,
            expected,
            lambda manifest: _other_model(session, expected, manifest),
            choice.left,
        )
    if adopted is None:
        return _restore_newest(session, expected, choice)
    _bring_best(session, expected, claim.before, adopted)
    return session.output_dir / f"checkpoint-{adopted.step}"


def _check_first_candidate(
    session: Session, expected: CheckpointFiles, choice: StartChoice, number: int, entry: Entry | None
) -> None:
    candidates = choice.candidates
    if not candidates:
        check_no_damage(session, number, entry)
        return
    try:
        _check_fit(session, expected, candidates[0], read_manifest(session.access.store, candidates[0]))
    except FormatVersionError:
        raise
    except CorruptError:
        pass  # said, with its reason, when it is this commit's turn
    except StoreError as error:
        raise session.access.unreachable(error) from error


def _check_fit(session: Session, expected: CheckpointFiles, commit: Commit, manifest: Manifest) -> None:
    """Raise WrongModelError or WorldSizeError where the checkpoint can't be this run's."""
    words = _other_model(session, expected, manifest)
    if words:
        raise WrongModelError(
            f"{commit.name} in {session.address.uri} belongs to another model: {words}. Give each run a vault "
            "of its own, or build the model that this vault was written with"
        )
    refusal = expected.refusal(manifest.paths, written=manifest.world_size, now=session.ranks.world_size)
    if refusal:
        raise WorldSizeError(f"{commit.name} in {session.address.uri}: {refusal}")


def _other_model(session: Session, expected: CheckpointFiles, manifest: Manifest) -> str:
    """Return how the checkpoint's model differs from the one at hand; empty where it doesn't, or isn't known.

    What may differ is said, once. On rank 0.
    """
    model = expected.model
    if not manifest.parameters or not model.parameters:
        return ""
    found = compare_parameters(manifest.parameters, model)
    if found.remark and not found.refusal:
        say_frozen(session, manifest, found.remark)
    return found.refusal


def _unfit(expected: CheckpointFiles, manifest: Manifest) -> str:
    """Return why a checkpoint isn't whole; empty where it is."""
    lacking = expected.missing(manifest.paths, world_size=manifest.world_size)
    return f"it lacks {', '.join(lacking)}, so a resume would not be the same run" if lacking else ""


def _restore_newest(session: Session, expected: CheckpointFiles, choice: StartChoice) -> Path | None:
    state = session.ranks.on_rank_zero(lambda: session.state)
    # A snapshot of several nodes, adopted just now, is committed as the newest, and is on this run's way.
    adopted = [one for one in reversed(state.commits) if one.token == session.entered.token]
    candidates = [*adopted, *choice.candidates]
    reasons = []
    for commit in candidates:
        manifest, reason = _lead_look(session, expected, commit)
        if manifest is not None:
            reason = bring_everywhere(
                session, expected, commit, manifest, f"the run goes on from step {commit.step}"
            )
        if manifest is None or reason is not None:
            reasons.append(str(reason))
            session.warn_all(
                EventKind.WALK_BACK,
                f"{commit.name} (log entry {commit.number}) can't be resumed from, the one before is tried: {reason}",
                step=commit.step,
                number=commit.number,
                reason=reason,
            )
            continue
        session.start_uploads(commit, spared=choice.left)
        _bring_best(session, expected, state, manifest)
        _settle(session, manifest.step)
        conversion = conversion_for(session, expected, manifest)
        if conversion is not None:
            session.ranks.on_every_rank(conversion.on_ranks)
        say_world_size(session, manifest)
        return session.output_dir / f"checkpoint-{manifest.step}"
    if candidates:
        raise NoUsableCheckpointError(
            f"{session.address.uri} holds {len(candidates)} checkpoint(s) and none can be resumed from, so nothing was "
            f"loaded: {'; '.join(reasons)}. Look with `vl verify {session.address.uri}`; to start over, name an "
            "empty vault"
        )
    session.events.info(
        EventKind.FRESH, f"{session.address.uri} holds no checkpoint yet: the run starts fresh"
    )
    session.start_uploads(None, spared=choice.left)
    _settle(session, 0)
    return None


def _settle(session: Session, step: int) -> None:
    session.ranks.on_every_rank(lambda: settle(session.output_dir, step) if session.leads_node else None)


def _lead_look(
    session: Session, expected: CheckpointFiles, commit: Commit
) -> tuple[Manifest | None, str | None]:
    """Look at a commit on rank 0, for all."""
    return session.ranks.on_rank_zero(
        lambda: _look(session, expected, commit), within=2 * session.settings.resume_timeout
    )


def _look(session: Session, expected: CheckpointFiles, commit: Commit) -> tuple[Manifest | None, str | None]:
    """Return a commit's manifest, or why it can't be used."""
    try:
        manifest = read_manifest(session.access.store, commit)
    except FormatVersionError:
        raise
    except CorruptError as error:
        return None, str(error)
    except StoreError as error:
        raise session.access.unreachable(error) from error
    _check_fit(session, expected, commit, manifest)
    unfit = _unfit(expected, manifest)
    return (None, f"{commit.name}: {unfit}") if unfit else (manifest, None)


def _bring_best(session: Session, expected: CheckpointFiles, state: VaultState, manifest: Manifest) -> None:
    """Bring the best checkpoint too, where the end of training will load it."""
    step = manifest.best_step
    if not expected.best or step is None or step == manifest.step:
        return
    for commit in reversed(state.commits):
        if commit.step != step or commit.left_behind:
            continue
        best, reason = _lead_look(session, expected, commit)
        if best is not None:
            reason = bring_everywhere(session, expected, commit, best, "the best so far")
        if reason is None:
            return
        session.warn_all(
            EventKind.WALK_BACK, f"the best checkpoint can't be restored: {reason}", reason=reason
        )
    session.warn_all(
        EventKind.NOTICE,
        f"the best checkpoint so far (step {step}) isn't in the vault: load_best_model_at_end can only choose among "
        "later ones",
    )
