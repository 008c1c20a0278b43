"""A run folder of a script with two trainings, each on a vault of its own, as `vl run` and its ranks write it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from unittest import mock

from vaultlayer_hf.run.journal import Journal, append
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log import log as log_module
from vaultlayer_hf.vault.log.log import Log, Writer

from .stories import commit_at

STEPS = 100
REACHED = 27
"""The step of the second training after which it is killed, 7 behind its commit."""


class TwoStages:
    """Two trainings of 100 steps, two a second, with a commit at each 20th, and the second's end still to be told.

    Attributes:
        run: the run folder.
        first, second: the URIs of their vaults.
        moment: seconds since the begin at which the last thing happened.
    """

    def __init__(self, folder: Path, *, apart: bool = False, second: bool = True) -> None:
        """Write the first stage and the second one up to step 27, under a `vl run` of another machine, heard of lately.

        ``apart``: the second one is in an attempt of its own. ``second``: whether it has begun.
        """
        self.begin = time.time() - 120
        self.run = folder / ".vl"
        self.first, self.second = (f"file://{folder / name}" for name in ("vault", "vault-2"))
        self.moment = 0.0
        self._writer: Writer
        self._journal = Journal(self.run)
        self.say("begin", format_version=1, vault=self.first, pid=1, host="elsewhere")
        self.attempt()
        self.train(self.first, 0, STEPS)
        self.end_stage()
        if not second:
            return
        if apart:
            self.die("killed")
            self.attempt()
        else:
            self.moment += 5  # its model is loaded
        self.train(self.second, 0, REACHED)

    def say(self, kind: str, **fields: object) -> None:
        """Write a line of the journal."""
        with mock.patch("time.time", return_value=self.begin + self.moment):
            self._journal.write(kind, **fields)

    def note(self, kind: str, **fields: object) -> None:
        """Write a note of rank 0."""
        append(self._path / "rank-0.jsonl", {"time": self.begin + self.moment, "kind": kind, **fields})

    def at(self) -> str:
        """Return the moment as a log has it."""
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(self.begin + self.moment))}.000Z"

    def attempt(self) -> None:
        """Start one."""
        self._path = self._journal.new_attempt()
        self.say("start", pid=1, folder=self._path.name, divide=1, at=None)
        self.moment += 4
        self.note("hooked", pid=1)

    def train(self, vault: str, first: int, last: int) -> None:
        """Claim a vault and train on it."""
        self.moment += 2
        store = open_store(vault)
        with mock.patch.object(log_module, "now", return_value=self.at()):
            self._writer, _ = Writer.claim(store, Log(store))
        self.note("vault", event="claim", message=f"{vault} claimed", step=None)
        self.moment += 1
        self.note("train", seam="trainer", max_steps=STEPS, step=first, vault=vault, pid=1)
        for step in range(first + 1, last + 1):
            self.moment += 0.5
            if step == first + 1:
                self.note("first-step", step=step)
            if step % 10 == 0:
                self.note("log", step=step, loss=5 - step / 50)
            if step % 20 == 0:
                commit_at(self._writer, step, self.at())
        self.pulse(last, "train")

    def pulse(self, step: int, phase: str) -> None:
        """Write rank 0's."""
        pulse = {"time": self.begin + self.moment, "step": step, "phase": phase, "beats": 9}
        (self._path / "rank-0.beat").write_text(json.dumps(pulse))

    def end_stage(self) -> None:
        """End the training that goes on, in its vault and in the notes."""
        with mock.patch.object(log_module, "now", return_value=self.at()):
            self._writer.append("finish", lambda state, _: state.done(STEPS, {}), {"step": STEPS})
        self.note("vault", event="finish", message="run finished at step 100", step=STEPS)
        self.note("trained", step=STEPS, over=True)
        self.pulse(STEPS, "done")

    def pass_by(self, vault: str) -> None:
        """Begin a training that was over before, as a script that skips no stage does."""
        self.moment += 2
        self.note("vault", event="claim", message=f"{vault} claimed", step=None)
        self.note("train", seam="trainer", max_steps=STEPS, step=STEPS, vault=vault, pid=1)
        self.note("vault", event="finished", message="this run is already over", step=STEPS)
        self.note("trained", step=STEPS, over=True)
        self.pulse(STEPS, "done")

    def die(self, cause: str, step: int | None = None) -> None:
        """End the attempt."""
        self.moment += 1
        detail = "it ended with exit code 0" if cause == "finished" else f"SIGKILL ended it after step {step}"
        self.say("death", cause=cause, step=step, detail=detail)
        action = "done" if cause == "finished" else "restart"
        self.say("decision", action=action, reason="as decided", wait=0.0, divide=1, at=None)

    def go_on(self, *, passes: bool = False) -> None:
        """Kill the second training, go on from its commit, and train it to the end of the run."""
        self.die("killed", REACHED)
        self.attempt()
        if passes:
            self.pass_by(self.first)
        self.train(self.second, 20, STEPS)
        self.end_stage()
        self.die("finished", STEPS)
        self.say("end", code=0, reason="the program has ended well", attempts=2, step=STEPS, seconds=1.0)
