"""The callback: the Trainer's events on one side, a session on the other.

It can be used alone with any Trainer, and it is what ``Trainer(resume=…)`` of this package puts in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from vaultlayer_hf.contents import (
    STATE,
    best_step,
    localise,
    missing_files,
    missing_shards,
    refusal,
    wanted_files,
)
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.events import Events
from vaultlayer_hf.fingerprint import Parameters, parameters_of
from vaultlayer_hf.ranks import current_ranks
from vaultlayer_hf.resume import Wish, resume
from vaultlayer_hf.saving import Save
from vaultlayer_hf.session import Session
from vaultlayer_hf.settings import Settings
from vaultlayer_hf.uri import parse_vault


class AlreadyFinishedError(Exception):
    """The checkpoint is already where training would end; carries the loaded state out of train()."""


class _MetricsCallback(TrainerCallback):
    """Adds the vault's figures to each log, ahead of the callbacks that report it."""

    def __init__(self, owner: VaultLayerCallback) -> None:
        self._owner = owner

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        session = self._owner.session
        # Only to the log of training steps: the dicts of evaluate() and train() go back to the script as they are.
        if session is not None and isinstance(logs, dict) and "loss" in logs and not self._owner._paused:
            logs.update(session.metrics())


class VaultLayerCallback(TrainerCallback):
    """Commits every checkpoint that a Trainer saves to a vault, in the background.

        vault = VaultLayerCallback("s3://bucket/my-run")
        trainer = Trainer(..., callbacks=[vault])
        trainer.train(resume_from_checkpoint=vault.pull())

    Args:
        vault: URI of the vault, or Settings that name it; None means ``VAULTLAYER_VAULT``.

    Attributes:
        finished: after ``pull()``: the step at which the run was already done, or None.

    Raises SettingsError, and VaultUriError for a URI that can't be meant.
    """

    def __init__(self, vault: str | os.PathLike[str] | Settings | None = None) -> None:
        if isinstance(vault, Settings):
            self._settings = vault
        elif vault is None:
            self._settings = Settings()
        else:
            self._settings = Settings(vault=os.fspath(vault))
        self._events = Events()
        self.session: Session | None = None
        self.finished: int | None = None
        self._check_vault()
        self._args: TrainingArguments | None = None
        self._model: Any = None
        self._parameters: Parameters = ()
        self._pulled = False
        self._path: str | None = None
        self._paused = False
        self.stops_when_finished = False

    def _check_vault(self) -> None:
        if not self._settings.vault:
            raise SettingsError("no vault is named: give its URI, or set VAULTLAYER_VAULT")
        parse_vault(self._settings.vault)

    # What a script calls -------------------------------------------------------------------------------

    def pull(self) -> str | None:
        """Claim the vault and bring the checkpoint to resume from; return its local path, None if there is none.

        Call it once the Trainer exists, right before train(). Raises what ``resume`` raises; SettingsError
        where no Trainer has been made with this callback.
        """
        if self._args is None:
            raise SettingsError(
                "pull() needs to know output_dir and the model: make the Trainer with callbacks=[vault] first"
            )
        if self._pulled:
            return self._path
        session = self._open()
        path = resume(session, self._wish())
        self._path = str(path) if path else None
        self._pulled = True
        self.finished = session.state.finished
        if self.finished is not None and not self.stops_when_finished:
            session.events.info(
                "finished", f"this run was already done at step {self.finished}", step=self.finished
            )
        return self._path

    def close(self) -> None:
        """Wait for uploads under way, as at the end of training, and stop. Safe to call twice."""
        if self.session is not None:
            self.session.close()

    # What the Trainer calls ----------------------------------------------------------------------------

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A callback isn't given the handler that calls it, and the handler is where the figures get into the log.
        handler = sys._getframe(1).f_locals.get("self")
        self.bind(args, kwargs.get("model"), handler if isinstance(handler, CallbackHandler) else None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._paused:
            return
        if self._args is None:
            self.bind(args, kwargs.get("model"), None)
        if not self._pulled:
            self._start_unpulled(state)
        assert self.session is not None
        self.session.step = state.global_step
        if args.save_only_model:
            self.session.events.warn(
                "notice",
                "save_only_model=True: what is saved can't be resumed from, so a restart will refuse it",
            )
        if state.global_step >= state.max_steps > 0 and self.stops_when_finished:
            raise AlreadyFinishedError

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.session is not None and not self._paused:
            self.session.step = state.global_step
            self.session.check_fence()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A stop asked for by an evaluation writes no checkpoint in stock, and its end would be lost.
        if (
            self.session is not None
            and not self._paused
            and control.should_training_stop
            and args.save_strategy != "no"
        ):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        session = self.session
        if session is None or self._paused or not self._counts(state):
            return
        world_size = args.world_size

        def missing(folder: Path, paths: set[str]) -> list[str]:
            if args.save_only_model:
                return []
            return missing_files(paths, world_size) + missing_shards(folder, paths)

        session.save(
            Save(
                Path(str(args.output_dir)) / f"checkpoint-{state.global_step}",
                state.global_step,
                missing,
                parameters=self._parameters,
                best_step=best_step({"best_model_checkpoint": state.best_model_checkpoint}),
                rotates=args.should_save,
            )
        )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        session = self.session
        if session is None or self._paused:
            return
        if session.flush() and self._counts(state):
            numbers = {
                name: value
                for name, value in (state.log_history[-1] if state.log_history else {}).items()
                if isinstance(value, (int, float)) and value == value
            }
            session.finish(state.global_step, numbers)
        session.close()
        self._paused = True

    # Inside --------------------------------------------------------------------------------------------

    def bind(self, args: TrainingArguments, model: Any, handler: CallbackHandler | None) -> None:
        """Take note of the Trainer's arguments and model, and put the figures into its logs."""
        self._args = args
        self._model = model
        self._parameters = parameters_of(model) if model is not None else ()
        if handler is not None:
            # Ahead of the reporters: what is added to a log behind them is reported nowhere. A new list, because
            # the handler may be going through the old one right now.
            handler.callbacks = [_MetricsCallback(self), *handler.callbacks]

    @contextmanager
    def paused(self, reason: str) -> Iterator[None]:
        """Keep a training away from the vault, and say why, once."""
        self._events.warn_once(reason, "notice", reason)
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def before_save(self, folder: Path) -> None:
        """Make way for a checkpoint folder that is about to be written."""
        if self.session is not None and not self._paused:
            self.session.before_save(folder)

    def say_finished(self, state: TrainerState) -> dict[str, float]:
        """Say that the run was done already, and return the metrics that it ended with."""
        assert self.session is not None
        self._paused = True
        self.session.events.info(
            "finished",
            f"this run is already at step {state.global_step} of {state.max_steps}: no step is trained; ask for more "
            "steps to go on",
            step=state.global_step,
        )
        return dict(self.session.state.metrics)

    def start(self, explicit: str | bool) -> None:
        """Claim the vault without resuming from it: the script names its own checkpoint."""
        session = self._open()
        session.events.info(
            "notice",
            f"train(resume_from_checkpoint={explicit!r}) wins over resume={self._settings.vault!r}: it starts from "
            "there, and what it saves from now on is committed to the vault",
        )
        session.enter()
        session.start_uploads(None)
        self._pulled = True

    def _open(self) -> Session:
        assert self._args is not None
        if self.session is None:
            self.session = Session(
                self._settings,
                Path(str(self._args.output_dir)),
                ranks=current_ranks(self._settings.part_timeout),
                events=self._events,
            )
        return self.session

    def _start_unpulled(self, state: TrainerState) -> None:
        session = self._open()
        before = session.enter().before
        newest = before.newest if before else None
        session.start_uploads(None)
        self._pulled = True
        if newest is not None:
            session.events.warn(
                "notice",
                f"{session.address.uri} holds {newest.name}, and this run starts at step {state.global_step} without "
                "it: call trainer.train(resume_from_checkpoint=vault.pull()) to go on from it",
            )

    def _wish(self) -> Wish:
        args = cast(Any, self._args)

        def localised(folder: Path, output_dir: Path) -> dict[str, bytes]:
            data = localise(folder, output_dir)
            return {STATE: data} if data else {}

        return Wish(
            parameters=self._parameters,
            missing=missing_files,
            wanted=wanted_files,
            refuse=refusal,
            localise=localised,
            best=args.load_best_model_at_end,
        )

    def _counts(self, state: TrainerState) -> bool:
        """Whether what is saved now belongs to the run: not the step that stock trains beyond a finished one."""
        return not (self.finished is not None and state.max_steps <= self.finished < state.global_step)
