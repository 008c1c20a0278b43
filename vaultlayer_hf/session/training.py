"""What a seam drives while it trains: begin, at_step, before_save, note_written, save, flush, finish, close.

The Trainer's callback and the Checkpointer make one ``Training`` on their ``Session``, which holds the claim and the
uploader. Once training has begun nothing is raised but FencedError, and that only where the settings ask for it:
trouble of storage or disk is reported, and costs a checkpoint at most. Methods that say *all ranks* must be called by
all of them in the same order.
"""

from __future__ import annotations

import atexit
import time
from pathlib import Path
from types import CodeType

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.forks import forget_in_children
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.observers import notify
from vaultlayer_hf.session.save import rounds
from vaultlayer_hf.session.save.plan import RankStatus, Save, SaveSummary
from vaultlayer_hf.session.save.settings_pacer import pacer_of
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.stop.draining import drain
from vaultlayer_hf.session.stop.end_entry import append_end
from vaultlayer_hf.session.stop.notice import MARGIN
from vaultlayer_hf.session.stop.stopping import Ending, StepDecision, Stopping
from vaultlayer_hf.session.stop.watch import NoticeWatch
from vaultlayer_hf.vault.retention.tidy import clear_trash

_OTHER_NODES_SECONDS = 15.0  # that the end of a failed training waits for parts of other nodes


