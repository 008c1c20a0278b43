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
from dataclasses import dataclass, field
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
from vaultlayer_hf.trainer.step_sizes import PlaceInPass, StepSizes
from vaultlayer_hf.trainer.wrapping import wrapped

SIZES, MIXED = "step sizes", "mixed steps"
"""Names in a rank's record: what its start's steps are made of, and whether an earlier one's were of other sizes."""
_ROWS, _REST = "samples", "last batches"
"""Names in a likeness: how many rows the data have, and whether the last batch of a pass is left out."""
_ROUNDING = 1e-2  # of a batch: an epoch is a sum of whole passes and a fraction, rounded in its 16th digit


@dataclass(frozen=True)
class TrainedEpochs:
    """How far a checkpoint is, beside its step.

    Attributes:
        step: of the checkpoint.
        epoch: how many passes were trained, with the fraction of the one under way.
        sizes: of the steps of the start that made it; None where these aren't known.
        mixed: whether steps before these had another number of samples.
        likeness: of what its start was like, how many rows the data had, and whether a last batch was left out.
    """

    step: int
    epoch: float
    sizes: StepSizes | None = None
    mixed: bool = False
    likeness: Likeness = field(default_factory=dict)

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
        # 0.1.0 kept no sizes as such, but what they follow from.
        sizes = StepSizes.recorded(likeness.get(SIZES)) or StepSizes.of(likeness)
        rows = {
            name: likeness[name] for name in (_ROWS, _REST) if name in likeness
        }  # all ranks are told of it
        return cls(step, epoch, sizes, bool(likeness.get(MIXED)), rows)

    def differs(self, now: StepSizes | None, likeness: Likeness) -> bool:
        """Tell whether its step is known to be no number of steps of these sizes; ``likeness``: of this start.

        Where the last batch of a pass is left out, the same rows may be other numbers of steps of as many samples.

        >>> then = TrainedEpochs(6, 2.0, StepSizes(2, 2, 5))  # 10 rows are 3 steps, two of them of 4
        >>> then.differs(StepSizes(4, 1, 2), {}), then.differs(StepSizes(4, 1, 3), {})
        (True, False)
        """
        then = self.sizes
        if then is None or now is None:
            return False
        if self.mixed or not then.like(now):
            return True
        made = (then.batch, then.accumulation, self.likeness.get(_REST))
        if made == (now.batch, now.accumulation, likeness.get(_REST)):
            return False  # of what makes batches in its own way, at each start another number of them
        rows = (self.likeness.get(_ROWS), likeness.get(_ROWS))
        same = rows[0] == rows[1] if None not in rows else now.of_same_rows(then)
        return same and then.steps != now.steps

    def place(self, now: StepSizes) -> PlaceInPass:
        """Return where it is in steps of these sizes; its own are known.

        Rounded down: samples of less than a step come once more, and none is left out.

        >>> then = StepSizes(2, 1, 8)
        >>> TrainedEpochs(18, 2.25, then).place(StepSizes(4, 1, 4))
        PlaceInPass(number=2, steps=1)
        >>> TrainedEpochs(9, 1.125, then).place(StepSizes(2, 4, 8))
        PlaceInPass(number=1, steps=0)
        """
        then = self.sizes
        assert then is not None
        batches = round(self.epoch * then.batches)
        if abs(self.epoch * then.batches - batches) < _ROUNDING:
            number, done = divmod(batches, then.batches)
            return PlaceInPass(number, now.behind(then, done) // now.accumulation)
        # Its passes had another number of batches than follows from the samples, so the last one's size isn't known.
        number = math.floor(self.epoch)
        return PlaceInPass(number, math.floor((self.epoch - number) * (now.batches - 1)) // now.accumulation)

    def due(self, epochs: float, steps_a_pass: int, place: PlaceInPass) -> int:
        """Return at which step so many epochs are trained, where what is left is trained in this start's steps.

        >>> TrainedEpochs(36, 2.25).due(4, 8, PlaceInPass(2, 2))
        50
        """
        return self.step + math.ceil(epochs * steps_a_pass) - place.number * steps_a_pass - place.steps


class StepsOfPass(int):
    """A number of steps that tells the Trainer's loop where a checkpoint is, as the loop asks for it.

    In all versions, and in copies of it that other libraries run, that is ``global_step // steps`` for the pass and
    ``global_step % steps`` for the steps of it. There is no other place at which both can be said.
    """

    step: int
    place: PlaceInPass

    def __new__(cls, steps: int, step: int, place: PlaceInPass) -> StepsOfPass:
        """Make a number for the checkpoint of ``step``, which is at ``place``."""
        made = super().__new__(cls, steps)
        made.step, made.place = step, place
        return made

    def __rfloordiv__(self, other: int) -> int:
        return self.place.number if other == self.step else other // int(self)

    def __rmod__(self, other: int) -> int:
        return self.place.steps if other == self.step else other % int(self)


@contextmanager
def epochs_kept(
    trainer: Any,
    training: Training | None,
    trained: TrainedEpochs | None,
    note: Callable[[PlaceInPass | None], None],
) -> Iterator[None]:
    """Have a Trainer that goes on from a checkpoint train the rest of its epochs, whatever its steps are made of now.

    ``training``: what it is committed by, where a vault is claimed. ``trained``: None where there is no checkpoint.
    ``note`` is called ahead of the first step, with where that is in this start's steps; None: the Trainer counts.
    """
    if training is None or trained is None:
        yield
        return
    world_size = training.session.ranks.world_size

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def set_initial_training_values(args: Any, dataloader: Any, *more: Any, **named: Any) -> Any:
            found = original(args, dataloader, *more, **named)
            steps = found[1]
            place = place_now(trained, trainer, dataloader, world_size, steps)
            note(place)
            return found if place is None else _in_own_steps(found, trained, args.num_train_epochs, place)

        return set_initial_training_values

    with wrapped(trainer, {"set_initial_training_values": counting}):
        yield


def _in_own_steps(found: Any, trained: TrainedEpochs, epochs: float, place: PlaceInPass) -> Any:
    """Return the Trainer's numbers: the epochs come first, the steps of a pass second, all steps last."""
    steps = found[1]
    return (
        found[0],
        StepsOfPass(steps, trained.step, place),
        *found[2:-1],
        trained.due(epochs, steps, place),
    )


def place_now(
    trained: TrainedEpochs, trainer: Any, loader: Any, world_size: int, steps_a_pass: int
) -> PlaceInPass | None:
    """Return where a checkpoint is in this start's steps; None where the Trainer knows, or nobody does.

    ``steps_a_pass``: as the Trainer has counted them.
    """
    args = trainer.args
    # With sequence parallelism its passes have more batches than its loader says.
    if args.max_steps > 0 or getattr(trainer, "get_sp_size", lambda: 1)() > 1:
        return None
    try:
        batches = len(loader)
    except Exception:  # of the script's own data set: it raises what it likes
        return None
    likeness = take_likeness(loader, world_size, args.gradient_accumulation_steps)
    now = StepSizes.of(likeness, batches)
    if now is None or not trained.differs(now, likeness):
        return None
    place = trained.place(now)
    # A rest of batches may be no step: up to 4.51 none was counted for it.
    return place if place.steps < steps_a_pass else PlaceInPass(place.number + 1, 0)


def has_none_left(
    session: Session, begun: Begun, trainer: Any, earlier: EarlierRun, trained: TrainedEpochs | None
) -> bool:
    """Return whether a run that is about to be gone on with is over, by the steps that the Trainer has counted.

    All ranks. ``trained``: None where there is no checkpoint. Raises OtherRunError where these steps are too few.
    """
    args, by_samples = begun.args, begun.place is not None
    over = is_over(
        earlier,
        begun.state.max_steps,
        loads_best=bool(args.load_best_model_at_end),
        epochs=args.num_train_epochs if by_samples else None,
    )
    if trained is not None and not by_samples:
        _check_epochs(session, begun, trainer, trained, over=over)
    return over


def _check_epochs(
    session: Session, begun: Begun, trainer: Any, trained: TrainedEpochs, *, over: bool
) -> None:
    """Compare the steps that a Trainer counts for its epochs with those that they need, where it counts by itself.

    That is where a script calls ``train(resume_from_checkpoint=vault.pull())``: nobody can tell its loop. All ranks.
    ``over``: it takes the run for one that is over. Raises OtherRunError, where steps are left to train.
    """
    args, state = begun.args, begun.state
    steps = local_of_loop(trainer, "num_update_steps_per_epoch", int)
    if not steps:
        return
    place = place_now(trained, trainer, begun.loader, session.ranks.world_size, steps)
    if place is None:
        return
    due = trained.due(args.num_train_epochs, steps, place)
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
