"""Reports training loops of their own, which keep their checkpoints by a Training of this package, to `vl run`.

Called by startup/sitecustomize.py once vaultlayer_hf.session.training is imported. A Trainer is reported by watch.py.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from vaultlayer_hf.run.report import report


def install(training: type[Any]) -> None:
    """Have a Training tell where its training begins, each step, and its end; once."""
    if "_vaultlayer_run" in training.__dict__:
        return
    training._vaultlayer_run = True
    report.watch_uncaught()
    begin, at_step, finish, close = training.begin, training.at_step, training.finish, training.close
    flush = training.flush

    @functools.wraps(begin)
    def begins(self: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        if not report.watched:
            report.note(
                "train",
                output_dir=str(self.session.output_dir),
                max_steps=None,
                step=step,
                micro_batch=0,
                accumulation=0,
                world_size=self.session.ranks.world_size,
                vault=self.session.address.uri,
                pid=os.getpid(),
            )
            report.beat(step=step, phase="start")
            self.session.events.listen(report.hear)
        return begin(self, step, *args, **kwargs)

    @functools.wraps(at_step)
    def steps(self: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        if not report.watched:
            report.beat(step=step, phase="loop")
        return at_step(self, step, *args, **kwargs)

    @functools.wraps(flush)
    def flushes(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not report.watched:
            report.beat(phase="end")
        return flush(self, *args, **kwargs)

    @functools.wraps(finish)
    def finishes(self: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        if not report.watched:
            report.note("trained", step=step)
        return finish(self, step, *args, **kwargs)

    @functools.wraps(close)
    def closes(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return close(self, *args, **kwargs)
        finally:
            if not report.watched:
                report.beat(phase="done")  # what a script does from here on takes as long as it takes

    training.begin, training.at_step, training.flush = begins, steps, flushes
    training.finish, training.close = finishes, closes
