"""The Trainer's side: follows the loader of a training, keeps its place with each checkpoint, and goes on from it.

The Trainer calls its callbacks when a pass begins, when a batch is done and when it has saved; the loader calls its
follower when it is opened. To leave out what was trained on, the Trainer calls ``skip_first_batches``, whose place a
function of ours has while a training is followed: see skipping.py.
One file, because each of these calls reads and moves the same place in the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.save.beside import names_beside, say_what_is_gone
from vaultlayer_hf.state.data.followed import why_not
from vaultlayer_hf.state.data.follower import Follower
from vaultlayer_hf.state.data.guard import Guard, no_longer
from vaultlayer_hf.state.data.likeness import GENERATED, Likeness, steps_a_pass, take_likeness
from vaultlayer_hf.state.data.placed import in_doubt
from vaultlayer_hf.state.data.position import Moment, Position, state_lost
from vaultlayer_hf.state.random_state import put_random_state
from vaultlayer_hf.trainer.asked_epochs import MIXED, SIZES, TrainedEpochs
from vaultlayer_hf.trainer.begun import Begun
from vaultlayer_hf.trainer.data_file import (
    Record,
    newest_loss,
    read_record,
    record_of,
    record_of_others,
    usable_record,
)
from vaultlayer_hf.trainer.epoch_end import begins_next_epoch, end_epoch, figures_of_step, save_best
from vaultlayer_hf.trainer.evaluations import Evaluations
from vaultlayer_hf.trainer.logged_loss import LoggedLoss, sums_from
from vaultlayer_hf.trainer.notices import warn_of_fewer_passes, warn_of_schedule
from vaultlayer_hf.trainer.outside import accumulated
from vaultlayer_hf.trainer.own_of_ranks import names_of_others, of_rank_zero
from vaultlayer_hf.trainer.own_state import OwnState
from vaultlayer_hf.trainer.own_warnings import OwnTrouble, warn_of
from vaultlayer_hf.trainer.skipping import Skipping
from vaultlayer_hf.trainer.step_sizes import PlaceInPass, StepSizes


class OwnLoopError(Exception):
    """A loop that isn't the Trainer's goes past batches without asking."""


class TrainerData:
    """Follows the data of one training, on one rank."""

    def __init__(self, events: Events, ranks: Ranks) -> None:
        self._events, self._ranks = events, ranks
        self._follower: Follower | None = None
        self._evaluations: Evaluations | None = None
        self._likeness: Likeness = {}
        self._why = ""
        self._skipping = Skipping()
        self._trainer: Any | None = None
        self._losses: LoggedLoss | None = None
        self._own: OwnState | None = None
        self._guard = Guard(self._stop)
        self._output_dir = Path()
        self._beside: tuple[str, Sequence[str]] | None = None  # noted by a checkpoint, until the first step
        self._steps_a_pass: tuple[int, ...] = ()  # as the Trainer counts them; empty where that isn't known
        self._batches, self._passes = 0, 0.0  # of a pass, and how many of these; 0 where that isn't known
        self._cut = self._epoch_stopped = False
        self._accumulations: set[int] = set()  # gradient_accumulation_steps of the run's starts
        self._mixed = False  # whether steps of this run have had other numbers of samples
        self._figures: dict[str, float] = {}  # of the step that it goes on behind

    # The Trainer's events -------------------------------------------------------------------------------

    def begin(self, begun: Begun, handler: Any | None, trainer: Any | None, own: OwnState) -> None:
        """Follow a training that is about to begin, from the checkpoint that it goes on from, if any. All ranks.

        ``handler``: the Trainer's CallbackHandler, which knows the loaders of evaluations. ``trainer``: itself, where
        it is known. ``own``: what the script's own objects hold.
        """
        self.end()
        self._own, self._output_dir = own, Path(str(begun.args.output_dir))
        self._guard, self._why, self._likeness = Guard(self._stop), "", {}
        self._trainer = trainer
        self._losses = LoggedLoss(trainer) if trainer is not None else None
        self._batches, self._passes = 0, 0.0
        self._cut = self._epoch_stopped = False
        self._accumulations = {begun.args.gradient_accumulation_steps}
        self._figures, self._mixed = {}, False
        with suppress(TypeError):  # of data without a length
            self._batches = len(begun.loader)
            self._passes = begun.args.num_train_epochs if begun.args.max_steps <= 0 else 0.0
        self._guard.run(self._follow, begun.loader, begun.args, handler)
        if begun.resumed is not None:
            self._steps_a_pass = steps_a_pass(begun.loader, begun.args.gradient_accumulation_steps)
            trained = TrainedEpochs.read(begun.resumed) if self._ranks.rank == 0 else None
            self._mixed = trained is not None and trained.differs(self._sizes(), self._likeness)
            self._go_on(begun.resumed, begun)

    def _follow(self, loader: Any, args: TrainingArguments, handler: Any | None) -> None:
        if handler is not None:
            self._evaluations = Evaluations(handler, self._guard, self._say_drawing)
        self._why = why_not(loader)
        self._likeness = take_likeness(loader, self._ranks.world_size, args.gradient_accumulation_steps)
        if generated := getattr(args, "steps_per_generation", None):
            self._likeness[GENERATED] = generated
        self._skipping.replace(self._trainer, loader, args.gradient_accumulation_steps)
        if self._why:
            self._events.warn(EventKind.NOTICE, f"the place in the data isn't kept: {self._why}")
        else:
            self._follower = Follower(loader, self._ranks.rank, self._ranks.world_size, self._guard)

    def _stop(self, why: str) -> None:
        """Note that the following has ended, and say so once."""
        self._why = why
        self._events.warn_once("data", EventKind.NOTICE, no_longer(why))

    def _say_drawing(self, words: str) -> None:
        if self._ranks.rank == 0:
            self._events.warn_once("evaluation workers", EventKind.INEXACT, words)

    def end_owed_epoch(self) -> bool:
        """Do what an unbroken run does at the end of an epoch between the save and the next step. All ranks.

        Where the Trainer is known, and its loop doesn't do so itself. Return whether there was one; its control says
        whether the training stops there. Raises what evaluations raise.
        """
        follower, trainer, losses = self._follower, self._trainer, self._losses
        loss = losses.pending() if losses is not None else None
        owes = follower is not None and follower.owes_end and not self._guard.why and loss is not None
        owes = owes and begins_next_epoch(trainer) and hasattr(trainer, "_maybe_log_save_evaluate")
        try:
            owes = self._ranks.decide(owes, all)
        except RanksError:
            owes = False
        if not owes or follower is None or trainer is None:
            return False
        self._guard.run(follower.stand_at_end)
        end_epoch(trainer, loss, self._figures, self._events)
        self._guard.run(follower.leave_end)
        if self.is_through():
            trainer.control.should_training_stop = True
        if trainer.control.should_training_stop:
            save_best(trainer)
        return True

    def begin_epoch(self) -> None:
        """Note that a pass begins."""
        if self._follower is not None:
            self._guard.run(self._follower.begin_epoch)

    def begin_step(self, state: TrainerState) -> None:
        """Put back the random state that an unbroken run has here: the Trainer's own skip has put that of the save."""
        beside, self._beside = self._beside, None
        if beside is not None and self._ranks.rank == 0:
            say_what_is_gone(self._events, *beside, self._output_dir)
        if self._follower is not None and self._follower.after is not None:
            self._guard.run(self._settle_skip, self._follower, state)

    def _settle_skip(self, follower: Follower, state: TrainerState) -> None:
        after, follower.after = follower.after, None
        if after is not None and after.random is not None:
            put_random_state(after.random)
        for remark in follower.remarks:
            self._events.info(EventKind.NOTICE, remark)
        follower.remarks.clear()
        if follower.doubts:
            self._events.warn(EventKind.INEXACT, in_doubt(follower.doubts))
            follower.doubts.clear()
        if follower.unasked:  # of where such a loop is nothing is known from here on
            why = "the loop that trains isn't this transformers' own: it leaves out in its own way what was trained on"
            if any(state.global_step % steps == 0 for steps in self._steps_a_pass):
                why = (
                    f"with gradient_accumulation_steps={self._likeness.get('accumulation')} the Trainer takes step "
                    f"{state.global_step} for the end of a pass through the data, and it was within one, for steps "
                    "ahead of it had another number of batches: so it trains a whole pass from its beginning"
                )
            self._events.warn(EventKind.INEXACT, in_doubt([why]))
            self._guard.end(OwnLoopError(why))

    def count_epoch(self, args: TrainingArguments, state: TrainerState) -> None:
        """Set the state's epoch as an unbroken run counts it, at the end of a step and ahead of ``end_batch``.

        The Trainer counts by steps, and so begins with another pass at a resume where a callback ends passes early,
        and with pass 0 where data have no length: it takes all the run's batches for one pass of these.
        """
        follower = self._follower
        if follower is not None and not self._guard.why and follower.epoch is not None:
            batches = self._batches or args.max_steps * args.gradient_accumulation_steps
            state.epoch = follower.epoch + (follower.batches + 1) / batches

    def is_through(self, *, unseen: bool = False) -> bool:
        """Tell whether as many passes have ended as are asked for, if passes are asked for and not steps.

        ``unseen``: only where the Trainer counts them otherwise.
        """
        follower = self._follower
        if follower is None or self._guard.why or self._cut or not self._passes:
            return False
        return follower.ended >= self._passes and not (unseen and follower.epoch is None)

    def say_passes(self, state: TrainerState) -> None:
        """Say where other steps, or passes, are trained at the run's end than its schedule, or the script, goes by."""
        follower, passes = self._follower, self._passes
        if follower is None or self._guard.why or self._ranks.rank:
            return
        if not passes or len(self._accumulations) == 1:
            return
        trained = max(float(follower.ended), state.epoch or 0.0)
        if self.is_through() and state.global_step < state.max_steps:
            warn_of_schedule(self._events, state, passes, self._accumulations)
        elif state.global_step >= state.max_steps and trained < passes:
            warn_of_fewer_passes(self._events, state, trained, passes, self._accumulations)

    def end_batch(self) -> None:
        """Note that a batch was trained on."""
        if self._follower is not None:
            self._guard.run(self._follower.batch_done)

    def end_step(self, state: TrainerState, control: TrainerControl) -> None:
        """Note that a step is done, and whether a callback ends the pass with it.

        One that stops the training as well, such as for the time, wants the rest of the pass later: the Trainer's own
        stop is one behind the last step.
        """
        self.end_batch()
        stops = control.should_training_stop and state.global_step < state.max_steps
        self._epoch_stopped = control.should_epoch_stop and not stops

    def stop_outside(self) -> None:
        """Note that a signal or a notice stops the training behind this step, and no callback of the script's."""
        if self._own is not None:
            self._own.stopped_outside = True

    @property
    def had_no_batch(self) -> bool:
        """Whether the pass under way had none left where it was gone on with: there is another one behind it."""
        return self._follower is not None and self._follower.stood_behind

    def end_epoch(self, control: TrainerControl) -> None:
        """Note that the loop leaves a pass: it does so at its end, and where the training stops."""
        self._cut = control.should_training_stop and not self._ends_pass(control)
        if self._follower is not None and not (self._cut and _has_more(self._follower)):
            self._guard.run(self._follower.end_epoch)

    def _ends_pass(self, control: TrainerControl) -> bool:
        """Tell whether a callback ends the pass under way, and not the training alone."""
        return bool(control.should_epoch_stop) and (self._epoch_stopped or not control.should_training_stop)

    def save(self, folder: Path, state: TrainerState) -> None:
        """Write this rank's file into a checkpoint folder; trouble costs the file's content, never the training.

        A following that has ended is written down, too: the next start says then why it isn't exact.
        """
        position, why = None, self._why
        if self._follower is not None and not self._guard.why:
            try:
                position = self._follower.position()
                if self._trainer is not None and self._ends_pass(self._trainer.control):
                    position = replace(position, emptied=True)  # a callback ends the pass here
            except Exception as error:
                why = self._not_kept("can't be had", error)
        try:
            losses = self._losses.take() if self._losses is not None else None
            likeness = self._likeness | self._counts(state, position)
            self._write(Record(position, likeness, why, losses), folder)
        except Exception as error:
            self._events.warn(
                EventKind.TROUBLE, f"the place in the data can't be written into {folder}: {error}"
            )

    def _counts(self, state: TrainerState, position: Position | None) -> dict[str, Any]:
        """Return what a record says of the step that it belongs to."""
        found: dict[str, Any] = {"step": state.global_step, "loss": newest_loss(state.log_history)}
        if self._trainer is not None:  # a callback may have changed it
            found["accumulation"] = self._trainer.args.gradient_accumulation_steps
            found["figures"] = figures_of_step(self._trainer)
        found["accumulations"] = sorted(self._accumulations)
        sizes = self._sizes()
        found |= {SIZES: vars(sizes) if sizes is not None else None, MIXED: self._mixed}
        if self._ranks.rank == 0:
            found["beside"] = names_beside(self._output_dir)
        if self._own is not None:
            again = position is not None and position.fetched_again_whole
            found["own"] = self._own.state_dict(accumulated(self._trainer), fetched_again=again)
        return found if self._evaluations is None else found | {"evaluations": self._evaluations.count}

    def _sizes(self) -> StepSizes | None:
        """Return what this start's steps are made of, as the Trainer has counted them; None where it isn't known."""
        return StepSizes.of(self._likeness, self._batches) if self._batches else None

    def _write(self, record: Record, folder: Path) -> None:
        try:
            record.write(folder, self._ranks.rank)
        except OSError:
            raise
        except Exception as error:  # the data set's state may hold what can't be pickled
            why = self._not_kept("can't be written", error)
            replace(record, position=None, why=why).write(folder, self._ranks.rank)

    def _not_kept(self, what: str, error: Exception) -> str:
        """Say once that the place isn't kept; return why."""
        why = state_lost(what, error)
        self._events.warn_once("data", EventKind.NOTICE, f"the place in the data isn't kept: {why}")
        return why

    def end(self) -> None:
        """Leave the loader as it was."""
        if self._follower is not None:
            self._follower.leave()
            self._follower = None
        if self._evaluations is not None:
            self._evaluations.end()
            self._evaluations = None
        if self._losses is not None:
            self._losses.put_back()
            self._losses = None
        self._skipping.put_back()
        self._trainer = None

    # Inside ---------------------------------------------------------------------------------------------

    def _go_on(self, folder: Path, begun: Begun) -> None:
        """Go on from a checkpoint's record, where every rank can; else say why not."""
        args, state = begun.args, begun.state
        at = state.global_step, newest_loss(state.log_history)
        own = record_of(folder, self._ranks, *at)
        if self._ranks.rank == 0:
            first = own if isinstance(own, Record) else read_record(folder, 0)
            names = first.likeness.get("beside", ()) if isinstance(first, Record) else ()
            self._beside = folder.name, names
        if isinstance(own, Record) and self._own is not None:
            kept = own.likeness.get("own", {})
            self._put_own(self._own, kept, folder)
            self._warn_of(OwnTrouble.OTHER, self._own.made_otherwise(kept), folder)
            if own.position is not None and own.position.batches and not own.position.over:
                self._warn_of(OwnTrouble.ORDER, kept.get("orders", ()), folder)
        elif self._own is not None:
            of_ranks = [record_of_others(folder, self._ranks, *at, rank=rank) for rank in range(2)]
            if of_ranks[0] is not None:
                first, second = (one.likeness.get("own", {}) if one is not None else {} for one in of_ranks)
                self._put_own(self._own, of_rank_zero(first), folder)
                self._warn_of(OwnTrouble.RANKS, names_of_others(first, second), folder)
        losses = sums_from(own.losses) if isinstance(own, Record) and self._losses is not None else None
        found = None
        if self._follower is not None:
            found = self._guard.run(
                usable_record,
                own,
                self._follower,
                self._likeness,
                args.ignore_data_skip,
                by_samples=begun.place is not None,
            )
        record, words = found if found is not None else (None, [self._why])
        position = record.position if record is not None else None
        try:
            usable, summed, words = self._ranks.decide(
                (position is not None, losses is not None, words),
                lambda answers: (
                    all(can for can, _, _ in answers),
                    all(summed for _, summed, _ in answers),
                    next((text for can, _, text in answers if not can), answers[0][2]),
                ),
            )
        except RanksError as error:
            usable, summed, words = False, False, [str(error)]
        if words and self._ranks.rank == 0:
            self._events.warn(
                EventKind.INEXACT,
                f"{folder.name}: {in_doubt(words)}",
            )
        if self._follower is not None and usable and position is not None and not self._guard.why:
            _resume(self._follower, position, begun.place, args.gradient_accumulation_steps)
            self._follower.after = Moment()
        if usable and record is not None:
            # Earlier releases kept the newest one alone.
            then = record.likeness.get("accumulation", args.gradient_accumulation_steps)
            self._accumulations.update(record.likeness.get("accumulations", [then]))
            self._figures = record.likeness.get("figures", {})
        if self._evaluations is not None and usable and record is not None:
            self._evaluations.owed = record.likeness.get("evaluations", 0)
        if self._losses is not None and summed and losses is not None:
            self._losses.put(losses)

    def _put_own(self, own: OwnState, kept: Mapping[str, Any], folder: Path) -> None:
        """Put back what a script's own objects held, and name what of it is lost."""
        self._warn_of(OwnTrouble.LOST, own.load_state_dict(kept), folder)
        self._warn_of(OwnTrouble.UNFIT, own.unfit, folder)

    def _warn_of(self, trouble: OwnTrouble, names: Sequence[str], folder: Path) -> None:
        warn_of(trouble, self._events, self._ranks.rank, names, folder=folder.name)


def _resume(follower: Follower, position: Position, place: PlaceInPass | None, accumulation: int) -> None:
    """Go on from a position, where the Trainer does: at ``place`` where that is counted by samples.

    Of batches that make no whole step of this start's the loop leaves none out, so they come once more, in their order.
    """
    if place is None or position.over or position.emptied:
        follower.resume(position)
    elif place.number > position.passes:  # what is left of the pass is no step of this start's
        follower.resume(replace(position, over=True))
    elif place.steps * accumulation == position.batches:
        follower.resume(position)
    else:
        follower.resume_near(position, place.steps * accumulation)


def _has_more(follower: Follower) -> bool:
    """Tell whether a pass that the loop leaves isn't through: the next start goes on within it."""
    try:
        return not follower.position().emptied
    except Exception:  # what can't be had is said at the save
        return False
