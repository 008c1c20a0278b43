"""One training that is committed, from its begin to its end.

What is checked before its first step, what is saved in it, and how the Trainer is left behind it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.start.asked import keep_asked, say_what_differs
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.asked import Asked
from vaultlayer_hf.state.model_identity import ModelIdentity
from vaultlayer_hf.state.optimizer_errors import check_optimizers
from vaultlayer_hf.state.saved_digests import read_digests
from vaultlayer_hf.state.zero_rates import ZeroRates
from vaultlayer_hf.trainer.adapter_load import train_as_saved
from vaultlayer_hf.trainer.adapter_rest import adapter_rest
from vaultlayer_hf.trainer.added import Added, load_added, save_added
from vaultlayer_hf.trainer.asked import asked_for, holds_of, with_parts
from vaultlayer_hf.trainer.async_save.facts import acts_on_save
from vaultlayer_hf.trainer.begun import Begun
from vaultlayer_hf.trainer.callback_states import restore_from
from vaultlayer_hf.trainer.data import TrainerData
from vaultlayer_hf.trainer.first_step import FirstStep, is_within_epoch
from vaultlayer_hf.trainer.in_evaluation import InEvaluation
from vaultlayer_hf.trainer.kept_runs import keep_runs
from vaultlayer_hf.trainer.loadable import load_trial
from vaultlayer_hf.trainer.loaded import check_loaded, digests_of_copy, keep_digests
from vaultlayer_hf.trainer.origin import Origin
from vaultlayer_hf.trainer.outside import OutsideOfModel, UnsavedBuffers
from vaultlayer_hf.trainer.own_state import OwnState
from vaultlayer_hf.trainer.own_warnings import OwnTrouble, warn_of
from vaultlayer_hf.trainer.saving import Saving
from vaultlayer_hf.trainer.terms import save_of
from vaultlayer_hf.trainer.trained import Trained
from vaultlayer_hf.trainer.trainer_files import TrainerFiles
from vaultlayer_hf.trainer.trl_state import say_inexact, trl_state


class TrainingUnderWay:
    """One training that is committed.

        under_way = TrainingUnderWay(training, trainer, handler, identity, over=False)
        under_way.check(begun, Origin())
        training.begin(state.global_step)
        under_way.begin(begun, end)
        under_way.save(args, state, trained)  # at each save of the Trainer's
        under_way.put_back()

    Args:
        training: what its checkpoints are committed by.
        trainer: whose saves and evaluations are followed; None where only a callback is there.
        handler: the Trainer's; None where it can't be found.
        identity: of the model.
        over: whether the run was over before: nothing of this training is committed.
        added: what a script carries with each checkpoint beside the model.

    Attributes:
        data: the place in the data; None where it isn't followed.
        evaluation: what a notice does in one; None where the Trainer isn't known.
    """

    def __init__(
        self,
        training: Training,
        trainer: Any | None,
        handler: CallbackHandler | None,
        identity: ModelIdentity,
        *,
        over: bool,
        added: Iterable[Added] = (),
    ) -> None:
        self._training, self._trainer, self._handler = training, trainer, handler
        self._identity, self._over, self._own = identity, over, added
        self.data: TrainerData | None = None
        self.evaluation: InEvaluation | None = None
        self._saving: Saving | None = None
        self._asked = Asked()
        self._trial = load_trial(trainer)
        self._buffers, self._outside = UnsavedBuffers(), OutsideOfModel()
        self._own_state: OwnState | None = None
        self._rest: list[Added] = []
        self._first: FirstStep | None = None
        self._begun: Begun | None = None
        self._rates = ZeroRates(goes_on=False)
        self._kept: Path | None = None  # the folder that holds what is ours already

    def check(self, begun: Begun, origin: Origin) -> None:
        """Compare what is in memory, and what is asked for, with the checkpoint that it goes on from. All ranks.

        Raises OtherRunError and NotLoadedError.
        """
        session, trained, resumed = self._training.session, begun.trained, begun.resumed
        self._rest = adapter_rest(trained)
        with session.ranks.leaving_where_failed():
            self._asked = asked_for(begun, self._trainer)
            if resumed is None:
                return
            numbers = origin.numbers
            holds = holds_of(begun, fork=numbers is not None)
            own = session.forked is None
            # Counted before the data were looked at, and with them: who names a step goes on there on purpose.
            more = own and not self._over and origin.finished is not None and not session.goes_back
            over = {"over": own and self._over, "named_seed": True, "over_but_for_data": more}
            self._asked = say_what_differs(session, resumed, self._asked, holds, **over)
            session.ranks.on_every_rank(lambda: check_optimizers([trained.optimizer]))
            load_added(resumed, session, self._added())
            if not trained.sharded and (saved := read_digests(resumed, session.ranks.rank)) is not None:
                train_as_saved(trained.model, saved.model)
            check_loaded(resumed, session.ranks, session.events, trained)
            if numbers is not None:
                numbers.put(session, trained.optimizer, trained.scheduler)
            restore_from(session, self._handler, begun.args, begun.state)

    def begin(self, begun: Begun, end: Callable[[TrainerState], None]) -> None:
        """Follow the Trainer's saves, evaluations and data.

        ``end`` ends the training: within an evaluation, or ahead of its first step.
        """
        training, trainer, session = self._training, self._trainer, self._training.session
        args, trained, resumed = begun.args, begun.trained, begun.resumed
        self._begun, self._rates = begun, ZeroRates(goes_on=resumed is not None)
        if trainer is not None:
            self._saving = Saving(
                trainer, training, lambda folder, at: self._keep(folder, args, begun.state, trained, at)
            )
            self.evaluation = InEvaluation(trainer, training, end)
        say_inexact(session, trainer, self._callbacks(), resumed)
        owed = False
        if session.settings.exact_data == "on":
            self.data = TrainerData(session.events, session.ranks)
            added = [one.thing for one in self._added()]
            self._own_state = OwnState(trainer, self._callbacks(), trained, begun.loader, added)
            self.data.begin(begun, self._handler, trainer, self._own_state)
            owed = resumed is not None and self.data.end_owed_epoch()
            if owed and trainer is not None and trainer.control.should_training_stop:
                end(begun.state)
                return
        if resumed is not None and self._handler is not None:
            within = not owed and is_within_epoch(begun.state)
            self._first = FirstStep(
                session, self._handler, args, trained, resumed, self._own_state, within=within
            )

    def end_of_step(self, args: TrainingArguments, state: TrainerState) -> None:
        """Count the epoch as an unbroken run does, and look at the rates of a start that goes on."""
        if self.data is not None:
            self.data.count_epoch(args, state)
        if self._begun is not None:
            trained, session = self._as_it_is(self._begun.trained), self._training.session
            said = self._rates.step_done([trained.optimizer], [trained.scheduler])
            if said and session.ranks.rank == 0:
                session.events.warn(EventKind.NOTICE, said)

    def save(self, args: TrainingArguments, state: TrainerState, trained: Trained) -> None:
        """Have a checkpoint that the Trainer has saved committed in the background. Raises FencedError."""
        if self._over or (self._saving is not None and self._saving.lost):
            return
        training, session, trained = self._training, self._training.session, self._as_it_is(trained)
        own = [one.thing for one in self._own]
        if self._own_state is not None:
            own += self._own_state.modules
        self._outside.look(session.events, session.ranks.rank, trained, own)
        if self._own_state is None:
            self._buffers.look(session.events, session.ranks.rank, trained)
        else:
            warn_of(OwnTrouble.MOVED, session.events, session.ranks.rank, self._own_state.unkept)
        save = self._save_of(args, state)
        capture = self._saving.capture if self._saving is not None else None
        if self.evaluation is not None:
            self.evaluation.saved = state.global_step
        if capture is None:
            if self._kept != save.folder:  # it was saved by another way than the Trainer's own
                self._keep(save.folder, args, state, trained)
            elif any(map(acts_on_save, self._callbacks())):
                self._keep_again(save.folder, state)
            self._kept = None
            nonfinite = trained.nonfinite(session.ranks.rank, state.log_history)
            training.save(replace(save, nonfinite=nonfinite))
            return
        self._keep_small(capture.folder, args, state, trained)
        # Both read the whole state, so they do it beside the training, from the copy.
        copy = capture.copy
        digest = digests_of_copy(capture.folder, session.ranks, session.events, trained, copy.later)
        frozen = partial(copy.later, frozen_itself=True)
        look = trained.nonfinite_later(session.ranks.rank, state.log_history, frozen)
        found: list[str] = []

        def job() -> None:
            digest()
            found.append(look())

        # Noted ahead of its name, so that a kill behind the rename doesn't lose it.
        capture.hand_in(
            job,
            lambda: training.note_written(replace(save, folder=capture.folder)),
            lambda: training.save(
                replace(save, nonfinite=found[0], known=capture.known), beside=capture.seconds
            ),
        )
        training.captured()

    def put_back(self, *, together: bool = False) -> None:
        """Leave the Trainer as it was, with every checkpoint written. Safe to call twice. Raises FencedError.

        ``together``: all ranks do so now.
        """
        data, saving, evaluation, first = self.data, self._saving, self.evaluation, self._first
        self.data = self._saving = self.evaluation = self._first = None
        with ExitStack() as stack:  # each, whatever the one before raises; the last in here is the first
            if evaluation is not None:
                stack.callback(evaluation.put_back)
            if saving is not None:
                stack.callback(saving.put_back)
                if together:
                    stack.callback(saving.say_unloaded)
                    stack.callback(saving.settle)
            if data is not None:
                stack.callback(data.end)
            if first is not None:
                stack.callback(first.leave)

    def _save_of(self, args: TrainingArguments, state: TrainerState) -> Save:
        files = TrainerFiles(
            args, self._identity, data=self.data is not None, trial=self._trial, added=self._added()
        )
        return save_of(args, state, files)

    def _keep(
        self,
        folder: Path,
        args: TrainingArguments,
        state: TrainerState,
        trained: Trained,
        at: Path | None = None,
    ) -> None:
        """Write what is ours into a checkpoint folder, and note that it is this run's. All ranks.

        ``at``: where it is as long as it doesn't have its name.
        """
        save = self._save_of(args, state)
        # Of a trial: nothing of it is committed.
        if self._over or folder.absolute() != save.folder.absolute():
            return
        session = self._training.session
        at, trained = at or save.folder, self._as_it_is(trained)
        self._keep_small(at, args, state, trained)
        keep_digests(at, session.ranks, session.events, trained)
        self._training.note_written(replace(save, folder=at))
        self._kept = save.folder

    def _keep_small(
        self, folder: Path, args: TrainingArguments, state: TrainerState, trained: Trained
    ) -> None:
        session = self._training.session
        if self.data is not None:
            self.data.save(folder, state)
        keep_asked(folder, session, with_parts(self._asked, trained))
        save_added(folder, session, self._added())
        keep_runs(folder, session, self._callbacks(), args)

    def _keep_again(self, folder: Path, state: TrainerState) -> None:
        """Keep what callbacks have drawn and counted behind the save: they have done so by the next step.

        What the script has added is written again on one rank alone: telling its state may need all of them, and not
        each rank has such a callback.
        """
        session = self._training.session
        if self.data is not None:
            self.data.save(folder, state)
        if session.ranks.world_size == 1:
            save_added(folder, session, self._own)

    def _as_it_is(self, trained: Trained) -> Trained:
        """Return what is trained with the optimizer and the schedule that the Trainer saves.

        A script may exchange them on the way, and the Trainer goes on handing the first ones to its callbacks.
        """
        trainer = self._trainer
        if trainer is None:
            return trained
        return replace(trained, optimizer=trainer.optimizer, scheduler=trainer.lr_scheduler)

    def _added(self) -> list[Added]:
        return [*self._own, *trl_state(self._trainer, self._callbacks()), *self._rest]

    def _callbacks(self) -> Sequence[Any]:
        return self._handler.callbacks if self._handler is not None else ()
