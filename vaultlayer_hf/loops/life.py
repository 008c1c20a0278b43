"""How the training of a loop begins and ends on a vault, be it a Checkpointer's own or an attached script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import ResumeError, VaultLayerError
from vaultlayer_hf.loops.arguments import default_folder
from vaultlayer_hf.loops.folder import StateFiles
from vaultlayer_hf.session.process_group import current_ranks
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training


def begin_training(
    settings: Settings,
    output_dir: Path | None,
    files: StateFiles,
    events: Events,
    load: Callable[[Session, Path], int],
) -> tuple[Training, int | None]:
    """Claim the vault, restore its newest checkpoint, have it loaded, and begin. All ranks.

    Args:
        settings: name the vault.
        output_dir: where checkpoint folders lie; None: the default folder.
        files: what a checkpoint of this loop consists of.
        events: where to tell what happens.
        load: loads a restored folder on this rank, and returns how many steps are done.

    Returns the training, and how many steps are done; None on a vault without a checkpoint. What ``load`` raises on one
    rank is raised on all, as a ResumeError where it isn't an error of this package. Raises what ``resume`` raises.
    """
    ranks = current_ranks(settings.part_timeout)
    training = None
    try:
        session = Session(
            settings,
            output_dir or default_folder(settings, ranks, events),
            ranks=ranks,
            events=events,
            progress=sys.stderr.isatty(),
        )
        training = Training(session)
        path = resume(session, files)
        step = _load_on_all(session, path, load) if path is not None else None
        training.begin(step or 0)
    except BaseException:
        # Nobody else may know of this error (Ctrl-C on one rank, an object's own): the others would wait for us.
        ranks.leave()
        if training is not None:
            training.close()
        raise
    return training, step


def _load_on_all(session: Session, folder: Path, load: Callable[[Session, Path], int]) -> int:
    """Load on every rank; what one of them raises is raised on all."""
    ranks = session.ranks
    step, failure, cause = 0, None, None
    try:
        step = load(session, folder)
    except Exception as error:
        cause = error
        if not isinstance(error, (VaultLayerError, OSError)):
            error = ResumeError(f"{folder.name} can't be loaded: {type(error).__name__}: {error}")
        failure = ranks.named(error)
    for found in ranks.gather(failure):
        if found is not None:
            raise found from cause
    return step


def end_training(training: Training, step: int, figures: dict[str, float]) -> bool:
    """Wait for the uploads, and note in the vault that the run is done, where its end is in there. All ranks.

    ``figures``: numbers to note with it, by name. Returns whether nothing waits any more. Raises FencedError.
    """
    session = training.session
    done = training.flush()
    newest = session.newest_commits(1)
    held = bool(newest) and newest[-1].step == step
    if done and held:
        training.finish(step, figures)
    elif done and step == 0:
        session.warn_all(
            EventKind.TROUBLE,
            f"this run has saved nothing to {session.address.uri}, so it isn't noted as done: nothing called step() or "
            "save_state() before its end",
        )
    elif done:
        session.warn_all(
            EventKind.TROUBLE,
            f"{session.address.uri} doesn't hold the end of this run, step {step}, so the run isn't noted as done: "
            "start it once more to train what is missing",
        )
    return done
