"""Reports training loops of their own, which keep their checkpoints by a Training of this package, to `vl run`.

Registered by startup/sitecustomize.py once vaultlayer_hf.session.training is imported. A Trainer trains through a
Training, too, but is reported by watch.py, which sees more of it.
"""

from __future__ import annotations

import os

from vaultlayer_hf.run.report import LOOP, report
from vaultlayer_hf.session.observers import TrainingObserver, observe
from vaultlayer_hf.session.session import Session


def install() -> None:
    """Report every training of this process."""
    announce()
    observe(LoopObserver())


def announce() -> None:
    """Note what ends this process; nothing in a spare interpreter, which belongs to no attempt yet."""
    report.watch_uncaught()


class LoopObserver(TrainingObserver):
    """Notes where a loop begins and ends, and each of its steps as a sign of life."""

    def __init__(self) -> None:
        self._stepped = False  # in this training

    def began(self, session: Session, step: int) -> None:
        """Note what is trained and where it is kept."""
        if report.watched:
            return
        report.note(
            "train",
            seam=LOOP,
            output_dir=str(session.output_dir),
            max_steps=None,
            step=step,
            micro_batch=0,
            accumulation=0,
            world_size=session.ranks.world_size,
            vault=session.address.uri,
            pid=os.getpid(),
        )
        report.beat(step=step, phase="start")
        self._stepped = False
        session.events.listen(report.note_event)

    def stepped(self, session: Session, step: int) -> None:
        """Give a sign of life."""
        if report.watched:
            return
        report.beat(step=step, phase="loop")
        if not self._stepped:
            self._stepped = True
            report.note("first-step", step=step)

    def flushing(self, session: Session) -> None:
        """From here on uploads are waited for."""
        if not report.watched:
            report.beat(phase="end")

    def sending(self, session: Session) -> None:
        """Give a sign of life, of a Trainer's wait, too."""
        report.beat()

    def finished(self, session: Session, step: int) -> None:
        """Note that the loop has come to its end."""
        if not report.watched:
            report.note("trained", step=step)

    def closed(self, session: Session) -> None:
        """From here on what the script does takes as long as it takes."""
        if not report.watched:
            report.beat(phase="done")
