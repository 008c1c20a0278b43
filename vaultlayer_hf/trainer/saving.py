"""A Trainer's save while it trains on a vault: the place is cleared for it, and a full disk costs that checkpoint only.

While a training is committed, ``_save_checkpoint`` of that one Trainer is ours, around its own. The parts of which that
consists write files, and where the disk is full each raises what its library raises. Such an error is held back until
the whole save is through: between the parts the Trainer waits for the other ranks, which know nothing of it. Then all
ranks agree whether all have written; if not, they make room and save once more, or go on without this checkpoint.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.save.abandoned import say_abandoned
from vaultlayer_hf.session.save.full_disk import is_disk_trouble, is_full
from vaultlayer_hf.session.save.writing import write_on_all
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.trainer.added_groups import groups_of
from vaultlayer_hf.trainer.async_save.begin import begin
from vaultlayer_hf.trainer.async_save.capture import Capture
from vaultlayer_hf.trainer.layout import SAVE_PARTS
from vaultlayer_hf.trainer.saved_best import SavedBest, saved_step
from vaultlayer_hf.trainer.unwritable import name_unwritable
from vaultlayer_hf.trainer.wrapping import wrapped

_SAVE, _LOAD_BEST, _BEST = "_save_checkpoint", "_load_best_model", "_determine_best_metric"
_OPTIMIZER = "_save_optimizer_and_scheduler"


class Saving:
    """One training's saves.

    Args:
        trainer: whose ``_save_checkpoint`` is ours until ``put_back``.
        training: what its checkpoints are committed by.
        behind_files: called with the folder, and where it is till it has its name, when all of the Trainer's files are
            written but the last, ``trainer_state.json``: what is ours comes before that, so that a folder with that
            file has everything.

    Attributes:
        lost: whether the newest save has failed, on some rank, and nothing of it is left.
    """

    def __init__(self, trainer: Any, training: Training, behind_files: Callable[[Path, Path], None]) -> None:
        self._trainer, self._training = trainer, training
        self._behind_files = behind_files
        self.lost = False
        self._best = SavedBest(trainer, training.session)
        self._beside = begin(trainer, training, self._best)  # ahead of the wrap: it asks whose the save is
        self._wraps = ExitStack()
        if (groups := groups_of(trainer)) is not None:
            groups.begin()
        self._wraps.enter_context(wrapped(trainer, {_SAVE: self._around, _LOAD_BEST: self._behind_settling}))
        self._wraps.enter_context(
            wrapped(trainer, {_OPTIMIZER: self._with_groups, _BEST: self._ahead_of_best})
        )

    @property
    def capture(self) -> Capture | None:
        """The checkpoint that is written beside the training; None where there is none."""
        return self._beside.saves.capture if self._beside is not None else None

    def settle(self) -> None:
        """Have a checkpoint that is written beside the training appear. Raises FencedError. All ranks."""
        if self._beside is not None:
            self._beside.saves.settle(wait=True)

    def say_unloaded(self) -> None:
        """Say of a training that is through that no checkpoint was loaded, where the best was lost, and all others."""
        args, state = self._trainer.args, self._trainer.state
        through = state.global_step >= state.max_steps
        if args.load_best_model_at_end and through and state.best_model_checkpoint is None:
            self._best.say_lost()

    def put_back(self) -> None:
        """Leave the Trainer as it was, with every checkpoint written. Safe to call twice. Raises FencedError."""
        self._wraps.close()
        if self._beside is not None:
            self._beside.leave()

    def _behind_settling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _load_best_model(*args: Any, **kwargs: Any) -> Any:
            self.settle()  # the best one may be under way: whoever ends a training needn't have told our callback
            self._best.say_lost()
            return original(*args, **kwargs)

        return _load_best_model

    def _ahead_of_best(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def determine_best_metric(*args: Any, **kwargs: Any) -> Any:
            trainer = self._trainer
            # The save that is coming waits for it anyway, and what is the best depends on whether it is lost.
            if trainer.control.should_save or trainer.args.save_strategy == "best":
                self.settle()
            return original(*args, **kwargs)

        return determine_best_metric

    def _with_groups(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def save_with_groups(output_dir: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(output_dir, *args, **kwargs)
            groups = groups_of(self._trainer)
            writes = self._trainer.args.should_save
            if groups is not None and writes and (lost := groups.write(Path(output_dir))):
                self._training.session.events.warn_once(
                    "added groups",
                    EventKind.INEXACT,
                    f"the optimizer was given groups of parameters in mid-run, and {lost}. No start can go on from "
                    "this checkpoint, or from later ones",
                )
            return result

        return save_with_groups

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _save_checkpoint(*args: Any, **kwargs: Any) -> Any:
            trial = kwargs.get("trial", args[1] if len(args) > 1 else None)
            try:
                return self._save(trial, lambda: original(*args, **kwargs))
            except Exception as error:
                name_unwritable(error, self._trainer.state)
                raise

        return _save_checkpoint

    def _save(self, trial: Any, save: Callable[[], Any]) -> Any:
        trainer, training = self._trainer, self._training
        session, state = training.session, trainer.state
        folder = Path(trainer._get_output_dir(trial=trial)) / f"checkpoint-{state.global_step}"
        self.lost = False
        self.settle()
        training.before_save(folder)
        if session.claim is None or session.disabled:
            return save()
        if self._beside is not None and self._beside.saves.save(
            folder, lambda: _whole(trainer, folder, save), lambda at: self._behind_files(folder, at)
        ):
            return None
        best = self._best.now()
        result: Any = None
        mistake: Exception | None = None  # an error of this rank that isn't the disk's

        def write() -> None:
            nonlocal result, mistake
            mistake = None
            with _held_back(trainer, folder, lambda: self._behind_files(folder, folder)) as held:
                try:
                    result = save()
                except Exception as error:
                    if not held and not is_disk_trouble(error, folder):
                        mistake = error
                        raise
                    held.append(_in_words(error, folder))
            if held:
                raise held[0]

        def remove() -> None:
            if mistake is None:
                files.remove_tree(folder)

        kept = saved_step(best)
        failed = write_on_all(session, folder, write, remove=remove, keep=() if kept is None else (kept,))
        if failed is None:
            self._best.keep(self._best.now())
            return result
        session.next_seq()  # rounds are named by it: the next save's are others
        if mistake is not None:
            raise mistake
        self.lost = True
        self._best.lose(state.global_step)
        say_abandoned(session, folder.name, failed, step=state.global_step)
        return None


def _whole(trainer: Any, folder: Path, save: Callable[[], Any]) -> None:
    """Save, and raise an error of the disk only when all of it is through: other ranks wait for this one in between."""
    with _held_back(trainer, folder, lambda: None) as held:
        save()
    if held:
        raise held[0]


@contextmanager
def _held_back(trainer: Any, folder: Path, behind: Callable[[], None]) -> Iterator[list[OSError]]:
    """Have the parts of a save hold back errors of the disk; yields the list that they come into, in words.

    ``behind`` is called behind the last of them, where none has failed.

    In words, because an error's traceback holds the torn file open, and with it the space that it takes.

    Behind such an error the Trainer must not rotate older checkpoints away: what it has just written is torn.
    """
    held: list[OSError] = []
    limit = trainer.args.save_total_limit

    def around(part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return part(*args, **kwargs)
            except Exception as error:
                if not is_disk_trouble(error, folder):
                    raise
                held.append(_in_words(error, folder))
                trainer.args.save_total_limit = None
                return None

        return call

    def around_last(part: Callable[..., Any]) -> Callable[..., Any]:
        write = around(part)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = write(*args, **kwargs)
            if not held:
                behind()
            return result

        return call

    with wrapped(trainer, {**dict.fromkeys(SAVE_PARTS, around), SAVE_PARTS[-1]: around_last}):
        try:
            yield held
        finally:
            trainer.args.save_total_limit = limit


def _in_words(error: Exception, folder: Path) -> OSError:
    code = errno.ENOSPC if is_full(error, folder) else errno.EIO
    return OSError(code, f"{type(error).__name__}: {error}".splitlines()[0])
