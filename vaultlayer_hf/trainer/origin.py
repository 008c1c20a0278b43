"""What a Trainer's training goes on from: the vault's newest checkpoint, one that its script names, or nothing.

Each of the three claims the vault on the way, so exactly one of them is called before a training is begun. All ranks.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.state.model_identity import ModelIdentity
from vaultlayer_hf.trainer.asked_epochs import TrainedEpochs
from vaultlayer_hf.trainer.fork_numbers import ForkNumbers
from vaultlayer_hf.trainer.loadable import load_trial
from vaultlayer_hf.trainer.notices import say_named_checkpoint, warn_of_passed_over, warn_of_trained_weights
from vaultlayer_hf.trainer.over import EarlierRun, asked_steps, is_over
from vaultlayer_hf.trainer.state_file import check_state
from vaultlayer_hf.trainer.step_sizes import PlaceInPass
from vaultlayer_hf.trainer.trainer_files import TrainerFiles

_trained: weakref.WeakKeyDictionary[Any, tuple[str, int]] = weakref.WeakKeyDictionary()
"""By a model that this process has trained, the vault and the step: a cell may make the Trainer anew, not the model."""


def note_trained(trainer: Any, uri: str) -> None:
    """Note what a Trainer's model has been trained for by this process, on a vault."""
    if trainer.state.global_step and trainer.model is not None:
        _trained[trainer.model] = (uri, int(trainer.state.global_step))


def _steps_of(trainer: Any, uri: str) -> int:
    """Return how many steps a Trainer's weights have been trained for already, by it or, on this vault, another one."""
    noted, step = _trained.get(trainer.model, ("", 0)) if trainer.model is not None else ("", 0)
    return int(trainer.state.global_step) or (step if noted == uri else 0)


@dataclass(frozen=True)
class Origin:
    """What a training goes on from.

    Attributes:
        folder: the checkpoint's, here; None for one from the start.
        named: whether it is the script that names the folder.
        earlier: what the run had come to; None where that isn't known.
        finished: step at which the run was over already; None where there is something to train.
        trained: how many epochs its checkpoint was trained; None where there is none, or it doesn't say.
        place: where that is in this start's steps, where they have other sizes; None where the Trainer counts.
        numbers: this script's own learning rate and schedule, where it is a fork that keeps them.
    """

    folder: Path | None = None
    named: bool = False
    earlier: EarlierRun | None = None
    finished: int | None = None
    trained: TrainedEpochs | None = None
    place: PlaceInPass | None = None
    numbers: ForkNumbers | None = None

    @property
    def path(self) -> str | None:
        """What the vault gives to ``train(resume_from_checkpoint=…)``; None where it gives nothing."""
        return str(self.folder) if self.folder is not None and not self.named else None


def from_vault(
    session: Session, args: TrainingArguments, identity: ModelIdentity, trainer: Any | None
) -> Origin:
    """Claim the vault and bring the checkpoint to resume from. Raises what ``resume`` raises.

    ``trainer``: None where only a callback is there.
    """
    files = TrainerFiles(args, identity, trial=load_trial(trainer))
    path = resume(session, files)
    if files.left_out:
        name = path.name if path is not None else "the best checkpoint"
        session.warn_all(EventKind.INEXACT, f"{name}: {files.left_out}; the run goes on without them")
    numbers = ForkNumbers.of(session, trainer)
    if path is None:
        steps = _steps_of(trainer, session.address.uri) if trainer is not None else 0
        if steps and getattr(trainer, "model_init", None) is None:
            warn_of_trained_weights(session, steps)
        return Origin(numbers=numbers)
    trained = session.ranks.on_rank_zero(lambda: TrainedEpochs.read(path))
    try:
        # Who names a step goes on from there, be it the one at which the run was stopped early.
        earlier = EarlierRun.read(path, None if session.goes_back else session.state.finished)
    except (OSError, ValueError, KeyError, TypeError):
        return Origin(path, trained=trained, numbers=numbers)  # the Trainer will say what is wrong with it
    asked = asked_steps(earlier, args.max_steps, args.num_train_epochs)
    over = is_over(earlier, asked, loads_best=bool(args.load_best_model_at_end))
    finished = (earlier.finished or earlier.step) if over else None
    return Origin(path, earlier=earlier, finished=finished, trained=trained, numbers=numbers)


def from_named(session: Session, folder: str, why: str) -> Origin:
    """Claim the vault without resuming from it: the script names its own checkpoint, and wins for a reason."""
    session.ranks.on_every_rank(lambda: check_state(Path(folder)))
    say_named_checkpoint(session, folder, why)
    before = session.enter().before
    session.start_uploads(None, spared=[before.newest] if before and before.newest else [])
    trained = session.ranks.on_rank_zero(lambda: TrainedEpochs.read(Path(folder)))
    return Origin(Path(folder), named=True, trained=trained)


def from_nothing(session: Session, step: int) -> Origin:
    """Claim the vault for a training that nobody asked it for, begun at ``step``, and say what that passes over."""
    before = session.enter().before
    newest = before.newest if before else None
    session.start_uploads(None, spared=[newest] if newest is not None else [])
    if newest is not None:
        warn_of_passed_over(session, newest, step)
    return Origin()
