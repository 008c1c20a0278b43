"""The callback: the Trainer's events on one side, its run on a vault on the other.

It can be used alone with any Trainer, and it is what ``Trainer(resume=…)`` of this package puts in.
"""

from __future__ import annotations

import os
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings, settings_from
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.trainer.begun import Begun
from vaultlayer_hf.trainer.first_callback import FirstCallback, ahead_of_printing
from vaultlayer_hf.trainer.first_save import prepare_first_save
from vaultlayer_hf.trainer.notices import say_untrained, warn_of_unloaded
from vaultlayer_hf.trainer.on_stack import calling_handler, on_stack
from vaultlayer_hf.trainer.run import TrainerRun
from vaultlayer_hf.trainer.terms import end_pass, save_the_end, stop_now
from vaultlayer_hf.trainer.trackers import TrackersCallback
from vaultlayer_hf.trainer.train_on import train_on
from vaultlayer_hf.trainer.trained import Trained


class VaultLayerCallback(TrainerCallback):
    """Commits every checkpoint that a Trainer saves to a vault, in the background.

        vault = VaultLayerCallback("s3://bucket/my-run")
        trainer = Trainer(..., callbacks=[vault])
        vault.train(trainer)

    Where something else calls train(), it needs ``resume_from_checkpoint=vault.pull()``. From a checkpoint of a run
    that is over (``vault.finished``), stock transformers then trains one more step, which isn't committed.

    A subclass may have events of its own; in each it calls ``super()``.

    Args:
        vault: URI of the vault, or Settings that name it; None means ``VAULTLAYER_VAULT``.

    Attributes:
        run: the Trainer's run on this vault.

    Raises SettingsError, and VaultUriError for a URI that can't be meant.
    """

    def __init__(self, vault: str | os.PathLike[str] | Settings | None = None) -> None:
        self.run = TrainerRun(settings_from(vault, "VaultLayerCallback's vault"))
        self._handler: CallbackHandler | None = None
        self._save_prepared = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.vault)!r})"

    # What a script calls -------------------------------------------------------------------------------

    def add(self, name: str, thing: Any, *, each_rank: bool = False) -> None:
        """Carry one more object with each checkpoint: an EMA, a loss with weights of its own, a buffer.

            trainer.vault.add("ema", ema)  # or of a callback that is used alone: vault.add("ema", ema)

        Before train(). Its ``state_dict()`` is written into each checkpoint, and a resume hands that to its
        ``load_state_dict()`` ahead of the first step. Of several ranks all get what rank 0's has saved;
        ``each_rank``: each one its own. None is passed over: what an option leaves out.

        Raises SettingsError.
        """
        if self.run.active:
            raise SettingsError(f"add({name!r}) comes too late: call it before train()")
        self.run.added.add(name, thing, each_rank=each_rank)

    def train(self, trainer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call ``trainer.train(…)``, which goes on from the vault's newest checkpoint, as with ``resume=``.

        Of a run that is over nothing is trained, and what it has trained is loaded. Raises what ``pull`` does, and
        SettingsError where the Trainer has another vault.
        """
        if getattr(trainer, "_vaultlayer", None) is self:  # made with resume=: its train() does it
            return trainer.train(*args, **kwargs)
        self._check_alone(trainer.callback_handler)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        if self._handler is not trainer.callback_handler:
            self.bind(trainer.args, trainer.model, trainer.callback_handler)
        self.run.stops_when_finished = True
        try:
            return train_on(self, trainer, trainer.train, args, kwargs)
        finally:
            self.run.stops_when_finished = False

    def pull(self) -> str | None:
        """Claim the vault and bring the checkpoint to resume from; return its local path, None if there is none.

        Call it once the Trainer exists, right before train(). A second call returns the same, unless a training
        was begun and broke off in between: then it goes on from what is newest now. Raises what ``resume``
        raises; SettingsError where no Trainer has been made with this callback; FencedError where another
        process has taken the vault from this one.
        """
        self.stand_last()
        said = self.run.claimed or self.run.stops_when_finished
        path = self.run.pull()
        if self.session is not None and self.finished is not None and not said:
            warn_of_unloaded(self.session, self.finished, path)
        return path

    @property
    def finished(self) -> int | None:
        """After ``pull()``: the step at which the run was over, or None where there is something to train."""
        return self.run.finished

    @property
    def vault(self) -> VaultAddress:
        """The vault's address."""
        return self.run.address

    @property
    def events(self) -> Events:
        """Where what happens to this run's checkpoints is told."""
        return self.run.events

    @property
    def training(self) -> Training | None:
        """What is driven while it trains; None before the vault is claimed."""
        return self.run.training

    @property
    def session(self) -> Session | None:
        """What this rank holds of its run; None before the vault is claimed."""
        return self.training.session if self.training is not None else None

    def close(self) -> None:
        """Wait for uploads under way, as at the end of training, and stop. Safe to call twice."""
        self.run.close()

    # What the Trainer calls ----------------------------------------------------------------------------

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bind(args, kwargs.get("model"), calling_handler(self))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        run = self.run
        reason = run.why_not(state)
        if reason is not None:
            run.events.warn_once(reason, EventKind.NOTICE, reason)
            return
        if self._handler is None:  # a subclass has an on_init_end of its own, or the callback was added later
            self.bind(args, kwargs.get("model"), calling_handler(self))
        if self._handler is None:
            run.events.warn_once(
                "handler",
                EventKind.NOTICE,
                "the Trainer's CallbackHandler can't be found: the vault's figures aren't in the Trainer's logs, and a "
                "stop by EarlyStoppingCallback isn't taken for the run's end",
            )
        if not run.claimed:
            self.stand_last()
            run.start_unpulled(state)
        trainer = on_stack(lambda one: isinstance(one, Trainer) and one.callback_handler is self._handler)
        if trainer is not None:
            run.attach(trainer)
        resumed = run.resumed_folder(args, state)
        place = run.origin.place if run.origin is not None else None
        run.begin(Begun(args, state, kwargs.get("train_dataloader"), _trained(kwargs), resumed, place))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._handler is None:  # else it is heard of ahead of the script's own callbacks
            self._begin_epoch()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.run.evaluation is not None:
            self.run.evaluation.complete = False
        if self.run.data is not None:
            self.run.data.begin_step(state)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.run.data is not None:
            self.run.data.end_batch()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._handler is None:  # so there is no callback of ours ahead of the others
            self.run.count_epoch(args, state)
        if self.run.data is not None:
            self.run.data.end_step(state, control)
        if self.run.evaluation is not None:
            self.run.evaluation.complete = True
        if self.training is not None and self.run.active:
            decision = self.training.at_step(state.global_step, saves=control.should_save)
            if decision.stop is not None:
                stop_now(control, save=decision.save, data=self.run.data)
                return
            if decision.save:
                control.should_save = True
            save_the_end(args, control, paced=self.training.pacer.active)
            if not self._save_prepared:
                self._save_prepared = True
                saves = args.should_save and not control.should_save
                if saves and hasattr(kwargs["model"], "save_pretrained"):
                    prepare_first_save()  # behind the first step, which whoever restarts is waiting for

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.run.data is not None:
            saved = self.run.evaluation.saved if self.run.evaluation is not None else None
            end_pass(self.run.data, args, state, control, training=self.training, saved=saved)
        if self.training is not None and self.run.active and self.training.ending is not None:
            stop_now(control, save=False)  # it was saved at the end of the step, if there was time

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.run.evaluation is not None and self.run.active:
            self.run.evaluation.batch_done()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._say_untrained(state)
        if self.training is not None and self.run.active:
            self.training.pacer.mark()
            save_the_end(args, control, paced=self.training.pacer.active)

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *more: Any, **kwargs: Any
    ) -> None:
        self._say_untrained(state)

    def _say_untrained(self, state: TrainerState) -> None:
        """Say, once, that a model is looked at before train() has loaded anything into it."""
        if not (self.run.claimed or state.global_step or state.is_hyper_param_search):
            say_untrained(self.events, self.vault.uri)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.run.save(args, state, _trained(kwargs))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.run.end(state)

    # Its place among the Trainer's callbacks ------------------------------------------------------------

    def bind(self, args: TrainingArguments, model: Any, handler: CallbackHandler | None) -> None:
        """Take note of the Trainer's arguments and model, and put the figures into its logs.

        Raises SettingsError where the Trainer has a second callback of this kind.
        """
        self._check_alone(handler)
        self.run.bind(args, model, handler)
        self._handler = handler
        if handler is None:
            return
        # Ahead of the reporters: what is added to a log behind them is reported nowhere. A new list, because
        # the handler may be going through the old one right now.
        first = FirstCallback(self.run.figures, self._begin_epoch, self.run.count_epoch, self._had_no_batch)
        handler.callbacks = [first, TrackersCallback(self.run), *ahead_of_printing(handler.callbacks)]

    def _check_alone(self, handler: CallbackHandler | None) -> None:
        found = handler.callbacks if handler is not None else ()
        if any(isinstance(other, VaultLayerCallback) and other is not self for other in found):
            raise SettingsError(
                "a Trainer has one vault: give it resume= or one VaultLayerCallback, not both"
            )

    def _begin_epoch(self) -> None:  # a method, as a Trainer is pickled with its callbacks
        if self.run.data is not None:
            self.run.data.begin_epoch()

    def _had_no_batch(self) -> bool:
        return self.run.data is not None and self.run.data.had_no_batch

    def stand_last(self) -> None:
        """Be the last of the callbacks, to see what others do to a checkpoint, and whether they stop the training."""
        if self._handler is not None:
            self._handler.callbacks = [one for one in self._handler.callbacks if one is not self] + [self]


def _trained(kwargs: dict[str, Any]) -> Trained:
    """Return what a Trainer tells its callbacks of what it trains."""
    return Trained(kwargs["model"], kwargs.get("optimizer"), kwargs.get("lr_scheduler"))
