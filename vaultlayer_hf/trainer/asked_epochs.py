"""The epochs that are asked for, where a step has another number of samples than it had when the checkpoint was made.

A Trainer that is bounded by epochs counts them in steps: it takes ``global_step`` for a number of this start's own
steps. Where these are larger (a larger batch, more GPUs, more accumulation) it finds itself farther in the data than it
is, or behind the end, and leaves out the rest; where they are smaller it trains some of the data once more. So here the
checkpoint's epoch, which is a number of passes and of no steps, tells which pass is under way, how much of it is done,
and how many of this start's steps the rest needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.data.likeness import Likeness, take_likeness
from vaultlayer_hf.trainer.begun import Begun
from vaultlayer_hf.trainer.data_file import Record, read_record
from vaultlayer_hf.trainer.layout import STATE
from vaultlayer_hf.trainer.loop_locals import local_of_loop
from vaultlayer_hf.trainer.over import EarlierRun, is_over
from vaultlayer_hf.trainer.wrapping import wrapped

SAMPLES, MIXED = "samples a step", "mixed steps"
"""Names in a rank's record: how many a step had, and whether an earlier start's had another number."""
_ROUNDING = 1e-6  # of an epoch, which is a sum of a whole number and a fraction


@dataclass(frozen=True)
class TrainedEpochs:
    """How far a checkpoint is, beside its step.

    Attributes:
        step: of the checkpoint.
        epoch: how many passes were trained, with the fraction of the one under way.
        samples: how many a step had, over all ranks; None where it isn't known.
        mixed: whether steps before these had another number of them.
    """

    step: int
    epoch: float
    samples: int | None = None
    mixed: bool = False

    @classmethod
    def read(cls, folder: Path) -> TrainedEpochs | None:
        """Read a checkpoint's folder; None where it doesn't say how far it is. On rank 0, whose record is asked."""
        try:
            state = json.loads((folder / STATE).read_text())
            step, epoch = int(state["global_step"]), float(state["epoch"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not (step and math.isfinite(epoch) and epoch > 0):
            return None
        record = read_record(folder, 0)
        likeness = record.likeness if isinstance(record, Record) else {}
        return cls(step, epoch, likeness.get(SAMPLES) or samples_of(likeness), bool(likeness.get(MIXED)))

    def differs(self, samples: int | None) -> bool:
        """Tell whether its step is no number of steps of so many samples; also where what a step had isn't known."""
        return self.mixed or self.samples is None or samples is None or self.samples != samples

    def place(self, batches: int, accumulation: int) -> tuple[int, int]:
        """Return the number of the pass under way, and how many steps of this start's are done of it.

        Rounded down: samples of less than a step come once more, and none is left out.

        >>> TrainedEpochs(36, 2.25).place(8, 1), TrainedEpochs(21, 1.3125).place(8, 1)
        ((2, 2), (1, 2))
        """
        number = math.floor(self.epoch + _ROUNDING)
        done = math.floor((self.epoch - number + _ROUNDING) * batches) // accumulation
        return number, max(0, done)

    def due(self, epochs: float, steps_a_pass: int, place: tuple[int, int]) -> int:
        """Return at which step so many epochs are trained, where what is left is trained in this start's steps.

        >>> TrainedEpochs(36, 2.25).due(4, 8, (2, 2))
        50
        """
        return self.step + math.ceil(epochs * steps_a_pass) - place[0] * steps_a_pass - place[1]


def samples_of(likeness: Likeness) -> int | None:
    """Return how many samples a step has, over all ranks, by what a run is like; None where that isn't known."""
    found = [likeness.get(name) for name in ("batch size", "accumulation", "world size")]
    return math.prod(found) if all(isinstance(one, int) and one > 0 for one in found) else None  # type: ignore[arg-type]


class StepsOfPass(int):
    """A number of steps that tells the Trainer's loop where a checkpoint is, as the loop asks for it.

    In all versions, and in copies of it that other libraries run, that is ``global_step // steps`` for the pass and
    ``global_step % steps`` for the steps of it. There is no other place at which both can be said.
    """

    step: int
    place: tuple[int, int]

    def __new__(cls, steps: int, step: int, place: tuple[int, int]) -> StepsOfPass:
        """Make a number for the checkpoint of ``step``, which is at ``place``."""
        made = super().__new__(cls, steps)
        made.step, made.place = step, place
        return made

    def __rfloordiv__(self, other: int) -> int:
        return self.place[0] if other == self.step else other // int(self)

    def __rmod__(self, other: int) -> int:
        return self.place[1] if other == self.step else other % int(self)


