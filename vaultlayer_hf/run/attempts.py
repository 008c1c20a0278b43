"""The attempts of a run on this machine, one after the other, and the facts of how each has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from vaultlayer_hf.run.decide.cause import Death
from vaultlayer_hf.run.decide.restart_history import RestartHistory
from vaultlayer_hf.run.engines import processes
from vaultlayer_hf.run.engines.base import Pulse, ReceivedSignals
from vaultlayer_hf.run.engines.local import LocalAttempt
from vaultlayer_hf.run.engines.reach import why_unreached
from vaultlayer_hf.run.engines.spare import Spares
from vaultlayer_hf.run.facts import gather, read_ahead
from vaultlayer_hf.run.journal import Journal, notes_of, read_notes
from vaultlayer_hf.run.options import Options, environment
from vaultlayer_hf.run.program import runs_in_shell
from vaultlayer_hf.run.put_aside import output_dirs

Notice = Callable[[str, str], None]
"""Called with what somebody should know: a topic and a sentence."""


class Attempts:
    """Makes the attempts of a run, and keeps what one attempt leaves to the next: the spare, and what pulse is normal.

        attempts = Attempts(options, journal, received, notice)
        death = attempts.make(history, vault)
        attempts.close()

    Args:
        options: what `vl run` was asked for.
        journal: where the start of each attempt is noted.
        received: the signals that `vl run` is sent.
        notice: told what somebody should know.

    Attributes:
        count: how many there have been.
        output: the end of what the newest one wrote.
    """

    def __init__(self, options: Options, journal: Journal, received: ReceivedSignals, notice: Notice) -> None:
        self._options, self._journal, self._received, self._notice = options, journal, received, notice
        self._pulse = Pulse(fixed=options.hang_after)
        # A shell that is replaced by `vl run` (exec) leaves its children to it: they aren't the program's.
        self._others = frozenset(child.pid for child in psutil.Process().children())
        processes.adopt_orphans()
        unreached = why_unreached(options.command)
        if unreached:
            what = f"the program can't be reached, so it is only watched and started again: {unreached}"
            notice("unreached", what)
        self._spares = Spares(options.command, notice, wanted=options.spare)
        self._prepared = False
        self.count = 0
        self.output = ""

    def make(self, history: RestartHistory, vault: str) -> Death:
        """Run the program once, and return the facts of how it has ended. Raises OSError where it can't be started.

        ``vault``: the one that ``history`` is about, and in which an attempt that ends before it trains counts.
        """
        folder = self._journal.new_attempt()
        oom_kills = self._oom_kills()
        attempt = self._start(folder, history, vault)
        status = attempt.wait(self._received, self._options.grace)
        if status and (reason := _why_unfit(folder)):
            self._spares.give_up(reason)
            attempt = self._start(folder, history, vault)
            status = attempt.wait(self._received, self._options.grace)
        death = gather(
            folder,
            status,
            attempt.output,
            vault=vault,  # it may have ended before it has said which it trains into
            told=self._received.ending,
            silent=attempt.silent,
            oom_kills=max(0, self._oom_kills() - oom_kills),
            seconds=attempt.seconds,
            pid=attempt.pid,
            shell=runs_in_shell(self._options.command),
            left=lambda: [str(path) for path in output_dirs(self._options.folder)],
        )
        if death.oom_kills:
            self._spares.give_up("the kernel has ended processes for want of memory")
        elif attempt.warm and not death.began and status > 0:
            self._spares.give_up("the last one failed before it trained")
        self.count += 1
        self.output = attempt.output
        return death

    def close(self) -> None:
        """End the spare."""
        self._spares.close()

    def _start(self, folder: Path, history: RestartHistory, vault: str) -> LocalAttempt:
        options = self._options
        started = LocalAttempt(
            self._spares,
            environment(options, folder, history, vault),
            folder,
            self._notice,
            self._pulse,
            quiet_stdout=options.quiet_stdout,
            keep=self._others,
            on_training=lambda: self._prepare(folder),
        )
        self._journal.write(
            "start",
            pid=started.pid,
            folder=str(folder),
            divide=history.divide,
            at=history.at,
            warm=started.warm,
        )
        return started

    def _prepare(self, folder: Path) -> None:
        """Do beforehand, once, what would hold up the first restart."""
        if not self._prepared:
            self._prepared = True
            read_ahead(folder, self._options.vault)

    def _oom_kills(self) -> int:
        """Return how many processes the kernel has ended for memory so far, without the spares among them."""
        return processes.oom_kills() - self._spares.killed


def _why_unfit(folder: Path) -> str | None:
    """Return why a warm attempt, or a rank, wasn't what a cold start would be, and has ended; None where none was.

    A launcher that has started its ranks again by itself has got over it.
    """
    notes = read_notes(folder)
    found = notes_of(notes, "unfit")
    if not found or any(line["time"] > found[-1]["time"] for line in notes_of(notes, "train")):
        return None
    return str(found[-1].get("reason"))
