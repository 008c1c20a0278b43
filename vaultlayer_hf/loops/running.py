"""A loop under way, from ``resume()`` to its end: what it counts, when it saves, how it stops."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.cells import at_end_of_cells
from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.loops.asked import holds_of, loader_digest
from vaultlayer_hf.loops.async_facts import plain_optimizers
from vaultlayer_hf.loops.async_saves import begin_async_saves
from vaultlayer_hf.loops.behind_steps import BehindSteps
from vaultlayer_hf.loops.carried import Carried
from vaultlayer_hf.loops.data import LoopData
from vaultlayer_hf.loops.folder import LoopFiles
from vaultlayer_hf.loops.life import begin_training, end_training
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.loops.other_optimizers import OtherOptimizers
from vaultlayer_hf.loops.pass_notices import run_is_over, say_code_again, say_step_again
from vaultlayer_hf.loops.passes import Passes
from vaultlayer_hf.loops.pending_gradients import PendingGradients
from vaultlayer_hf.loops.update_length import UpdateLength
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.save.writing import write_on_all
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.start.asked import keep_asked, say_what_differs
from vaultlayer_hf.session.stop.exits import leave
from vaultlayer_hf.state.asked import VARYING_DATA, Asked, check_asked, read_asked
from vaultlayer_hf.state.data.placed import in_doubt
from vaultlayer_hf.state.data_digest import without_vocabularies
from vaultlayer_hf.state.own_numbers import put_numbers, take_numbers


class RunningLoop:
    """One loop on a vault. Made by each ``resume()``, at the step that the vault's newest checkpoint has. All ranks.

    Args:
        settings: name the vault.
        output_dir: where checkpoint folders lie; None: the default folder.
        state: the objects of the training.
        asked: what the training is asked for.
        events: where to tell what happens.

    Attributes:
        step: how many steps are done.
        finished: the step at which the run was finished before, or None.
        ended: whether it is over, for whatever reason.
        interrupted: whether it was told to stop, or an error has ended its notebook's cell: the same Checkpointer goes
            on from its last save.

    Raises what ``Checkpointer.resume`` does.
    """

    def __init__(
        self, settings: Settings, output_dir: Path | None, state: Stateful, asked: Asked, events: Events
    ) -> None:
        self._state = state
        self.carried = Carried(events, lambda: state.saved)
        self.position = LoopData(events, pass_ended=self.carried.end_pass)
        self.passes = Passes(self.position, lambda: say_code_again(self.session))
        self._gradients = PendingGradients(lambda: [] if state.engine else plain_optimizers(state))
        self._others = OtherOptimizers(self._holders, lambda: state.models().values(), self._say_other)
        self.files = LoopFiles(state, self.position, self.carried, self._gradients, self._others, events)
        self.ended = self.interrupted = False
        self._asked, self._then, self._over = asked, Asked(), False
        self._loss: Any = None
        self._due = False  # a save, when the epoch is over
        self._touched = True  # since the last cell of a notebook has ended
        state.begin()
        self.training, step = begin_training(settings, output_dir, self.files, events, self._load)
        self.position.on(self.session.ranks.rank, self.session.ranks.world_size)
        self.step = self._saved = step or 0  # the step of the newest checkpoint
        self.finished: int | None = self.session.state.finished if step is not None else None
        self._before = self._saved  # the step of the checkpoint before the newest
        self._behind = BehindSteps(self.session, state, self.files, goes_on=step is not None)
        self._saved_left = self.position.left  # whether the newest says that the loop over epochs was left
        self._beside = begin_async_saves(self.training, state, self.files)
        self._leave_cells = at_end_of_cells(self._cell_ended)
        self._gradients.begin()
        self._others.begin()
        self._update = UpdateLength(state.batches_an_update)

    @property
    def session(self) -> Session:
        """What this rank holds of the vault."""
        return self.training.session

    @property
    def goes_on(self) -> bool:
        """Whether the loop is under way, and nobody has broken it off from outside, as a second Ctrl-C does."""
        watch, alone = self.training.watch, self.session.ranks.world_size == 1
        # Several ranks stop together, a few steps after the request: till then the loop goes on.
        asked = watch.hurried or (alone and watch.pending(time.time(), 0.0, time.time()) is not None)
        return not self.ended and not self.interrupted and not asked

    @property
    def ends_epochs(self) -> bool:
        """Whether a loop over epochs that was left early stays so: the run is over, and nobody asks to go on there."""
        return self.finished is not None and not self.session.goes_back

    @property
    def broken_off(self) -> bool:
        """Whether a batch of ``steps()`` or ``batches()`` was given out whose step wasn't done."""
        return self.position.in_step

    def _load(self, session: Session, folder: Path) -> int:
        before = session.entered.before
        at_end = before is not None and folder.name == f"checkpoint-{before.finished}"
        self._over = at_end and not session.goes_back
        self._then = read_asked(folder) or Asked()
        fork = session.forked is not None
        holds = holds_of(self._asked, fork=fork)
        self._asked = say_what_differs(session, folder, self._asked, holds, over=self._over)
        own = take_numbers(self._state.optimizers, self._state.schedulers) if fork else None
        self.position.on(session.ranks.rank, session.ranks.world_size)
        step = self.files.read(folder, rank=session.ranks.rank, world_size=session.ranks.world_size)
        if self._over and session.ranks.rank == 0:
            session.events.info(EventKind.NOTICE, run_is_over(session, step, left=self.position.left))
        if self._state.doubts:
            session.warn_all(EventKind.INEXACT, in_doubt(self._state.doubts))
        if own is not None:
            said = put_numbers(own, self._state.optimizers, self._state.schedulers)
            session.warn_all(EventKind.NOTICE, said)
        return step

    def note_data(self, loader: Any) -> None:
        """Take note of the training data, where they weren't known at the start. Raises OtherRunError."""
        if self._asked.data == VARYING_DATA or not (data := loader_digest(loader)):
            return
        if self._asked.data:
            if without_vocabularies(self._asked.data) != without_vocabularies(data):
                self._asked = replace(self._asked, data=VARYING_DATA)
            return
        if self._then.data == VARYING_DATA:
            data = VARYING_DATA
        self._asked = replace(self._asked, data=data)
        over = self._over and not self.passes.inside  # with more epochs than then it isn't over any more
        at = f"{self.session.address.uri}@{self.step}"
        for one in check_asked(self._then, Asked(data=data), {}, over=over, at=at):
            self.session.warn_all(EventKind.NOTICE, one)

    def end_of_step(self, loss: Any, last: bool = False) -> None:
        """Count a step, and do what is due behind it: see ``Checkpointer.step``."""
        if last:
            self.position.leave_pass()
        if loss is not None:
            if getattr(loss, "numel", lambda: 1)() != 1:
                raise SettingsError("step(loss=…) takes one number: give it loss.mean(), say")
            self._loss = loss.detach() if hasattr(loss, "detach") else loss
        self._settle(wait=False)
        if self._beside is not None:
            self._beside.prepare()
        self._behind.step_done()
        if self.position.step_done() and self.session.ranks.rank == 0:
            say_step_again(self.session.events)
        self.session.ranks.apart = self._update.step_done()
        self.step += 1
        decision = self.training.at_step(self.step)
        # What follows the last batch of an epoch belongs to it; told to end there is no time for it. Where another pass
        # of the epoch follows, a save that fell due is made within that.
        due = decision.save or (self._due and decision.stop is None)
        self._due = due and decision.stop is None and self.passes.at_end
        if due and not self._due:
            self.position.stopping = decision.stop is not None
            self.save(last=decision.stop is not None)
        if decision.stop is not None:
            self._settle(wait=True)
            self.training.flush()
            ending = self.training.ending
            self.interrupted = True
            self.close()
            if ending is not None:
                leave(ending.reason, ending.code)

    def save_if_due(self) -> None:
        """Save what fell due at the last batch of an epoch, behind the epoch's own code."""
        if self._due:
            self._due = False
            self.save()

    def save(self, *, last: bool = False) -> None:
        """Save now, and commit in the background: see ``Checkpointer.save``.

        ``last``: nothing is computed behind it that it could be written beside.
        """
        session, ranks = self.session, self.session.ranks
        if session.disabled:
            return
        self._settle(wait=True)
        self._saved_left = self.position.left
        folder = session.output_dir / f"checkpoint-{self.step}"
        self._others.saved()
        self.training.before_save(folder)
        figures = self._figures() if ranks.rank == 0 else {}
        if self._beside is not None and not last:
            loss = figures.get("loss")
            if self._beside.save(folder, figures, lambda at: keep_asked(at, session, self._asked), loss):
                self._before, self._saved = self._saved, self.step
                self.training.captured()
                return

        loss = figures.get("loss")
        written: list[Save] = []

        def write() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            keep_asked(folder, session, self._asked)
            written[:] = [self.files.save_of(folder, self.step, None, loss)]  # looks through the whole state
            # Its last file, vaultlayer.json, says that rank 0 has written all of its own.
            self.training.note_written(written[0])
            at, size = session.output_dir, ranks.world_size
            self.files.write(folder, self.step, figures, rank=ranks.rank, world_size=size, output_dir=at)

        failed = write_on_all(session, folder, write)
        if failed is None:
            self._saved = self.step
            save = written[0]
        else:
            save = self.files.save_of(folder, self.step, failed, loss)
        self.training.save(save)

    def _settle(self, *, wait: bool) -> None:
        """Have a checkpoint that was captured appear, once it is written."""
        if self._beside is not None and not self._beside.settle(wait=wait):
            self._saved = self._before

    def finish(self) -> None:
        """Save what isn't saved, wait, and note the end: see ``Checkpointer.finish``."""
        self._settle(wait=True)
        self.passes.leave()
        # A loop left behind its last save is asked for no more epochs, and the checkpoint has to say so.
        if self.step > self._saved or (self.position.left and not self._saved_left):
            self.save(last=True)
        done = end_training(self.training, self.step, self._figures() or dict(self.session.state.metrics))
        ending = self.training.ending
        self.close()
        if not done and ending is not None:  # a signal has come while uploads were waited for
            leave(ending.reason, ending.code)

    def close(self) -> None:
        """Wait for what is under way, and stop."""
        self.ended = True
        with ExitStack() as stack:  # each, whatever the one before raises; the last in here is the first
            stack.callback(self.training.close)
            if self._beside is not None:
                stack.callback(self._beside.close)
            stack.callback(self.position.leave)
            stack.callback(self._gradients.leave)
            stack.callback(self._update.leave)
            stack.callback(self._others.leave)
            stack.callback(self._leave_cells)

    def touch(self) -> None:
        """Note that the loop is under way in this cell of a notebook: the end of another one has ended the watch."""
        if not self._touched and self.session.claim is not None and not self.session.disabled:
            self.training.watch.open()
        self._touched = True

    def settle_variables(self) -> None:
        """Bring back variables that were carried in the loop before this one, and that the script carries no more."""
        if left := self.carried.settle():
            self.session.warn_all(
                EventKind.INEXACT,
                f"{', '.join(left)}: as the cell that was broken off left it, and not as at step {self.step}: "
                "run the cell with resume() and carry() again",
            )

    def _cell_ended(self, failed: bool) -> None:
        # Where in a step the error came nobody knows: weights and variables may be between two steps.
        self.interrupted = self.interrupted or (failed and self._touched and not self.ended)
        self._touched = False

    def _holders(self) -> list[Any]:
        """Return what is saved and may be an optimizer, or hold one."""
        return [*plain_optimizers(self._state), *self._state.saved, *self.carried.values()]

    def _say_other(self, name: str) -> None:
        self.session.warn_all(
            EventKind.INEXACT,
            f"this loop's parameters are trained by an optimizer, {name}, that its Checkpointer hasn't got: "
            "checkpoints don't hold its state, and the numbers behind a resume may differ from an unbroken run's. Give "
            "it to the Checkpointer, or add() it, ahead of resume(), one that the loop comes to later, too",
        )

    def _figures(self) -> dict[str, float]:
        try:
            return {} if self._loss is None else {"loss": float(self._loss)}
        except Exception as error:
            # An object of the script's own: a checkpoint is worth more than its figure.
            self.session.events.warn_once(
                "loss", EventKind.NOTICE, f"the loss isn't kept: it is no number ({error})"
            )
            return {}
