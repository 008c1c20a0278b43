"""What a Trainer's run says to whoever reads its log: of its arguments, of what it goes on from, of its end."""

from __future__ import annotations

from collections.abc import Collection

from transformers import TrainerState, TrainingArguments

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.trainer.over import EarlierRun
from vaultlayer_hf.vault.log.entry import Commit


def warn_of_arguments(events: Events, args: TrainingArguments, *, paced: bool) -> None:
    """Say which of a Trainer's arguments take away what a vault is for. ``paced``: the settings ask for saves."""
    if args.save_strategy == "no" and not paced:
        events.warn(
            EventKind.NOTICE,
            "save_strategy='no': the Trainer saves nothing, so nothing is committed and nothing can be resumed",
        )
    elif args.save_only_model:
        events.warn(
            EventKind.NOTICE,
            "save_only_model=True: what is saved can't be resumed from, so a restart will refuse it",
        )
    if getattr(args, "enable_jit_checkpoint", False):
        events.warn(
            EventKind.NOTICE,
            "enable_jit_checkpoint=True: on SIGTERM each rank saves by itself, beside the save that all ranks make for "
            "the vault at one step; leave it out",
        )


def warn_of_trained_weights(session: Session, trained: int) -> None:
    """Warn that a run begins at step 0 with weights that ``trained`` steps have changed already."""
    session.events.warn(
        EventKind.NOTICE,
        f"{session.address.uri} holds no checkpoint, so train() begins at step 0, and with the weights and the "
        f"optimizer that {trained} step(s) have changed already: to begin anew, make the model and the "
        "Trainer again",
    )


def say_named_checkpoint(session: Session, named: str, why: str) -> None:
    """Say that the checkpoint that the script names wins over the vault's, and why."""
    session.events.info(
        EventKind.NOTICE,
        f"{why}: the run starts from {named}, and what it saves from now on is committed to the vault",
    )


def warn_of_passed_over(session: Session, newest: Commit, step: int) -> None:
    """Warn that a training begins at ``step``, without the vault's ``newest`` checkpoint."""
    session.events.warn(
        EventKind.NOTICE,
        f"{session.address.uri} holds {newest.name}, and this run starts at step {step} without "
        "it: call trainer.train(resume_from_checkpoint=vault.pull()) to go on from it. It is kept, and "
        f"{session.address.uri}@{newest.step} leads to it",
    )


def say_untrained(events: Events, vault: str) -> None:
    """Say, once, that an evaluation ahead of train() is one of the model as the script has made it."""
    text = (
        "this evaluates the model as the script has made it: what the vault holds is loaded by train() alone. To "
        f"evaluate a checkpoint, `vl pull {vault} FOLDER`, and give the Trainer from_pretrained(FOLDER)"
    )
    events.warn_once("untrained", EventKind.NOTICE, text)


def warn_of_unloaded(session: Session, step: int, folder: str | None) -> None:
    """Warn that a run is over, and that nothing has loaded what it has trained. All ranks."""
    session.warn_all(
        EventKind.NOTICE,
        f"this run is over, at step {step}, and the model in memory isn't the trained one: pull() loads nothing. "
        f"`vault.train(trainer)` loads it, and trains only what is left to train; or load {folder} ahead of evaluating "
        "or saving the model; or ask for more steps",
        step=step,
    )


def warn_of_one_more_step(events: Events, state: TrainerState, earlier: EarlierRun | None) -> None:
    """Warn that stock transformers trains a step more, though none is left to train.

    ``earlier``: what the run had come to that was over before; None: it has come to its end, or a stop, at this start.
    """
    if earlier is None:
        events.warn(
            EventKind.NOTICE,
            f"training ends at step {state.global_step}, with what was left to do at the end of the epoch: stock "
            "transformers trains one more step, which isn't committed",
            step=state.global_step,
        )
        return
    events.warn(
        EventKind.FINISHED,
        f"this run is already over, at step {earlier.finished or earlier.step}: stock transformers trains one "
        "more step, which isn't committed; `vault.train(trainer)` trains none, or ask for more steps",
        step=earlier.step,
    )


def warn_of_schedule(
    events: Events, state: TrainerState, passes: float, accumulations: Collection[int]
) -> None:
    """Warn that all epochs are trained, and the schedule was made for more steps than these have."""
    events.warn(
        EventKind.INEXACT,
        f"training ends at step {state.global_step} of {state.max_steps}: the {passes:g} epochs that are asked for are "
        f"trained. Some steps had more batches than others ({_in_words(accumulations)}), so these epochs have "
        "fewer steps than the schedule of the learning rate is made for, and it isn't at its end; with "
        f"max_steps={state.global_step} it would be",
        step=state.global_step,
    )


def warn_of_fewer_passes(
    events: Events, state: TrainerState, trained: float, passes: float, accumulations: Collection[int]
) -> None:
    """Warn that all steps are trained, and fewer epochs than are asked for."""
    events.warn(
        EventKind.INEXACT,
        f"training ends at step {state.global_step}, its last, and {trained:.3g} of the {passes:g} epochs that are "
        f"asked for are trained: some steps had fewer batches than others ({_in_words(accumulations)}), and the "
        "Trainer counts with the same number in all of them. To train the rest, ask for more steps: max_steps",
        step=state.global_step,
    )


def _in_words(accumulations: Collection[int]) -> str:
    return "gradient_accumulation_steps: " + ", ".join(map(str, sorted(accumulations)))


def say_stopped(events: Events, state: TrainerState) -> None:
    """Say that a training has ended ahead of its last step."""
    events.info(
        EventKind.STOPPED,
        f"training stopped at step {state.global_step} of {state.max_steps}, the next start goes on from there",
        step=state.global_step,
    )


def say_end_not_held(session: Session, state: TrainerState) -> None:
    """Say that a training has come to its end, and its last checkpoint isn't in the vault. On rank 0."""
    if session.ranks.rank == 0:
        session.events.error(
            EventKind.TROUBLE,
            f"{session.address.uri} doesn't hold the end of this run, step {state.global_step}, so the run isn't noted "
            "as done: once what kept it out is mended, start it once more to train what is missing",
            unfinished=True,
        )


def say_over(session: Session, state: TrainerState, earlier: EarlierRun, *, is_fork: bool) -> None:
    """Say that no step is trained: the run was over already, or has gone beyond what is asked for now."""
    what = f"this run is already over, at step {state.global_step} of {state.max_steps}"
    if not earlier.ended:
        what = f"this run is at step {earlier.step} of {earlier.max_steps}, and {state.max_steps} are asked for now"
    more = "ask for more steps to go on"
    if earlier.stopped_early:
        more = (
            f"it was stopped early, by its metric: to go on there, with more patience, say, name "
            f"{session.address.uri}@{earlier.step}"
        )
    else_ = "fork an earlier step of it (fork='…@STEP')" if is_fork else "name another vault to train anew"
    session.events.info(
        EventKind.FINISHED,
        f"{what}: no step is trained; {more}, or {else_}",
        step=state.global_step,
    )
