"""What makes a checkpoint that was brought ready to be loaded: what lies around it on each disk, and the best."""

from __future__ import annotations

from pathlib import Path

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.output_dir import settle
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.bring import bring_everywhere, conversion_for
from vaultlayer_hf.session.start.look import look
from vaultlayer_hf.session.start.notices import say_world_size
from vaultlayer_hf.vault.log.entry import VaultState
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
    """Bring the best checkpoint too, where the end of training will load it."""
    step = manifest.best_step
    if not seam_files.best or step is None or step == manifest.step:
        return
    for commit in reversed(state.commits):
        if commit.step != step or commit.left_behind:
            continue
        best, reason = look(source, session, seam_files, commit)
        if best is not None:
            reason = bring_everywhere(
                session, seam_files, commit, best, purpose="the best so far", source=source
            )
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
