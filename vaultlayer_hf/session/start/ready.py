"""What makes a checkpoint that was brought ready to be loaded: what lies around it on each disk, and the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import RanksError, StoreError, VaultLayerError
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.output_dir import settle
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.bring import bring_everywhere, conversion_for
from vaultlayer_hf.session.start.look import look
from vaultlayer_hf.session.start.notices import say_world_size
from vaultlayer_hf.vault.log.entries import read_entries
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.log.origin import FORK, fork_of
from vaultlayer_hf.vault.manifest import Manifest


def make_ready(
    source: Access, session: Session, seam_files: CheckpointFiles, state: VaultState, manifest: Manifest
) -> Path:
    """Return the folder of a checkpoint that was brought from a vault in this state, ready to be loaded. All ranks."""
    bring_best(source, session, seam_files, state, manifest)
    settle_all(session, manifest.step)
    conversion = conversion_for(session, seam_files, manifest)
    if conversion is not None:
        session.ranks.on_every_rank(conversion.on_ranks)
    say_world_size(session, manifest)
    return session.output_dir / f"checkpoint-{manifest.step}"


def settle_all(session: Session, step: int) -> None:
    session.ranks.on_every_rank(lambda: settle(session.output_dir, step) if session.leads_node else None)


def bring_best(
    source: Access, session: Session, seam_files: CheckpointFiles, state: VaultState, manifest: Manifest
) -> None:
    """Bring the best checkpoint too, where the end of training will load it.

    That of a fork may be the vault's that the run was forked from, as long as it has made no better one itself.
    """
    step = manifest.best_step
    if not seam_files.best or step is None or step == manifest.step:
        return
    if _bring_step(source, session, seam_files, state, step):
        return
    origin = session.origin
    if origin is not None and origin is not source:
        try:
            within = 2 * session.settings.resume_timeout
            before = session.ranks.on_rank_zero(lambda: _forked_from(session, origin, step), within=within)
            if before is not None and _bring_step(origin, session, seam_files, before, step):
                return
        except RanksError:
            raise
        except VaultLayerError as error:  # alike on all ranks
            session.warn_all(EventKind.WALK_BACK, f"the best checkpoint can't be restored: {error}")
    # Rank 0 says it, of its own disk.
    session.warn_all(EventKind.NOTICE, _not_brought(step, session.output_dir))


def _not_brought(step: int, output_dir: Path) -> str:
    best = f"the best checkpoint so far (step {step}) isn't in the vault"
    if (output_dir / f"checkpoint-{step}").is_dir():
        return (
            f"{best}, but on this disk alone, in {output_dir}: load_best_model_at_end can load it from there; a start "
            "on another disk can choose only among later ones that are better"
        )
    return (
        f"{best}, nor on this disk: load_best_model_at_end can choose only among later ones that are better"
    )


def _bring_step(
    source: Access, session: Session, seam_files: CheckpointFiles, state: VaultState, step: int
) -> bool:
    """Bring the checkpoint of a step from a vault in this state; tell whether it could be had. All ranks."""
    for commit in reversed(state.commits):
        if commit.step != step or commit.left_behind:
            continue
        best, reason = look(source, session, seam_files, commit)
        if best is not None:
            reason = bring_everywhere(
                session, seam_files, commit, best, purpose="the best so far", source=source
            )
        if reason is None:
            return True
        session.warn_all(
            EventKind.WALK_BACK, f"the best checkpoint can't be restored: {reason}", reason=reason
        )
    return False


def _forked_from(session: Session, origin: Access, step: int) -> VaultState | None:
    """Return the vault from which this run was forked as it stood then; None unless ``step`` is from ahead of the fork.

    On rank 0. Raises VaultUnreachableError, CorruptError.
    """
    before = session.entered.before
    newest = before.newest if before is not None else None
    try:
        claim = fork_of(read_entries(session.access.store, lambda _: None), newest) if newest else None
    except StoreError as error:
        raise session.access.unreachable(error) from error
    noted = claim.detail[FORK] if claim is not None else None
    if noted is None or step > noted["step"]:
        return None
    _, entry = origin.last()
    if entry is None or noted.get("vault_id") != entry.state.vault_id:
        return None
    # It may have gone back since, and have trained that step once more.
    then = (one for one in entry.state.commits if one.number <= noted["number"])
    return replace(entry.state, commits=tuple(replace(one, left_behind=False) for one in then))
