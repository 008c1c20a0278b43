"""What a rank tells `vl run`: its pulse and its notes, in the attempt's folder. The format: journal.py.

Never raises, and costs a write of 160 bytes into the page cache for each sign of life.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.events import Event
from vaultlayer_hf.base.short_traceback import short_text
from vaultlayer_hf.base.text import error_text
from vaultlayer_hf.run.journal import append
from vaultlayer_hf.run.symptoms import means_full, means_memory

ATTEMPT_VARIABLE = "VAULTLAYER_RUN_ATTEMPT"
"""Names the attempt's folder; set by `vl run` for all that it starts."""
INSERT_VARIABLE = "VAULTLAYER_RUN_INSERT"
"""``0``: the script is supervised, and no vault is put into its Trainers."""
DIVIDE_VARIABLE = "VAULTLAYER_RUN_DIVIDE"
"""Micro-batches are divided by this, and accumulation is multiplied by it."""
AT_VARIABLE = "VAULTLAYER_RUN_AT"
"""``VAULT@STEP``: that vault's training goes on from this step instead of the newest checkpoint."""
STACKS_SIGNAL = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else None
"""Has each rank write the stacks of all its threads; one that neither Slurm nor torchrun uses."""
TRAINER, LOOP = "trainer", "loop"
"""The seams that a ``train`` note names: whose layout the checkpoint folders have."""
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""As accelerate looks for them."""
_WIDTH = 160
_TRACEBACK = 20_000
_BEFORE_NOTES = 120
"""Characters of an error's own text that are noted of one that has notes."""


class AttemptReport:
    """One process's voice; it speaks as the rank that RANK names at its first word.

    Attributes:
        folder: of the attempt; None where no `vl run` listens, and then nothing is written.
        watched: a Trainer is reported here, so the loop that it keeps isn't.
        trains: a training is reported here, be it a Trainer's or a loop's, or was named as one that isn't kept.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = Path(folder) if folder else None
        self.watched = self.trains = False
        self._pid = 0
        self._beat = -1
        self._beats = 0
        self._step: int | None = None
        self._phase = "start"
        self._said: BaseException | None = None
        self._left: int | None = None  # exit code by which train() was left
        self._ends = 0  # pid of the process whose ordinary end is noted

    @property
    def folder(self) -> Path | None:
        """Of the attempt, from the environment: a spare interpreter is told it after it has imported this."""
        if self._folder is None and (named := os.environ.get(ATTEMPT_VARIABLE)):
            self._folder = Path(named)
        return self._folder

    @property
    def inherited(self) -> bool:
        """Whether the process that this one was forked from has given signs of life: the rank is that one.

        Until a training begins here. A launcher that forks its ranks has trained nothing.
        """
        return self._beats > 0 and self._pid != os.getpid()

    @property
    def rank(self) -> int:
        """This process's rank as its launcher has told it; 0 without one."""
        found = (os.environ.get(name, "") for name in _RANKS)
        return next((int(text) for text in found if text.isdigit()), 0)

    def note(self, kind: str, **fields: Any) -> None:
        """Append one line to this rank's notes."""
        self.trains = self.trains or kind == "train"
        if self.folder is None:
            return
        if kind == "train" and self._pid != os.getpid():
            self.open()
        if self.inherited:
            return
        try:
            append(self.folder / f"rank-{self.rank}.jsonl", {"time": time.time(), "kind": kind, **fields})
        except OSError:
            pass  # a full disk must not end a training
        if kind == "train":
            self._watch_exit()

    def beat(self, step: int | None = None, phase: str | None = None) -> None:
        """Give a sign of life."""
        if self.folder is None or self.inherited:
            return
        if self._pid != os.getpid():
            self.open()
        self._beats += 1
        self._step = step if step is not None else self._step
        self._phase = phase or self._phase
        pulse = {"time": time.time(), "step": self._step, "phase": self._phase, "beats": self._beats}
        try:
            os.pwrite(self._beat, json.dumps(pulse).encode().ljust(_WIDTH - 1) + b"\n", 0)
        except OSError:
            pass

    def open(self) -> bool:
        """Make this rank's files, and have it answer a request for its stacks, again after a fork; tell if it does."""
        if self.folder is None:
            return False
        self._pid = os.getpid()
        try:
            self._beat = os.open(self.folder / f"rank-{self.rank}.beat", os.O_WRONLY | os.O_CREAT, 0o666)
            appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            stacks = os.open(self.folder / f"rank-{self.rank}.stacks", appended, 0o666)  # as long as we run
            if STACKS_SIGNAL is not None:
                faulthandler.register(STACKS_SIGNAL, stacks, all_threads=True)
        except (OSError, ValueError, RuntimeError):
            return False
        return STACKS_SIGNAL is not None

    def error(self, error: BaseException) -> None:
        """Note an exception, once; of one that asks for the process's end, its exit code with that end."""
        if isinstance(error, SystemExit):
            self._left = error.code if isinstance(error.code, int) else None
        if self.inherited or error is self._said or isinstance(error, (SystemExit, KeyboardInterrupt)):
            return
        self._said = error
        cls = type(error)
        name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
        trace = short_text(error)
        text = told = error_text(error)
        notes = getattr(error, "__notes__", ())
        if notes:  # which say more than the error itself, and come behind it within the line that is shown
            told = ": ".join([text.partition("\n")[0][:_BEFORE_NOTES], *map(str, notes)])
        number = error.errno if isinstance(error, OSError) else None
        self.note(
            "error",
            type=name,
            message=told[:2000],
            traceback=trace[-_TRACEBACK:],
            memory=means_memory(name, text, number),
            full=means_full(name, text, number),
            step=self._step,
            pid=os.getpid(),
            **({"divide": error.divide} if hasattr(error, "divide") else {}),
            **({"evaluating": True} if _in_evaluation(error) else {}),
        )

    def note_event(self, event: Event) -> None:
        """Note an event of a vault."""
        more = {"unfinished": True} if event.fields.get("unfinished") else {}
        self.note("vault", event=event.kind, message=event.message, step=event.fields.get("step"), **more)

    def _watch_exit(self) -> None:
        """Note that a process which trains ends by itself: one that a signal ends notes nothing.

        By multiprocessing's own means, which work in its children, too: they leave out what atexit knows.
        """
        self._left = None
        if self._ends != os.getpid():
            from multiprocessing import util

            self._ends = os.getpid()
            util.Finalize(None, self._note_exit, exitpriority=0)

    def _note_exit(self) -> None:
        self.note("exit", pid=os.getpid(), code=self._left)

    def watch_uncaught(self) -> None:
        """Note the exception that ends this process, too."""
        if self.folder is None:
            return
        before = sys.excepthook
        if getattr(before, "_vaultlayer_run", False):
            return

        def hook(cls: Any, error: BaseException, trace: Any) -> None:
            self.error(error)
            if isinstance(error, Exception):
                self.note("uncaught", pid=os.getpid())
            before(cls, error, trace)

        hook._vaultlayer_run = True  # type: ignore[attr-defined]
        sys.excepthook = hook


def _in_evaluation(error: BaseException) -> bool:
    """Tell whether a Trainer evaluated where an exception was raised, by the names of its own loops."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name in ("evaluation_loop", "prediction_loop") for frame, _ in frames)


report = AttemptReport()
"""This process's."""
