"""One attempt: start the program, pass on what it says, watch its pulse, and leave nothing of it behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

from vaultlayer_hf.run.engines import processes
from vaultlayer_hf.run.engines.base import ENDING, Attempt, Pulse, ReceivedSignals
from vaultlayer_hf.run.engines.ranks import WaitingRanks
from vaultlayer_hf.run.engines.reach import Lookout
from vaultlayer_hf.run.engines.spare import Spares
from vaultlayer_hf.run.journal import OUTPUT, notes_of, read_beats, read_notes
from vaultlayer_hf.run.report import STACKS_SIGNAL

_POLL = 0.1
"""Seconds between two looks whether the program has ended."""
_LOOK = 1.0
"""Seconds between two looks at its processes and their signs of life."""
_ASLEEP = 5.0
"""Seconds by which a turn of the loop may be late before this process itself was suspended."""
_TAIL = 200_000
"""Bytes of its output that are kept in memory: a traceback is at its end."""
_TRAINS = ("train", "between", "loop")
"""Phases behind the first step and before the end."""
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")


class LocalAttempt(Attempt):
    """A running program.

    Attributes:
        warm: it came out of a spare interpreter.

    Args:
        spares: what starts it.
        environment: its whole environment.
        folder: of the attempt.
        notice: called with what somebody should know: a topic and a sentence.
        pulse: what is known of the run's signs of life; learns more.
        keep: pids of this process's children that aren't the program's.
        on_training: called once it is seen to train.

    Raises OSError where it can't be started.
    """

    def __init__(
        self,
        spares: Spares,
        environment: dict[str, str],
        folder: Path,
        notice: Callable[[str, str], None],
        pulse: Pulse,
        *,
        quiet_stdout: bool = False,
        keep: frozenset[int] = frozenset(),
        on_training: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self._notice, self._pulse, self._others = folder, notice, pulse, keep
        self._spares, self._environment = spares, environment
        self._on_training: Callable[[], None] | None = on_training
        self._begin = time.monotonic()
        self._tail = bytearray()
        self._lock = threading.Lock()
        self._process = spares.start(environment)
        self.warm = spares.warm
        self.pid = self._process.pid
        self._log = open(folder / OUTPUT, "ab", buffering=0)  # noqa: SIM115  closed in wait()
        out = sys.stderr if quiet_stdout else sys.stdout
        self._pumps = [
            threading.Thread(target=self._pump, args=(pipe, to), daemon=True)
            for pipe, to in ((self._process.stdout, out), (self._process.stderr, sys.stderr))
        ]
        for pump in self._pumps:
            pump.start()
        self._lookout, self._waiting = Lookout(), WaitingRanks()
        self._beats, self._last, self._looked = -1, time.monotonic(), 0.0
        self._phases: set[str] = set()
        self._ranks = 0
        self.silent: float | None = None
        self._late = self._told = False

    @property
    def _keep(self) -> frozenset[int]:
        """Children of this process that aren't the program's."""
        return self._others | self._spares.pids

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._begin

    @property
    def output(self) -> str:
        """The end of what it wrote."""
        with self._lock:
            return self._tail.decode(errors="replace")

    def wait(self, received: ReceivedSignals, grace: float) -> int:
        """Wait until it has ended, in whatever way, and nothing of it runs any more; return its status.

        Signals that ``received`` gets are passed on. After the first that ends a program, it has ``grace`` seconds; a
        second one ends it at once. A program without a sign of life is asked for its stacks and killed.
        """
        passed, earlier, deadline = 0, len(received.names), None
        turn = time.monotonic()
        while (status := self._process.poll()) is None or self._outlived(received, deadline):
            processes.sleep_until_ended(self.pid, _POLL)
            late, turn = time.monotonic() - turn, time.monotonic()
            if late > _ASLEEP + _POLL:
                self._last = turn  # we were suspended, and so was it
            while passed < len(received.names):
                name = received.names[passed]
                passed += 1
                if name not in ENDING and passed <= earlier:
                    continue  # an earlier attempt's: Python, as it starts, would die of it
                if name in ENDING and deadline is not None:
                    self._kill()
                    continue
                self._pass_on(signal.Signals[name])
                if name in ENDING:
                    deadline = turn + grace
            if deadline is not None and turn > deadline:
                self._notice(
                    "grace", f"it hasn't ended {grace:.0f} s after {received.names[0]}, so it is killed"
                )
                deadline = float("inf")
                self._kill()
            self._watch(turn)
        processes.end_family(0.0 if status == 0 else min(grace, 5.0), self._keep)
        for pump in self._pumps:
            pump.join(5)
        self._log.close()
        return status

    def _pump(self, pipe: IO[bytes] | None, to: IO[str]) -> None:
        assert pipe is not None
        while data := os.read(pipe.fileno(), 65536):
            with self._lock:
                self._tail += data
                del self._tail[:-_TAIL]
            try:
                self._log.write(data)
            except (OSError, ValueError):
                pass  # a full disk
            try:
                raw = getattr(to, "buffer", None)
                if raw is not None:
                    raw.write(data)
                else:
                    to.write(data.decode(errors="replace"))
                to.flush()
            except (OSError, ValueError):
                pass  # whoever listened has gone; the training goes on
        pipe.close()

    def _pass_on(self, number: signal.Signals) -> None:
        """Send a signal to the program as its launcher would be sent it: not to each process, or a Trainer's
        DataLoader workers would die of it. A shell passes nothing on, so its children get it."""
        try:
            main = psutil.Process(self.pid)
            targets = [main]
            while targets[-1].name() in _SHELLS and (children := targets[-1].children()):
                targets = children
        except psutil.Error:
            return
        processes.send(number, targets)

    def _outlived(self, received: ReceivedSignals, deadline: float | None) -> bool:
        """Tell whether ranks go on, though what started them has ended of the request to end; they are told, once.

        `accelerate launch` does so with one process: it passes nothing on.
        """
        if received.ending is None or deadline is None:
            return False
        pids = {line.get("pid") for line in notes_of(read_notes(self.folder), "train")}
        ranks = [one for one in processes.family(self._keep) if one.pid in pids]
        if not self._told:
            self._told = True
            processes.send(signal.Signals[received.ending], ranks)
        return bool(ranks)

    def _kill(self) -> None:
        processes.send(signal.SIGKILL, processes.family(self._keep))

    def _watch(self, now: float) -> None:
        self._end_waiting(self._ranks)
        if now - self._looked < _LOOK:
            return
        self._looked = now
        processes.reap(self._keep | {self.pid})  # reads all of /proc: too dear for each turn of the loop
        for sentence in self._lookout.look(processes.family(self._keep)):
            self._notice("unreached", sentence)
        beats = read_beats(self.folder)
        trains = any(beat.get("phase") in _TRAINS for beat in beats.values())
        self._spares.watch(self.pid, self._environment, trains=trains)
        if trains and self._on_training is not None:
            self._on_training()
            self._on_training = None
        self._ranks = len(beats)
        if not beats:
            self._notice_late(now)
        if not beats or self.silent is not None:
            return
        count = sum(int(beat.get("beats", 0)) for beat in beats.values())
        phases = {str(beat.get("phase")) for beat in beats.values()}
        if count != self._beats:
            if self._beats >= 0 and phases == {"train"} == self._phases:
                self._pulse.longest = max(self._pulse.longest, now - self._last)
                self._pulse.seen += 1
            self._beats, self._phases, self._last = count, phases, now
        elif now - self._last > self._pulse.limit(phases):
            self.silent = now - self._last
            self._end_hanging()

    def _end_waiting(self, ranks: int) -> None:
        """Kill the ranks that wait for one that has died: its launcher would take half a minute longer."""
        waiting = set(self._waiting.look(self.folder, ranks))
        found = [one for one in processes.family(self._keep) if one.pid in waiting] if waiting else []
        if found:
            self._notice(
                "waiting",
                f"a rank has died, and {len(found)} of the others can't go on without it: they are killed",
            )
            processes.send(signal.SIGKILL, found)

    def _notice_late(self, now: float) -> None:
        """Say, once, that nothing has come to training yet. What comes before it may take hours: it isn't ended."""
        limit = self._pulse.limit(set()) if self._pulse.fixed is None else 2 * self._pulse.fixed
        if self._late or now - self._begin < limit:
            return
        self._late = True
        asked = self._ask_for_stacks("hooked")
        where = (
            f"; the stacks of those that have transformers are in {self.folder}/rank-*.stacks"
            if asked
            else ""
        )
        self._notice(
            "late",
            f"no training has begun {now - self._begin:.0f} s after the start{where}. Loading may take that long, so "
            "nothing is ended: if it hangs, Ctrl-C ends it",
        )

    def _ask_for_stacks(self, kind: str) -> int:
        """Have the processes that have written a note of this kind write their stacks; return how many there are."""
        pids = {
            int(line["pid"])
            for line in notes_of(read_notes(self.folder), kind)
            if line.get("pid") and line.get("stacks", True)
        }
        ranks = [one for one in processes.family(self._keep) if one.pid in pids]
        if STACKS_SIGNAL is not None and ranks:
            processes.send(signal.SIGCONT, ranks)
            processes.send(STACKS_SIGNAL, ranks)
            time.sleep(1.0)
        return len(ranks)

    def _end_hanging(self) -> None:
        self._ask_for_stacks("train")
        self._notice(
            "hang",
            f"no sign of life for {self.silent:.0f} s: the stacks of all ranks are in {self.folder}/rank-*.stacks, and "
            "all processes are killed",
        )
        self._kill()
