"""The Trainer's side: follows the loader of a training, keeps its place with each checkpoint, and goes on from it.

The Trainer calls its callbacks when a pass begins, when a batch is done and when it has saved; the loader calls its
follower when it is opened. To leave out what was trained on, the Trainer calls ``skip_first_batches``, whose place a
function of ours has while a training is followed: see skipping.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.state.data.followed import why_not
from vaultlayer_hf.state.data.follower import Follower
from vaultlayer_hf.state.data.guard import Guard, no_longer
from vaultlayer_hf.state.data.likeness import Likeness, data_differences, take_likeness
from vaultlayer_hf.state.data.position import Moment, state_lost
from vaultlayer_hf.state.random_state import put_random_state
from vaultlayer_hf.trainer.data_file import Record, read_record
from vaultlayer_hf.trainer.evaluations import Evaluations
from vaultlayer_hf.trainer.skipping import Skipping


class TrainerData:
    """Follows the data of one training, on one rank."""

    def __init__(self, events: Events, ranks: Ranks) -> None:
        self._events, self._ranks = events, ranks
        self._follower: Follower | None = None
        self._evaluations: Evaluations | None = None
        self._likeness: Likeness = {}
        self._why = ""
        self._skipping = Skipping()
        self._guard = Guard(self._stop)

    # The Trainer's events -------------------------------------------------------------------------------

    def begin(
        self,
        loader: Any,
        args: TrainingArguments,
        state: TrainerState,
        folder: Path | None,
        handler: Any | None,
    ) -> None:
        """Follow a training that is about to begin, from the checkpoint in ``folder`` if that isn't None. All ranks.

        ``handler``: the Trainer's CallbackHandler, which knows the loaders of evaluations.
        """
        self.end()
        self._guard, self._why, self._likeness = Guard(self._stop), "", {}
        self._guard.run(self._follow, loader, args, handler)
        if folder is not None:
            self._go_on(folder, args, state)

    def _follow(self, loader: Any, args: TrainingArguments, handler: Any | None) -> None:
        if handler is not None:
            self._evaluations = Evaluations(handler, self._guard)
        self._why = why_not(loader)
        self._likeness = take_likeness(loader, self._ranks.world_size, args.gradient_accumulation_steps)
        if self._why:
            self._events.warn(EventKind.NOTICE, f"the place in the data isn't kept: {self._why}")
        else:
            self._skipping.replace()
            self._follower = Follower(loader, self._ranks.rank, self._ranks.world_size, self._guard)

    def _stop(self, why: str) -> None:
        """Note that the following has ended, and say so once."""
        self._why = why
        self._events.warn_once("data", EventKind.NOTICE, no_longer(why))

    def begin_epoch(self) -> None:
        """Note that a pass begins."""
        if self._follower is not None:
            self._guard.run(self._follower.begin_epoch)

    def begin_step(self) -> None:
        """Put the random state back that belongs here: behind a skip the Trainer has put that of the save."""
        if self._follower is not None and self._follower.after is not None:
            self._guard.run(self._settle_skip, self._follower)

    def _settle_skip(self, follower: Follower) -> None:
        after, follower.after = follower.after, None
        if after is not None and after.random is not None:
            put_random_state(after.random)
        for remark in follower.remarks:
            self._events.info(EventKind.NOTICE, remark)
        follower.remarks.clear()

    def end_batch(self, state: TrainerState, max_batches: int | None = None) -> None:
        """Note that a batch was trained on."""
        if self._follower is not None:
            self._guard.run(self._note_batch, self._follower, state, max_batches)

    def _note_batch(self, follower: Follower, state: TrainerState, max_batches: int | None) -> None:
        follower.batch_done()
        if max_batches and follower.epoch is not None:
            state.epoch = follower.epoch + follower.batches / max_batches  # as an unbroken run counts

    def end_epoch(self) -> None:
        """Note that a pass has ended."""
        if self._follower is not None:
            self._guard.run(self._follower.end_epoch)

    def save(self, folder: Path, state: TrainerState) -> None:
        """Write this rank's file into a checkpoint folder; trouble costs the file's content, never the training.

        A following that has ended is written down, too: the next start says then why it isn't exact.
        """
        position, why = None, self._why
        if self._follower is not None and not self._guard.why:
            try:
                position = self._follower.position()
            except Exception as error:
                why = self._not_kept("can't be had", error)
        try:
            self._write(Record(position, self._likeness | self._counts(state), why), folder)
        except Exception as error:
            self._events.warn(
                EventKind.TROUBLE, f"the place in the data can't be written into {folder}: {error}"
            )

    def _counts(self, state: TrainerState) -> dict[str, Any]:
        """Return what a record says of the step that it belongs to."""
        found = {"step": state.global_step, "loss": _loss_of(state)}
        return found if self._evaluations is None else found | {"evaluations": self._evaluations.count}

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
        self._skipping.put_back()

    # Inside ---------------------------------------------------------------------------------------------

    def _go_on(self, folder: Path, args: TrainingArguments, state: TrainerState) -> None:
        """Go on from a checkpoint's record, where every rank can; else say why not."""
        found = self._guard.run(self._usable_record, folder, args, state)
        record, words = found if found is not None else (None, [self._why])
        position = record.position if record is not None else None
        try:
            usable, words = self._ranks.decide(
                (position is not None, words),
                lambda answers: (
                    all(can for can, _ in answers),
                    next((text for can, text in answers if not can), answers[0][1]),
                ),
            )
        except RanksError as error:
            usable, words = False, [str(error)]
        if words and self._ranks.rank == 0:
            self._events.warn(
                EventKind.INEXACT,
                f"{folder.name}: the numbers may differ from an unbroken run's: {'; '.join(words)}",
            )
        if self._follower is not None and usable and not self._guard.why:
            self._follower.resume(position)
            self._follower.after = Moment()
        if self._evaluations is not None and usable and record is not None:
            self._evaluations.owed = record.likeness.get("evaluations", 0)

    def _usable_record(
        self, folder: Path, args: TrainingArguments, state: TrainerState
    ) -> tuple[Record | None, list[str]]:
        """Return the record to go on from, and what speaks against the same numbers."""
        if self._follower is None:
            return None, [self._why]
        record = read_record(folder, self._ranks.rank)
        if isinstance(record, str):
            return None, [record]
        if record.position is None:  # its likeness may be empty, then
            return None, [record.why]
        if record.likeness.get("world size") != self._ranks.world_size:
            return None, [f"{record.likeness.get('world size')} ranks then, {self._ranks.world_size} now"]
        if (record.likeness.get("step"), record.likeness.get("loss")) != (state.global_step, _loss_of(state)):
            return None, [f"its place in the data is of step {record.likeness.get('step')}"]
        if args.ignore_data_skip and record.position.batches and not record.position.over:
            return None, ["ignore_data_skip=True begins the data anew"]
        words, holds = data_differences(
            record.likeness, self._likeness, workers_draw=bool(record.position.workers)
        )
        if self._follower.doubt:
            words.append(self._follower.doubt)
        return (record if holds else None), words


def _loss_of(state: TrainerState) -> float | None:
    """Return the newest loss that was logged."""
    return next((float(entry["loss"]) for entry in reversed(state.log_history) if "loss" in entry), None)
