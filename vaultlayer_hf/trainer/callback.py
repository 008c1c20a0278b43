"""The callback: the Trainer's events on one side, a session on the other.

It can be used alone with any Trainer, and it is what ``Trainer(resume=…)`` of this package puts in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import FencedError, SettingsError
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.stop.exits import leave
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.model_identity import Parameters, parameters_of
from vaultlayer_hf.stores.uri import VaultAddress, parse_vault
from vaultlayer_hf.trainer.data import TrainerData
from vaultlayer_hf.trainer.figures import FiguresCallback
from vaultlayer_hf.trainer.over import EarlierRun, asked_steps, is_over
from vaultlayer_hf.trainer.terms import (
    end_figures,
    has_ended,
    ranks_of,
    save_of,
    save_the_end,
    stop_now,
    warn_of_arguments,
    wish_of,
)


class AlreadyFinishedError(Exception):
    """The run is over already; carries the loaded state out of train()."""


class VaultLayerCallback(TrainerCallback):
    """Commits every checkpoint that a Trainer saves to a vault, in the background.

        vault = VaultLayerCallback("s3://bucket/my-run")
        trainer = Trainer(..., callbacks=[vault])
        trainer.train(resume_from_checkpoint=vault.pull())

    From a checkpoint of a run that is over, stock transformers trains one more step. It isn't committed; a
    script that wants none of it asks ``if vault.finished is None`` before train().

    Args:
        vault: URI of the vault, or Settings that name it; None means ``VAULTLAYER_VAULT``.

    Attributes:
        finished: after ``pull()``: the step at which the run was over, or None where there is something to train.

    Raises SettingsError, and VaultUriError for a URI that can't be meant.
    """

    def __init__(self, vault: str | os.PathLike[str] | Settings | None = None) -> None:
        if isinstance(vault, Settings):
            self._settings = vault
        else:
            self._settings = Settings(vault=os.fspath(vault) if vault is not None else None)
        if not self._settings.vault:
            raise SettingsError("no vault is named: give its URI, or set VAULTLAYER_VAULT")
        parse_vault(self._settings.vault)
        self._args: TrainingArguments | None = None
        self._model: Any = None
        self._handler: CallbackHandler | None = None
        self.stops_when_finished = False
        self._reset()

    def _reset(self) -> None:
        """Be as before the first pull()."""
        self._events = Events()
        self.training: Training | None = None
        self.finished: int | None = None
        self._parameters: Parameters = ()
        self._path: str | None = None
        self._past: EarlierRun | None = None
        self._pulled = False  # the vault is claimed, and what to go on from is known
        self._suspended: str | None = None  # why trainings are kept away from the vault now
        self._active = False  # between the begin and the end of the training that is committed
        self._ended = False  # it came to its end
        self._over = False  # it was over before it began: what stock trains beyond that isn't committed
        self._data: TrainerData | None = None
        self._named: Path | None = None  # the checkpoint that the script names

    def __getstate__(self) -> dict[str, Any]:
        # A copy, such as hyperparameter searches make of a Trainer, must not write under this one's claim.
        kept = ("_settings", "_args", "_model", "_handler", "stops_when_finished")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    # What a script calls -------------------------------------------------------------------------------

    def pull(self) -> str | None:
        """Claim the vault and bring the checkpoint to resume from; return its local path, None if there is none.

        Call it once the Trainer exists, right before train(). A second call returns the same, unless a training
        was begun and broke off in between: then it goes on from what is newest now. Raises what ``resume``
        raises; SettingsError where no Trainer has been made with this callback; FencedError where another
        process has taken the vault from this one.
        """
        if self._args is None:
            raise SettingsError(
                "pull() needs to know output_dir and the model: make the Trainer with callbacks=[vault] first"
            )
        if self._pulled and not self._active:
            return self._path
        session = self._open()
        path = resume(session, wish_of(self._args, self._parameters))
        self._path = str(path) if path else None
        self._pulled = True
        if path is not None:
            self._look_back(self._args, session, path)
        return self._path

    @property
    def session(self) -> Session | None:
        """What this rank holds of its run; None before the vault is claimed."""
        return self.training.session if self.training is not None else None

    @property
    def vault(self) -> VaultAddress:
        """The vault's address."""
        return parse_vault(self._settings.vault or "")

    @property
    def events(self) -> Events:
        """Where what happens to this run's checkpoints is told."""
        return self._events

    def go_on_from(self, step: int) -> None:
        """Have the next ``pull()`` take the checkpoint of this step, unless the vault's URI names one already."""
        if self.vault.step is None:
            self._settings = replace(self._settings, vault=f"{self.vault}@{step}")

    def close(self) -> None:
        """Wait for uploads under way, as at the end of training, and stop. Safe to call twice."""
        self._leave_data()
        if self.training is not None:
            self.training.close()

    # What the Trainer calls ----------------------------------------------------------------------------

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bind(args, kwargs.get("model"), _calling_handler())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        reason = self._why_not(state)
        if reason is not None:
            self._events.warn_once(reason, EventKind.NOTICE, reason)
            return
        if self._args is None:
            self.bind(args, kwargs.get("model"), _calling_handler())
        if not self._pulled:
            self._start_unpulled(state)
        training = self.training
        assert training is not None
        session = training.session
        training.begin(state.global_step, getattr(Trainer.train, "__code__", None))
        self._active = True
        warn_of_arguments(session.events, args, paced=training.pacer.active)
        past = self._past or EarlierRun(state.global_step, state.max_steps)
        self._over = is_over(past, state.max_steps, loads_best=bool(args.load_best_model_at_end))
        if self._over and self.stops_when_finished:
            raise AlreadyFinishedError
        if self._over:
            session.events.warn(
                EventKind.FINISHED,
                f"this run is already over, at step {past.finished or past.step}: stock transformers trains one more "
                "step, which isn't committed; ask `if vault.finished is None` before train(), or for more steps",
                step=past.step,
            )
        if session.settings.exact_data == "on":
            self._data = self._data or TrainerData(session.events, session.ranks)
            loader = kwargs.get("train_dataloader")
            self._data.begin(loader, args, state, self._resumed_folder(args, state), self._handler)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._data is not None:
            self._data.begin_epoch()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._data is not None:
            self._data.begin_step()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._data is not None:
            self._data.end_batch(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._data is not None:
            self._data.end_batch(state, args.max_steps * args.gradient_accumulation_steps)
        if self.training is not None and self._active:
            verdict = self.training.at_step(state.global_step)
            if verdict.stop is not None:
                stop_now(control, save=verdict.save)
                return
            if verdict.save:
                control.should_save = True
            save_the_end(args, control, paced=self.training.pacer.active)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._data is not None:
            self._data.end_epoch()
        if self.training is not None and self._active and self.training.ending is not None:
            stop_now(control, save=False)  # it was saved at the end of the step, if there was time

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.training is not None and self._active:
            self.training.pacer.mark()
            save_the_end(args, control, paced=self.training.pacer.active)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        training = self.training
        if training is None or not self._active or self._over:
            return
        save = save_of(args, state, self._parameters, data=self._data is not None)
        if self._data is not None:
            self._data.save(save.folder, state)
        training.save(save)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        training = self.training
        if training is None or not self._active:
            return
        self._active, self._ended = False, True
        self._leave_data()
        flushed = training.flush()
        ending = training.ending
        if flushed and self._over:
            training.finish_again()
        elif flushed and has_ended(state, self._handler):
            training.finish(state.global_step, end_figures(state))
            ending = None
        elif state.global_step < state.max_steps:
            training.session.events.info(
                EventKind.STOPPED,
                f"training stopped at step {state.global_step} of {state.max_steps}, the next start goes on from there",
                step=state.global_step,
            )
        training.close()
        if ending is not None:
            leave(ending.reason, ending.code)

    # Inside --------------------------------------------------------------------------------------------

    def bind(self, args: TrainingArguments, model: Any, handler: CallbackHandler | None) -> None:
        """Take note of the Trainer's arguments and model, and put the figures into its logs.

        Raises SettingsError where the Trainer has a second callback of this kind.
        """
        self._args = args
        self._model = model
        self._handler = handler
        if handler is None:
            return
        if any(isinstance(other, VaultLayerCallback) and other is not self for other in handler.callbacks):
            raise SettingsError(
                "a Trainer has one vault: give it resume= or one VaultLayerCallback, not both"
            )
        # Ahead of the reporters: what is added to a log behind them is reported nowhere. A new list, because
        # the handler may be going through the old one right now.
        handler.callbacks = [FiguresCallback(self._figures), *handler.callbacks]

    def attach(self, model: Any) -> None:
        """Take note of the model that is about to be trained: it may be another than at the Trainer's start."""
        self._model = model

    @contextmanager
    def suspended(self, what: str) -> Iterator[None]:
        """Keep a training away from the vault; ``what`` it is, is said once."""
        before, self._suspended = self._suspended, what
        try:
            yield
        finally:
            self._suspended = before

    def before_save(self, folder: Path) -> None:
        """Make way for a checkpoint folder that is about to be written."""
        if self.training is not None and self._active:
            self.training.before_save(folder)

    def say_finished(self, state: TrainerState) -> dict[str, float]:
        """Say that the run was over already, and return the metrics that it ended with."""
        training = self.training
        assert training is not None
        session = training.session
        self._active, self._ended = False, True
        session.events.info(
            EventKind.FINISHED,
            f"this run is already over, at step {state.global_step} of {state.max_steps}: no step is trained; ask for "
            "more steps to go on",
            step=state.global_step,
        )
        metrics = dict(session.state.metrics)
        if training.flush():
            training.finish_again()
        return metrics

    def start(self, explicit: str | bool) -> None:
        """Claim the vault without resuming from it: the script names its own checkpoint."""
        session = self._open()
        session.events.info(
            EventKind.NOTICE,
            f"train(resume_from_checkpoint={explicit!r}) wins over resume={self._settings.vault!r}: it starts from "
            "there, and what it saves from now on is committed to the vault",
        )
        before = session.enter().before
        session.start_uploads(None, passed_over=before.newest if before else None)
        self._pulled, self._past = True, None
        self._named = Path(explicit) if isinstance(explicit, str) else None

    def _leave_data(self) -> None:
        data, self._data = self._data, None
        if data is not None:
            data.end()

    def _resumed_folder(self, args: TrainingArguments, state: TrainerState) -> Path | None:
        """Return the folder of the checkpoint that a training begins behind; None for one from the start."""
        if not state.global_step:
            return None
        if self._path is not None:
            return Path(self._path)
        return self._named or Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"

    def _open(self) -> Session:
        """Return a session to claim the vault with; one whose training broke off is left first."""
        args = self._args
        assert args is not None
        if self._active and self.training is not None:
            self.training.close()
            if self.training.session.disabled:
                raise FencedError(
                    f"{self.training.session.address.uri}: another process took this vault from this Trainer"
                )
            self.training, self._past, self.finished, self._active = None, None, None, False
        if self._handler is not None:
            # Last, to see what other callbacks do to a checkpoint, and whether they stop the training.
            self._handler.callbacks = [one for one in self._handler.callbacks if one is not self] + [self]
        self._parameters = parameters_of(self._model) if self._model is not None else ()
        if self.training is None:
            session = Session(
                self._settings,
                Path(str(args.output_dir)),
                ranks=ranks_of(args, self._settings.part_timeout),
                events=self._events,
                needs_best=bool(args.load_best_model_at_end),
                progress=not args.disable_tqdm,
            )
            self.training = Training(session)
        return self.training.session

    def _look_back(self, args: TrainingArguments, session: Session, path: Path) -> None:
        try:
            self._past = past = EarlierRun.read(path, session.state.finished)
        except (OSError, ValueError, KeyError, TypeError):
            return  # the Trainer will say what is wrong with it
        asked = asked_steps(past, args.max_steps, args.num_train_epochs)
        if is_over(past, asked, loads_best=bool(args.load_best_model_at_end)):
            self.finished = past.finished or past.step

    def _why_not(self, state: TrainerState) -> str | None:
        """Return why the training that begins is kept away from the vault; None where it isn't."""
        what = self._suspended
        if what is None and state.is_hyper_param_search:
            what = "a hyperparameter search"
        elif what is None and self._ended:
            what = "a second train() of one Trainer"
        return what and f"{what} doesn't fit one vault: trained as stock, nothing of it is committed"

    def _start_unpulled(self, state: TrainerState) -> None:
        session = self._open()
        before = session.enter().before
        newest = before.newest if before else None
        session.start_uploads(None, passed_over=newest)
        self._pulled = True
        if newest is not None:
            session.events.warn(
                EventKind.NOTICE,
                f"{session.address.uri} holds {newest.name}, and this run starts at step {state.global_step} without "
                "it: call trainer.train(resume_from_checkpoint=vault.pull()) to go on from it. It is kept, and "
                f"{session.address.uri}@{newest.step} leads to it",
            )

    def _figures(self) -> dict[str, float]:
        return self.training.metrics() if self.training is not None and self._active else {}


def _calling_handler() -> CallbackHandler | None:
    """Return the handler that has just called a callback: callbacks aren't told of it."""
    handler = sys._getframe(2).f_locals.get("self")
    return handler if isinstance(handler, CallbackHandler) else None
