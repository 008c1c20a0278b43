"""One Trainer's run on its vault: claimed, gone on from, trained, and ended; or kept away from it.

The callback tells it what the Trainer tells; ``Trainer(resume=…)`` and `vl run` drive its start and its end. What it
goes on from is an ``Origin``; what is there only while it trains is a ``TrainingUnderWay``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from vaultlayer_hf.base.events import Events
from vaultlayer_hf.errors import FencedError, SettingsError
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.stop.exits import leave
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.model_identity import ModelIdentity, identity_of
from vaultlayer_hf.stores.uri import VaultAddress, parse_vault
from vaultlayer_hf.trainer.added import AddedObjects
from vaultlayer_hf.trainer.asked_epochs import has_none_left
from vaultlayer_hf.trainer.begun import Begun
from vaultlayer_hf.trainer.data import TrainerData
from vaultlayer_hf.trainer.in_evaluation import InEvaluation
from vaultlayer_hf.trainer.notices import say_over, say_stopped, warn_of_arguments, warn_of_one_more_step
from vaultlayer_hf.trainer.origin import Origin, from_named, from_nothing, from_vault
from vaultlayer_hf.trainer.over import AlreadyFinishedError, EarlierRun
from vaultlayer_hf.trainer.terms import has_ended, note_end, session_for
from vaultlayer_hf.trainer.trained import Trained, is_adapter
from vaultlayer_hf.trainer.under_way import TrainingUnderWay


class TrainerRun:
    """One Trainer's run on its vault.

        run = TrainerRun(Settings(vault="s3://bucket/my-run"))
        run.bind(trainer.args, trainer.model, trainer.callback_handler)
        path = run.pull()
        run.begin(begun)  # and so on, as the Trainer goes
        run.end(state)

    Args:
        settings: they name the vault.

    Attributes:
        settings: as given.
        events: where what happens to this run's checkpoints is told.
        added: what the script carries with each checkpoint beside the model.
        training: what is driven; None before the vault is claimed.
        origin: what it goes on from; None until the vault is claimed.
        active: whether a training that is committed is between its begin and its end.
        complete: whether its newest training came to the run's end: all steps, or stopped early by its metric.
        stops_when_finished: whether ``begin`` raises AlreadyFinishedError for a run that is over.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.events = Events()
        self.added = AddedObjects()
        self.training: Training | None = None
        self._at_step: int | None = None  # to go back to, once
        self.active = self.complete = self.stops_when_finished = False
        self._args: TrainingArguments | None = None
        self._model: Any = None
        self._trainer: Any = None
        self._handler: CallbackHandler | None = None
        self._identity = ModelIdentity()
        self.origin: Origin | None = None
        self._under_way: TrainingUnderWay | None = None
        self._suspended: str | None = None  # why trainings are kept away from the vault now
        self._spent = False  # ``training`` was begun or closed: the next train() needs another
        self._ended = False  # the training that is committed came to its end
        self._over = False  # it was over before it began: what stock trains beyond that isn't committed
        self._earlier = EarlierRun(0, 0)  # what the run had come to then

    def __repr__(self) -> str:
        return f"TrainerRun({self.address})"

    def __getstate__(self) -> dict[str, Any]:
        # A copy, such as hyperparameter searches make of a Trainer, must not write under this one's claim.
        kept = ("settings", "_args", "_model", "_handler", "stops_when_finished")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc] # a run that hasn't begun
        self.__dict__.update(state)

    @property
    def address(self) -> VaultAddress:
        """The vault's address."""
        return parse_vault(self.settings.vault or "")

    def bind(self, args: TrainingArguments, model: Any, handler: CallbackHandler | None) -> None:
        """Take note of a Trainer's arguments, model and CallbackHandler."""
        self._args, self._model = args, model
        self._handler = handler if handler is not None else self._handler

    def attach(self, trainer: Any) -> None:
        """Take note of the Trainer that is about to train: its model may be another than at its start."""
        self._trainer, self._model = trainer, trainer.model

    def go_on_from(self, step: int) -> None:
        """Have the next ``pull`` go back to this step, unless the vault's URI names one already."""
        if not self.address.named:
            self._at_step = step

    def pull(self) -> str | None:
        """Claim the vault and bring the checkpoint to resume from: see VaultLayerCallback.pull."""
        if self._args is None:
            raise SettingsError(
                "pull() needs to know output_dir and the model: make the Trainer with callbacks=[vault] first (a "
                "subclass of VaultLayerCallback with an on_init_end of its own calls super().on_init_end in it)"
            )
        if self.origin is not None and not self._spent:
            return self.origin.path
        session = self.open()
        if self._at_step is not None:
            session.at_step, self._at_step = self._at_step, None
        self.origin = from_vault(session, self._args, self._identity, self._trainer)
        return self.origin.path

    def start(self, explicit: str, why: str) -> None:
        """Claim the vault without resuming from it: the script names its own checkpoint, and wins for a reason."""
        self.origin = from_named(self.open(), explicit, why)

    def start_unpulled(self, state: TrainerState) -> None:
        """Claim the vault for a training that was begun without ``pull``, and say what that passes over."""
        self.origin = from_nothing(self.open(), state.global_step)

    @contextmanager
    def suspended(self, what: str) -> Iterator[None]:
        """Keep a training away from the vault; ``what`` it is, is said once."""
        before, self._suspended = self._suspended, what
        try:
            yield
        finally:
            self._suspended = before

    def why_not(self, state: TrainerState) -> str | None:
        """Return why the training that begins is kept away from the vault; None where it isn't."""
        search = "a hyperparameter search" if state.is_hyper_param_search else None
        again = "a second train() of one Trainer" if self._ended else None
        what = self._suspended or search or again
        return what and f"{what} doesn't fit one vault: trained as stock, nothing of it is committed"

    @property
    def claimed(self) -> bool:
        """Whether the vault is claimed, and it is known what to go on from."""
        return self.origin is not None

    @property
    def finished(self) -> int | None:
        """Step at which the run was over when it was pulled; None where there is something to train."""
        return self.origin.finished if self.origin is not None else None

    def open(self) -> Session:
        """Return a session to claim the vault with; one whose training broke off is left first."""
        assert self._args is not None
        if self.training is not None and self._spent:
            self.close()
            if self.training.session.disabled:
                raise FencedError(f"{self.address.uri}: another process took this vault from this Trainer")
            self.training = self.origin = None
        self.active = self.complete = self._ended = self._spent = False
        model = self._model
        self._identity = ModelIdentity() if model is None else identity_of(model, adapter=is_adapter(model))
        if self.training is None:
            self.training = Training(session_for(self._args, self.settings, self.events))
        return self.training.session

    def begin(self, begun: Begun) -> None:
        """Begin a training on the claimed vault. All ranks.

        Raises AlreadyFinishedError where that is asked for, OtherRunError where what is asked for now can't go on from
        the checkpoint, NotLoadedError where what was loaded isn't what was saved.
        """
        training, origin = self.training, self.origin or Origin()
        assert training is not None  # the vault is claimed, by ``pull`` or one of the two starts
        args, state = begun.args, begun.state
        earlier = self._earlier = origin.earlier or EarlierRun(state.global_step, state.max_steps)
        self._over = has_none_left(training.session, begun, self._trainer, earlier, origin.trained)
        self._leave_trainer()  # of a training that broke off
        under_way = TrainingUnderWay(
            training, self._trainer, self._handler, self._identity, over=self._over, added=self.added
        )
        under_way.check(begun, origin)
        training.begin(state.global_step, getattr(Trainer.train, "__code__", None))
        self.active = self._spent = True
        warn_of_arguments(training.session.events, args, paced=training.pacer.active)
        self._under_way = under_way
        if not (self._over and self.stops_when_finished):
            under_way.begin(begun, self.end)
        if self._over or not self.active:  # it may just have ended
            if self.stops_when_finished:
                raise AlreadyFinishedError
            warn_of_one_more_step(training.session.events, state, earlier if self._over else None)

    def resumed_folder(self, args: TrainingArguments, state: TrainerState) -> Path | None:
        """Return the folder of the checkpoint that a training begins behind; None for one from the start."""
        folder = self.origin.folder if self.origin is not None else None
        newest = folder or Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        return newest if state.global_step else None

    @property
    def data(self) -> TrainerData | None:
        """The place in the data; None where it isn't followed."""
        return self._under_way.data if self._under_way is not None else None

    @property
    def evaluation(self) -> InEvaluation | None:
        """What a notice does within an evaluation; None while nothing is trained."""
        return self._under_way.evaluation if self._under_way is not None else None

    def save(self, args: TrainingArguments, state: TrainerState, trained: Trained) -> None:
        """Have a checkpoint that the Trainer has saved committed in the background. Raises FencedError."""
        if self._under_way is not None and self.active:
            self._under_way.save(args, state, trained)

    def count_epoch(self, args: TrainingArguments, state: TrainerState) -> None:
        """Set the state's epoch at the end of a step as an unbroken run counts it, and say what shows behind it."""
        if self._under_way is not None:
            self._under_way.end_of_step(args, state)

    def callbacks(self) -> Iterable[Any]:
        """Return the Trainer's callbacks; none where its handler isn't known."""
        return tuple(self._handler.callbacks) if self._handler is not None else ()

    def goes_back(self) -> bool:
        """Tell whether it goes on from a step that is named: what was done behind that counts no more."""
        session = self.training.session if self.training is not None else None
        named = self.origin is not None and self.origin.named
        return named or (session is not None and (session.goes_back or session.at_step is not None))

    def is_fork(self) -> bool:
        """Tell whether it begins from another run's checkpoint."""
        return self.training is not None and self.training.session.forked is not None

    def figures(self) -> dict[str, float]:
        """Return what belongs into the Trainer's logs."""
        shown = self.training if self.active and self.settings.log_figures else None
        return shown.metrics() if shown is not None else {}

    def end(self, state: TrainerState) -> None:
        """End the training: wait for uploads, and note whether the run is over.

        Where a signal or a notice has ended it, this ends the process, too.
        """
        training = self.training
        if training is None or not self.active:
            return
        self.active, self._ended = False, True
        self.complete = self._over or has_ended(state, self._handler, self.data)
        if self.complete and not self._over and self.data is not None:
            self.data.say_passes(state)
        self._leave_trainer(together=True)
        flushed, ending = training.flush(), training.ending
        if flushed and self._over and self._earlier.ended:
            training.finish_again()
        elif flushed and self.complete and not self._over:
            note_end(training, state)
            ending = None
        elif state.global_step < state.max_steps:
            say_stopped(training.session.events, state)
        training.close()
        if ending is not None:
            leave(ending.reason, ending.code)

    def end_untrained(self, state: TrainerState) -> dict[str, float]:
        """Say that the run was over already, and return the metrics that it ended with."""
        training = self.training
        assert training is not None
        self.active, self._ended, self.complete = False, True, True
        self._leave_trainer()
        say_over(training.session, state, self._earlier, is_fork=self.is_fork())
        metrics = dict(training.session.state.metrics)
        if training.flush() and self._earlier.ended:
            training.finish_again()
        elif training.ending is not None:  # a signal has come while uploads were waited for
            training.close()
            leave(training.ending.reason, training.ending.code)
        return metrics

    def close(self) -> None:
        """Wait for uploads under way, as at the end of training, and stop. Safe to call twice."""
        try:
            self._leave_trainer()
        finally:
            if self.training is not None:
                self._spent = True
                self.training.close()

    def _leave_trainer(self, *, together: bool = False) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.put_back(together=together)
