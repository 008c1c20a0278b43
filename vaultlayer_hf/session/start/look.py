"""A look at one checkpoint: whether it is whole, and can be this run's. Reads its manifest alone.

``source``: the vault that holds it, which is the run's own, or the one that the run is forked from.
"""

from __future__ import annotations

from vaultlayer_hf.errors import (
    CorruptError,
    FormatVersionError,
    StoreError,
    WorldSizeError,
    WrongModelError,
)
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.notices import say_frozen
from vaultlayer_hf.state.model_identity import compare_parameters
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.manifest import Manifest, read_manifest


def check_fit(
    source: Access, session: Session, seam_files: CheckpointFiles, commit: Commit, manifest: Manifest
) -> None:
    """Raise WrongModelError or WorldSizeError where the checkpoint can't be this run's."""
    words = other_model(session, seam_files, manifest)
    if words:
        raise WrongModelError(
            f"{commit.name} in {source.address.uri} belongs to another model: {words}. Give each run a vault "
            "of its own, or build the model that this vault was written with"
        )
    refusal = seam_files.refusal(manifest.paths, written=manifest.world_size, now=session.ranks.world_size)
    if refusal:
        raise WorldSizeError(f"{commit.name} in {source.address.uri}: {refusal}")


def other_model(session: Session, seam_files: CheckpointFiles, manifest: Manifest) -> str:
    """Return how the checkpoint's model differs from the one at hand; empty where it doesn't, or isn't known.

    What may differ is said, once. On rank 0.
    """
    model = seam_files.model
    if not manifest.parameters or not model.parameters:
        return ""
    found = compare_parameters(manifest.parameters, model)
    if found.remark and not found.refusal:
        say_frozen(session, manifest, found.remark)
    return found.refusal


def _unfit(seam_files: CheckpointFiles, manifest: Manifest) -> str:
    """Return why a checkpoint isn't whole; empty where it is."""
    lacking = seam_files.missing(manifest.paths, world_size=manifest.world_size)
    return f"it lacks {', '.join(lacking)}, so a resume would not be the same run" if lacking else ""


def look(
    source: Access, session: Session, seam_files: CheckpointFiles, commit: Commit
) -> tuple[Manifest | None, str | None]:
    """Look at a commit on rank 0, for all: return its manifest, or why it can't be used. All ranks."""
    return session.ranks.on_rank_zero(
        lambda: _look(source, session, seam_files, commit), within=2 * session.settings.resume_timeout
    )


def _look(
    source: Access, session: Session, seam_files: CheckpointFiles, commit: Commit
) -> tuple[Manifest | None, str | None]:
    """Return a commit's manifest, or why it can't be used."""
    try:
        manifest = read_manifest(source.store, commit)
    except FormatVersionError:
        raise
    except CorruptError as error:
        return None, str(error)
    except StoreError as error:
        raise source.unreachable(error) from error
    check_fit(source, session, seam_files, commit, manifest)
    unfit = _unfit(seam_files, manifest)
    return (None, f"{commit.name}: {unfit}") if unfit else (manifest, None)
