"""Reports training loops of their own, which keep their checkpoints by a Session of this package, to `vl run`.

Called by startup/sitecustomize.py once vaultlayer_hf.session.session is imported. A Trainer is reported by watch.py.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from vaultlayer_hf.run.report import report


def install(session: type[Any]) -> None:
    """Have a Session tell where its training begins, each step, and its end; once."""
    if "_vaultlayer_run" in session.__dict__:
        return
    session._vaultlayer_run = True
    report.watch_uncaught()
    begin, at_step, finish, close = session.begin, session.at_step, session.finish, session.close
    flush = session.flush

    @functools.wraps(begin)
    def begins(self: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        if not report.watched:
            report.note(
                "train",
                output_dir=str(self.output_dir),
                max_steps=None,
                step=step,
                micro_batch=0,
                accumulation=0,
                world_size=self.ranks.world_size,
                vault=self.address.uri,
                pid=os.getpid(),
            )
            report.beat(step=step, phase="start")
            self.events.listen(report.hear)
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

    session.begin, session.at_step, session.flush = begins, steps, flushes
    session.finish, session.close = finishes, closes