class Training:
    """One rank's training on a vault, from its first step to its end.

        session = Session(settings, output_dir)
        training = Training(session)
        path = resume(session, checkpoint_files)
        training.begin(step=0)
        ...  # after each step: decision = training.at_step(step)
        if training.flush():
            training.finish(step, {"loss": loss})
        training.close()

    Args:
        session: what this rank holds; claimed by ``resume`` or ``enter``, before ``begin``.

    Attributes:
        watch: what announces the end of this process.
        pacer: when to save.
        stall_seconds: how long the last save kept training waiting.
    """

    def __init__(self, session: Session) -> None:
        settings = session.settings
        self.session = session
        self.watch = NoticeWatch(settings.signal_names, settings.grace, settings.notices, session.events)
        self.pacer = pacer_of(session)
        self._stopping = Stopping(session, self.watch, self.pacer)
        self.stall_seconds = 0.0
        self._under_way = self._flush_failed = self._ranks_lost = False
        self._evaluated = 0  # batches of evaluations: ranks count alike
        self._last_save = ""  # the name of its folder
        # Rounds of ``before_save`` so far: a count of its own, since not every one is followed by a save, and ranks
        # don't wait for each other in a round whose name was used before.
        self._folders_cleared = 0
        atexit.register(self.close)
        forget_in_children(self.forget)

    def __repr__(self) -> str:
        return f"Training({self.session!r}, step {self.session.step})"

    @property
    def ending(self) -> Ending | None:
        """How this training ends, once it was told to stop."""
        return self._stopping.ending

    @property
    def _idle(self) -> bool:
        """Whether there is no vault to do anything with: not claimed yet, or lost to another process."""
        return self.session.claim is None or self.session.disabled

    def begin(self, step: int, within: CodeType | None = None) -> None:
        """Say that training begins, behind ``step``. All ranks. ``within``: code that runs as long as it trains."""
        notify(self.session, lambda observer: observer.began(self.session, step))
        atexit.unregister(self.close)  # a training that is begun again after its close is to be closed again
        atexit.register(self.close)
        self.session.step = step
        self._under_way = True
        self.watch.open(within)
        self.pacer.begin()

    def at_step(self, step: int, *, saves: bool = False) -> StepDecision:
        """Return whether to save and whether to stop, at the end of ``step``. All ranks, after each step.

        What one rank knows all act on at the end of the same step, a few steps later. ``saves``: the script saves at
        this one by itself. Raises FencedError, on all ranks, if another process took the vault and the settings say so.
        """
        notify(self.session, lambda observer: observer.stepped(self.session, step))
        self.session.step = step
        if self.session.claim is None:
            return StepDecision()
        decision = None
        if not self.session.disabled:
            self.pacer.mark()
            decision = self._stopping.decide(step)
        if self.session.disabled:  # trains on without a vault: nothing here ends it when a signal comes
            self.watch.hand_back()
            return StepDecision()
        return decision or StepDecision(save=self.pacer.due(step, saves=saves))

    def in_evaluation(self) -> StepDecision | None:
        """Return what to do at once between two steps, in an evaluation that may outlast the grace; None: nothing.

        All ranks, at each batch of an evaluation. Raises FencedError as ``at_step`` does.
        """
        if self._idle:
            return None
        self._evaluated += 1
        return self._stopping.decide_in_evaluation(self.session.step, self._evaluated)

    def before_save(self, folder: Path) -> None:
        """Remove a checkpoint folder that is about to be written again. All ranks.

        What the Trainer would write in place would show through the links of a snapshot that waits for
        upload; and what a killed save left there would look as if it belonged to the new one. A folder that
        is new to this run stays: a subclass of the Trainer has begun to write this very checkpoint.
        """
        if self._idle:
            return
        self._last_save = folder.name
        self.pacer.mark()
        self._folders_cleared += self.session.ranks.world_size > 1
        rounds.clear_folder(self.session, folder, self._folders_cleared)

    def note_written(self, save: Save) -> None:
        """Note that all but the last file of a checkpoint's folder is written: a kill from now on doesn't lose it."""
        if not self._idle:
            rounds.note_written(self.session, save)

    def captured(self) -> None:
        """Say that a checkpoint's state is copied and training goes on; ``save`` follows once its files are there."""
        self._stopping.saved_at = time.time()
        self.pacer.saved()

    def lost(self) -> None:
        """Say that a checkpoint whose state was ``captured`` came to nothing; training goes on."""
        rounds.forget_written(self.session)
        self.pacer.saved(again=True)

    def save(self, save: Save, *, beside: float | None = None) -> None:
        """Snapshot a checkpoint folder and queue it; never raises for the storage's or the disk's sake. All ranks.

        ``beside``: seconds for which it was written beside the training, behind ``captured``; None: it wasn't. Raises
        FencedError, on all ranks, where one has learnt that another process took the vault.
        """
        if self._idle:
            return
        session = self.session
        begin = time.perf_counter()
        if beside is None:
            self._stopping.saved_at = time.time()
        self._flush_failed = False
        session.lock.retry()
        session.standing.add(save.folder.name)
        rounds.save(session, save, session.next_seq())
        self.stall_seconds = time.perf_counter() - begin
        self.pacer.saved(again=beside is not None, beside=beside)
        session.save_stall = self.pacer.stall or 0.0

    def metrics(self) -> dict[str, float]:
        """Return figures for the Trainer's ``report_to``; seconds, bytes and steps."""
        uploader = self.session.uploader
        if uploader is None or self.session.disabled:
            return {}
        seconds, steps = uploader.exposure_figures()
        return {
            "vault/stall_seconds": self.stall_seconds,
            "vault/upload_seconds": uploader.figures.upload_seconds,
            "vault/uploaded_bytes": float(uploader.figures.uploaded_bytes),
            "vault/commits": float(uploader.figures.commits),
            "vault/exposure_seconds": seconds,
            "vault/exposure_steps": float(steps),
        }

    def flush(self) -> bool:
        """Wait for uploads, with a progress bar and a time-out; return whether all is committed. All ranks.

        The one place where training waits for storage; waiting.py says for how long. A signal or notice that comes
        meanwhile is in ``ending`` afterwards. Raises FencedError as ``at_step`` does.
        """
        notify(self.session, lambda observer: observer.flushing(self.session))
        if self._idle:
            return False
        session = self.session
        self._under_way = False
        self.watch.over = True
        uploader = session.uploader
        done = uploader is None or drain(session, self._stopping, uploader)
        timeout = session.settings.flush_timeout + 60

        def sum_up(found: list[tuple[RankStatus, bool]]) -> tuple[SaveSummary, bool]:
            return rounds.summarise(session, [status for status, _ in found]), found[0][1]

        try:
            summary, done = session.ranks.decide(
                (rounds.status_of(session), done), sum_up, timeout=self._stopping.bound(timeout)
            )
        except RanksError as error:
            self._ranks_lost = True
            session.events.warn(EventKind.TROUBLE, str(error))
        else:
            self._ranks_lost = False
            rounds.apply_summary(session, summary)
            if uploader is not None:
                uploader.clear_superseded()
            session.stop_if_fenced(summary.fenced)
        session.apply_local_retention()
        if session.leads_node:
            clear_trash(session.output_dir)
        self._flush_failed = not done
        session.events.sum_up()
        self._stopping.look_at_the_end()
        return done and not session.disabled

    @property
    def holds_last_save(self) -> bool:
        """Whether the newest checkpoint that was to be saved is committed; also where none was. Behind ``flush``."""
        last, seq = self._last_save, self.session.coming_seq - 1
        return not last or any(rounds.is_of(one, last, seq) for one in self.session.newest_commits(1))

    def finish(self, step: int, metrics: dict[str, float]) -> None:
        """Append the entry that says that the run is done at ``step``; storage trouble is only reported. All ranks.

        Raises FencedError, on all ranks, as ``at_step`` does.
        """
        notify(self.session, lambda observer: observer.finished(self.session, step))
        self._note_end(step, metrics)

    def finish_again(self) -> None:
        """Append an end again, for a run that was over before this start, whose claim is the log's last entry now.

        All ranks. Raises FencedError as ``finish`` does.
        """
        self._note_end(None, {})

    def _note_end(self, step: int | None, metrics: dict[str, float]) -> None:
        """Append the end; ``step``: None for that of the run that was over before."""
        session = self.session
        if self._idle:
            return
        rounds.forget_written(session)
        if self._ranks_lost:  # they didn't come to the round before: nobody is left to agree with
            append_end(session, step, metrics)
            return
        fenced = None
        try:
            fenced = session.ranks.on_rank_zero(
                lambda: append_end(session, step, metrics), within=2 * session.settings.resume_timeout
            )
        except RanksError as error:
            session.events.warn(EventKind.TROUBLE, str(error))
        session.stop_if_fenced(fenced)

    def forget(self) -> None:
        """In a forked child, between begin and close: do nothing from now on. It is the parent that trains."""
        if self._under_way or self.watch.opened:
            self._under_way = False
            self.watch.forget()
            self.session.forget()

    def close(self) -> None:
        """Wait for what is under way, unless ``flush`` just did so in vain, then stop; safe to call twice.

        Without a ``flush`` before, which alone has the whole of ``flush_timeout``, it is waited for as long as bytes
        move, and not for long for other nodes, whose training may be gone: an exception is on its way out, and a
        person, or a launcher, waits for this process to end. The next start on this disk goes on from what is left.
        """
        session = self.session
        uploader = session.release_uploader()
        try:
            failed, self._under_way = self._under_way, False
            if failed:
                # No flush came first: an exception is on its way out. The other ranks may wait for this one inside a
                # save, for part_timeout at worst, and can't know: tell them.
                session.ranks.leave()
            atexit.unregister(self.close)
            if uploader is not None:
                if not self._flush_failed and not self.watch.hurried:
                    drain(session, self._stopping, uploader, for_others=_OTHER_NODES_SECONDS, failed=failed)
                uploader.stop(self._last_wait())
            session.close()
            self.watch.close(leaving=self.ending is not None)
        finally:
            notify(self.session, lambda observer: observer.closed(self.session))

    def _last_wait(self) -> float | None:
        """Return how long the end may wait for the upload thread to give up; None: as usual."""
        return 0.0 if self.watch.hurried else MARGIN / 2 if self._stopping.late else None
