"""The Trainer's terms in those of a session: its arguments as its ranks, its state as a save."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.training_args import ParallelMode

from vaultlayer_hf.base.events import Events
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.session.process_group import current_ranks
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.trainer.data import TrainerData
from vaultlayer_hf.trainer.layout import best_step
from vaultlayer_hf.trainer.micro_batches import check_micro_batches
from vaultlayer_hf.trainer.notices import say_end_not_held
from vaultlayer_hf.trainer.trainer_files import TrainerFiles

OUTPUT_DIR = "output_dir"
"""Name in a claim's detail: the folder that its Trainer writes into. It tells the trainings of one script apart."""


def ranks_of(args: TrainingArguments, timeout: float) -> Ranks:
    """Return the ranks that train together. Raises SettingsError where stock would have each train alone."""
    ranks = current_ranks(timeout)
    if ranks.world_size > 1 and args.parallel_mode == ParallelMode.NOT_PARALLEL:
        raise SettingsError(
            f"there are {ranks.world_size} ranks, and the Trainer doesn't train them together: each would go its own "
            "way, all on one vault. On CPU set use_cpu=True in TrainingArguments"
        )
    return ranks


def session_for(args: TrainingArguments, settings: Settings, events: Events) -> Session:
    """Return a session that hasn't claimed its vault, for a Trainer of these arguments. All ranks.

    Raises SettingsError, RanksError, and OtherMicroBatchError where `vl run` has made micro-batches differ.
    """
    session = Session(
        settings,
        Path(str(args.output_dir)),
        ranks=ranks_of(args, settings.part_timeout),
        events=events,
        needs_best=bool(args.load_best_model_at_end),
        progress=not args.disable_tqdm,
    )
    session.noted[OUTPUT_DIR] = folder_noted(args)
    check_micro_batches(session, args)
    return session


def folder_noted(args: TrainingArguments) -> str:
    """Return a Trainer's output folder as a claim notes it: as seen from the current folder, where it is within."""
    folder = os.path.abspath(str(args.output_dir))
    return os.path.relpath(folder) if Path(folder).is_relative_to(Path.cwd()) else folder


def save_of(args: TrainingArguments, state: TrainerState, files: TrainerFiles) -> Save:
    """Return what there is to say about the checkpoint that a Trainer has just saved."""
    return Save(
        Path(str(args.output_dir)) / f"checkpoint-{state.global_step}",
        state.global_step,
        files,
        parameters=files.model.parameters,
        best_step=best_step({"best_model_checkpoint": state.best_model_checkpoint}),
        rotates=args.should_save,
    )


def save_the_end(args: TrainingArguments, control: TrainerControl, *, paced: bool) -> None:
    """Have the Trainer save where it is told to stop: stock doesn't, and the end of the run would be lost.

    With ``save_strategy="epoch"`` stock does; with ``"best"`` or ``"no"`` no other checkpoints are wanted, unless
    ``paced``: the settings ask for them.
    """
    if control.should_training_stop and (
        args.save_strategy == "steps" or (paced and args.save_strategy != "epoch")
    ):
        control.should_save = True


def end_pass(
    data: TrainerData,
    args: TrainingArguments,
    state: TrainerState,
    control: TrainerControl,
    *,
    training: Training | None,
    saved: int | None,
) -> None:
    """Note that the loop leaves a pass; behind the last one that is asked for, have the Trainer stop, and save.

    ``saved``: the newest step that is saved. Stock saves the last one that it has counted, and passes may end earlier.
    """
    data.end_epoch(control)
    early = state.global_step < state.max_steps
    # Behind its last step the Trainer stops by itself, unless it has begun with another pass than the data have: only
    # such passes, which it doesn't see, are asked about there.
    if data.is_through(unseen=not early):
        control.should_training_stop = True
        if early and training is not None and saved != state.global_step:
            save_the_end(args, control, paced=training.pacer.active)


def stop_now(control: TrainerControl, *, save: bool, data: TrainerData | None = None) -> None:
    """Have the Trainer stop behind this step, with nothing but a save where there is time for one.

    ``data``: what that save keeps of the script's own objects, which may have asked for a stop of their own.
    """
    if data is not None and not control.should_training_stop:
        data.stop_outside()
    control.should_training_stop, control.should_save, control.should_evaluate = True, save, False


def note_end(training: Training, state: TrainerState) -> None:
    """Note in the vault that a training is at its end; say that it isn't, where its last save isn't in the vault."""
    if training.holds_last_save:
        training.finish(state.global_step, end_figures(state))
    else:
        say_end_not_held(training.session, state)


def end_figures(state: TrainerState) -> dict[str, float]:
    """Return the figures that a training ended with: those of its last log."""
    last = state.log_history[-1] if state.log_history else {}
    return {name: value for name, value in last.items() if isinstance(value, (int, float)) and name != "step"}


def has_ended(state: TrainerState, handler: CallbackHandler | None, data: TrainerData | None) -> bool:
    """Return whether a training is at its end: all steps or passes, or stopped early by its metric.

    Any other stop, such as by a callback that watches the clock, is one to go on from.
    """
    if state.global_step >= state.max_steps or (data is not None and data.is_through()):
        return True
    return any(
        isinstance(callback, EarlyStoppingCallback)
        and callback.early_stopping_patience_counter >= callback.early_stopping_patience
        for callback in (handler.callbacks if handler is not None else ())
    )