@contextmanager
def epochs_kept(trainer: Any, training: Training | None, trained: TrainedEpochs | None) -> Iterator[None]:
    """Have a Trainer that goes on from a checkpoint train the rest of its epochs, whatever its steps are made of now.

    ``training``: what it is committed by, where a vault is claimed. ``trained``: None where there is no checkpoint.
    """
    if training is None or trained is None:
        yield
        return
    world_size = training.session.ranks.world_size

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def set_initial_training_values(args: Any, dataloader: Any, *more: Any, **named: Any) -> Any:
            found = original(args, dataloader, *more, **named)
            return _in_own_steps(found, trained, args, dataloader, world_size)

        return set_initial_training_values

    with wrapped(trainer, {"set_initial_training_values": counting}):
        yield


def _in_own_steps(found: Any, trained: TrainedEpochs, args: Any, loader: Any, world_size: int) -> Any:
    """Return the Trainer's numbers: the epochs come first, the steps of a pass second, all steps last."""
    steps = found[1]
    place = place_now(trained, args, loader, world_size)
    if place is None:
        return found
    if place[1] >= steps:  # a rest of batches that this version counts as no step
        place = (place[0] + 1, 0)
    due = trained.due(args.num_train_epochs, steps, place)
    return (found[0], StepsOfPass(steps, trained.step, place), *found[2:-1], due)


def place_now(trained: TrainedEpochs, args: Any, loader: Any, world_size: int) -> tuple[int, int] | None:
    """Return where a checkpoint is in this start's steps; None where the Trainer knows, or nobody does."""
    if args.max_steps > 0:
        return None
    try:
        batches = len(loader)
    except TypeError:
        return None
    accumulation = args.gradient_accumulation_steps
    now = samples_of(take_likeness(loader, world_size, accumulation))
    return trained.place(batches, accumulation) if batches and trained.differs(now) else None


def has_none_left(
    session: Session, begun: Begun, trainer: Any, earlier: EarlierRun, trained: TrainedEpochs | None
) -> bool:
    """Return whether a run that is about to be gone on with is over, by the steps that the Trainer has counted.

    All ranks. ``trained``: None where there is no checkpoint. Raises OtherRunError where these steps are too few.
    """
    args, by_samples = begun.args, counts_samples(trainer)
    over = is_over(
        earlier,
        begun.state.max_steps,
        loads_best=bool(args.load_best_model_at_end),
        epochs=args.num_train_epochs if by_samples else None,
    )
    if trained is not None and not by_samples:
        _check_epochs(session, begun, trained, over=over)
    return over


def counts_samples(trainer: Any) -> bool:
    """Tell whether the loop under way goes on where the samples say, and not its number of batches."""
    return (
        trainer is not None and local_of_loop(trainer, "num_update_steps_per_epoch", StepsOfPass) is not None
    )


def _check_epochs(session: Session, begun: Begun, trained: TrainedEpochs, *, over: bool) -> None:
    """Compare the steps that a Trainer counts for its epochs with those that they need, where it counts by itself.

    That is where a script calls ``train(resume_from_checkpoint=vault.pull())``: nobody can tell its loop. All ranks.
    ``over``: it takes the run for one that is over. Raises OtherRunError, where steps are left to train.
    """
    args, state = begun.args, begun.state
    place = place_now(trained, args, begun.loader, session.ranks.world_size)
    if place is None:
        return
    due = trained.due(args.num_train_epochs, -(-len(begun.loader) // args.gradient_accumulation_steps), place)
    if due == state.max_steps or due <= trained.step:
        return
    counted = (
        f"a step has another number of samples than it had, and the Trainer counts {args.num_train_epochs:g} epochs as "
        f"{state.max_steps} steps of this start's size. {trained.epoch:.3g} of them are trained, by {trained.step} "
        f"steps, and the rest needs {due - trained.step} more"
    )
    remedy = f"`vault.train(trainer)` trains it, and so does max_steps={due}"
    if over:
        raise OtherRunError(f"{counted}, so nothing would be trained: {remedy}. Nothing was trained")
    session.warn_all(EventKind.INEXACT, f"{counted}: {remedy}", step=trained.step)
