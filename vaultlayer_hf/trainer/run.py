"""One Trainer's run on its vault: claimed, gone on from, trained, and ended; or kept away from it.

The callback tells it what the Trainer tells; ``Trainer(resume=…)`` and `vl run` drive its start and its end.
One file, because claimed, begun, ended and over are states of one run, and nearly every method moves it on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import FencedError, SettingsError
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.start.asked import keep_asked, say_what_differs
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.stop.exits import leave
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.asked import Asked, check_optimizers
from vaultlayer_hf.state.model_identity import ModelIdentity, identity_of
from vaultlayer_hf.stores.uri import VaultAddress, parse_vault
from vaultlayer_hf.trainer.asked import FORK_HOLDS, HOLDS, asked_for
from vaultlayer_hf.trainer.callback_states import restore_callback_states
from vaultlayer_hf.trainer.data import TrainerData
from vaultlayer_hf.trainer.fork_numbers import ForkNumbers
from vaultlayer_hf.trainer.in_evaluation import InEvaluation
from vaultlayer_hf.trainer.loaded import Trained, check_loaded, digests_of_copy, is_adapter, keep_digests
from vaultlayer_hf.trainer.notices import (
    say_named_checkpoint,
    say_over,
    say_stopped,
    warn_of_arguments,
    warn_of_one_more_step,
    warn_of_passed_over,
    warn_of_trained_weights,
)
from vaultlayer_hf.trainer.outside import warn_of_outside
from vaultlayer_hf.trainer.over import EarlierRun, asked_steps, is_over
from vaultlayer_hf.trainer.saving import Saving
from vaultlayer_hf.trainer.state_file import check_state
from vaultlayer_hf.trainer.terms import end_figures, has_ended, ranks_of, save_of
from vaultlayer_hf.trainer.trackers import keep_runs
from vaultlayer_hf.trainer.trainer_files import TrainerFiles


class AlreadyFinishedError(Exception):
    """The run is over already; carries the loaded state out of train()."""


class TrainerRun:
    """One Trainer's run on its vault.

        run = TrainerRun(Settings(vault="s3://bucket/my-run"))
        run.bind(trainer.args, trainer.model, trainer.callback_handler)
        path = run.pull()
        run.begin(args, state, loader)  # and so on, as the Trainer goes
        run.end(state)

    Args:
        settings: they name the vault.

    Attributes:
        settings: as given.
        events: where what happens to this run's checkpoints is told.
        training: what is driven; None before the vault is claimed.
        data: the place in the data; None where it isn't followed.
        finished: step at which the run was over when it was pulled; None where there is something to train.
        active: whether a training that is committed is between its begin and its end.
        complete: whether its newest training came to the run's end: all steps, or stopped early by its metric.
        stops_when_finished: whether ``begin`` raises AlreadyFinishedError for a run that is over.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.events = Events()
        self.training: Training | None = None
        self._at_step: int | None = None  # to go back to, once
        self.data: TrainerData | None = None
        self.finished: int | None = None
        self.active = False
        self.complete = False
        self.stops_when_finished = False
        self._args: TrainingArguments | None = None
        self._model: Any = None
        self._trainer: Any = None
        self._saving: Saving | None = None
        self._handler: CallbackHandler | None = None
        self._identity = ModelIdentity()
        self._path: str | None = None
        self._named: Path | None = None  # the checkpoint that the script names
        self._earlier: EarlierRun | None = None
        self._claimed = False  # and what to go on from is known
        self._suspended: str | None = None  # why trainings are kept away from the vault now
        self.evaluation: InEvaluation | None = (
            None  # what a notice does in one; None while nothing is trained
        )
        self._kept: Path | None = None  # the folder that holds what is ours already
        self._spent = False  # ``training`` was begun or closed: the next train() needs another
        self._ended = False  # the training that is committed came to its end
        self._asked = Asked()
        self._fork_numbers: ForkNumbers | None = None
        self._over = False  # it was over before it began: what stock trains beyond that isn't committed

    def __repr__(self) -> str:
        return f"TrainerRun({self.address})"

    def __getstate__(self) -> dict[str, Any]:
        # A copy, such as hyperparameter searches make of a Trainer, must not write under this one's claim.
        return {
            name: self.__dict__[name]
            for name in ("settings", "_args", "_model", "_handler", "stops_when_finished")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc] # a run that hasn't begun
        self.__dict__.update(state)

    @property
    def address(self) -> VaultAddress:
        """The vault's address."""
        return parse_vault(self.settings.vault or "")

    @property
    def bound(self) -> bool:
        """Whether the Trainer is known."""
        return self._args is not None

    def bind(self, args: TrainingArguments, model: Any, handler: CallbackHandler | None) -> None:
        """Take note of a Trainer's arguments, model and CallbackHandler."""
        self._args, self._model = args, model
        self._handler = handler if handler is not None else self._handler

    def attach(self, trainer: Any) -> None:
        """Take note of the Trainer that is about to train: its model may be another than at its start."""
        self._trainer, self._model = trainer, trainer.model

    # Ahead of a training --------------------------------------------------------------------------------

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
        if self._claimed and not self._spent:
            return self._path
        session = self.open()
        if self._at_step is not None:
            session.at_step, self._at_step = self._at_step, None
        files = TrainerFiles(self._args, self._identity)
        path = resume(session, files)
        if files.left_out:
            name = path.name if path is not None else "the best checkpoint"
            session.warn_all(EventKind.INEXACT, f"{name}: {files.left_out}; the run goes on without them")
        self._path = str(path) if path else None
        self._claimed, self._named = True, None
        self._fork_numbers = ForkNumbers.of(session, self._trainer)
        if path is not None:
            self._look_back(self._args, session, path)
        elif self._trained and getattr(self._trainer, "model_init", None) is None:
            warn_of_trained_weights(session, self._trained)
        return self._path

    def start(self, explicit: str, why: str) -> None:
        """Claim the vault without resuming from it: the script names its own checkpoint, and wins for a reason."""
        session = self.open()
        session.ranks.on_every_rank(lambda: check_state(Path(explicit)))
        say_named_checkpoint(session, explicit, why)
        before = session.enter().before
        session.start_uploads(None, spared=[before.newest] if before and before.newest else [])
        self._claimed, self._path = True, None
        self._named = Path(explicit)

    def start_unpulled(self, state: TrainerState) -> None:
        """Claim the vault for a training that was begun without ``pull``, and say what that passes over."""
        session = self.open()
        before = session.enter().before
        newest = before.newest if before else None
        session.start_uploads(None, spared=[newest] if newest is not None else [])
        self._claimed = True
        if newest is not None:
            warn_of_passed_over(session, newest, state.global_step)

    @property
    def _trained(self) -> int:
        """How many steps the Trainer's weights have been trained for already."""
        return int(self._trainer.state.global_step) if self._trainer is not None else 0

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
        what = self._suspended
        if what is None and state.is_hyper_param_search:
            what = "a hyperparameter search"
        elif what is None and self._ended:
            what = "a second train() of one Trainer"
        return what and f"{what} doesn't fit one vault: trained as stock, nothing of it is committed"

    @property
    def claimed(self) -> bool:
        """Whether the vault is claimed, and it is known what to go on from."""
        return self._claimed

    def open(self) -> Session:
        """Return a session to claim the vault with; one whose training broke off is left first."""
        args = self._args
        assert args is not None
        if self.training is not None and self._spent:
            self.close()
            if self.training.session.disabled:
                raise FencedError(f"{self.address.uri}: another process took this vault from this Trainer")
            self.training, self._claimed = None, False
        self._earlier = self.finished = None
        self.active = self.complete = self._ended = self._spent = False
        self._identity = ModelIdentity()
        if self._model is not None:
            self._identity = identity_of(self._model, adapter=is_adapter(self._model))
        if self.training is None:
            session = Session(
                self.settings,
                Path(str(args.output_dir)),
                ranks=ranks_of(args, self.settings.part_timeout),
                events=self.events,
                needs_best=bool(args.load_best_model_at_end),
                progress=not args.disable_tqdm,
            )
            self.training = Training(session)
        return self.training.session

    def _look_back(self, args: TrainingArguments, session: Session, path: Path) -> None:
        try:
            self._earlier = earlier = EarlierRun.read(path, session.state.finished)
        except (OSError, ValueError, KeyError, TypeError):
            return  # the Trainer will say what is wrong with it
        asked = asked_steps(earlier, args.max_steps, args.num_train_epochs)
        if is_over(earlier, asked, loads_best=bool(args.load_best_model_at_end)):
            self.finished = earlier.finished or earlier.step

    # While it trains ------------------------------------------------------------------------------------

    def begin(self, args: TrainingArguments, state: TrainerState, loader: Any, trained: Trained) -> None:
        """Begin a training on the claimed vault. All ranks.

        Raises AlreadyFinishedError where that is asked for, OtherRunError where what is asked for now can't go on from
        the checkpoint, NotLoadedError where what was loaded isn't what was saved.
        """
        training = self.training
        assert training is not None
        session = training.session
        resumed = self.resumed_folder(args, state)
        earlier = self._earlier or EarlierRun(state.global_step, state.max_steps)
        over = is_over(earlier, state.max_steps, loads_best=bool(args.load_best_model_at_end))
        self._asked = asked_for(args, trained.optimizer, loader, trained.model, self._trainer)
        if resumed is not None:
            own = self._fork_numbers
            holds = HOLDS if own is None else FORK_HOLDS
            say_what_differs(session, resumed, self._asked, holds, over=over and session.forked is None)
            session.ranks.on_every_rank(lambda: check_optimizers([trained.optimizer]))
            check_loaded(resumed, session.ranks, session.events, trained)
            if own is not None:
                own.put(session, trained.optimizer, trained.scheduler)
            self._restore_callbacks(args, state)
        training.begin(state.global_step, getattr(Trainer.train, "__code__", None))
        self.active = self._spent = True
        warn_of_arguments(session.events, args, paced=training.pacer.active)
        self._over = over
        if self._over and self.stops_when_finished:
            raise AlreadyFinishedError
        if self._trainer is not None:
            self._saving = Saving(
                self._trainer, training, lambda folder: self._keep(folder, args, state, trained)
            )
            self.evaluation = InEvaluation(self._trainer, training, self.end)
        if self._over:
            warn_of_one_more_step(session.events, earlier)
        if session.settings.exact_data == "on":
            self.data = self.data or TrainerData(session.events, session.ranks)
            self.data.begin(loader, args, state, resumed, self._handler, self._trainer)

    def _restore_callbacks(self, args: TrainingArguments, state: TrainerState) -> None:
        saved: Any = (
            state.stateful_callbacks
        )  # transformers declares a list, and holds a dictionary once it is read
        if (
            self._handler is None
            or not isinstance(saved, dict)
            or args.restore_callback_states_from_checkpoint
        ):
            return  # where the argument asks for it the Trainer has done it
        assert self.training is not None
        session = self.training.session
        restore_callback_states(
            self._handler.callbacks,
            saved,
            lambda text: session.warn_all(EventKind.NOTICE, text),
        )

    def resumed_folder(self, args: TrainingArguments, state: TrainerState) -> Path | None:
        """Return the folder of the checkpoint that a training begins behind; None for one from the start."""
        if not state.global_step:
            return None
        if self._path is not None:
            return Path(self._path)
        return self._named or Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"

    def save(self, args: TrainingArguments, state: TrainerState, trained: Trained) -> None:
        """Have a checkpoint that the Trainer has saved committed in the background. Raises FencedError."""
        if self.training is None or not self.active or self._over:
            return
        if self._saving is not None and self._saving.lost:
            return
        training, session = self.training, self.training.session
        save = save_of(args, state, self._identity.parameters, data=self.data is not None)
        warn_of_outside(session.events, session.ranks.rank, trained)
        save = replace(save, nonfinite=trained.nonfinite(session.ranks.rank, state.log_history))
        capture = self._saving.capture if self._saving is not None else None
        if self.evaluation is not None:
            self.evaluation.saved = state.global_step
        if capture is None:
            if self._kept != save.folder:  # it was saved by another way than the Trainer's own
                self._keep(save.folder, args, state, trained)
            self._kept = None
            training.save(save)
            return
        self._keep_small(capture.folder, args, state)
        capture.add(digests_of_copy(capture.folder, session.ranks, self.events, trained, capture.copy_of))
        capture.behind.append(lambda: training.save(save, captured=True))
        training.captured()

    def _keep(self, folder: Path, args: TrainingArguments, state: TrainerState, trained: Trained) -> None:
        """Write what is ours into a checkpoint folder, and note that it is this run's. All ranks."""
        if self.training is None or not self.active or self._over:
            return
        save = save_of(args, state, self._identity.parameters, data=self.data is not None)
        if folder.absolute() != save.folder.absolute():  # of a trial: nothing of it is committed
            return
        self._keep_small(save.folder, args, state)
        keep_digests(save.folder, self.training.session.ranks, self.events, trained)
        self.training.note_written(save)
        self._kept = save.folder

    def _keep_small(self, folder: Path, args: TrainingArguments, state: TrainerState) -> None:
        assert self.training is not None
        session = self.training.session
        if self.data is not None:
            self.data.save(folder, state)
        keep_asked(folder, session, self._asked)
        keep_runs(folder, session, self.callbacks(), args)

    def count_epoch(self, args: TrainingArguments, state: TrainerState) -> None:
        """Set the state's epoch at the end of a step as an unbroken run counts it."""
        if self.data is not None:
            self.data.count_epoch(state, args.max_steps * args.gradient_accumulation_steps)

    def callbacks(self) -> Iterable[Any]:
        """Return the Trainer's callbacks; none where its handler isn't known."""
        return tuple(self._handler.callbacks) if self._handler is not None else ()

    def goes_back(self) -> bool:
        """Tell whether a step is named to go on from: what was done behind it counts no more."""
        named = bool(self.address.named) or self._named is not None
        return named or (self.training is not None and self.training.session.at_step is not None)

    def is_fork(self) -> bool:
        """Tell whether it begins from another run's checkpoint."""
        return self.training is not None and self.training.session.forked is not None

    def figures(self) -> dict[str, float]:
        """Return what belongs into the Trainer's logs."""
        if self.training is None or not (self.active and self.settings.log_figures):
            return {}
        return self.training.metrics()

    # Behind it ------------------------------------------------------------------------------------------

    def end(self, state: TrainerState) -> None:
        """End the training: wait for uploads, and note whether the run is over.

        Where a signal or a notice has ended it, this ends the process, too.
        """
        training = self.training
        if training is None or not self.active:
            return
        self.active, self._ended = False, True
        self.complete = self._over or has_ended(state, self._handler)
        self._leave_trainer()
        flushed = training.flush()
        ending = training.ending
        if flushed and self._over:
            training.finish_again()
        elif flushed and self.complete:
            training.finish(state.global_step, end_figures(state))
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
        session = training.session
        self.active, self._ended, self.complete = False, True, True
        self._leave_trainer()
        say_over(session.events, state)
        metrics = dict(session.state.metrics)
        if training.flush():
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

    def _leave_trainer(self) -> None:
        data, self.data = self.data, None
        if data is not None:
            data.end()
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.put_back()
        evaluation, self.evaluation = self.evaluation, None
        if evaluation is not None:
            evaluation.put_back()
