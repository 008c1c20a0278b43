"""One checkpoint that has been captured: written by a thread of ours, and then ready to appear."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from vaultlayer_hf.base.digest import KnownDigest
from vaultlayer_hf.state.capture.copier import Copier
from vaultlayer_hf.state.capture.copying import StateCopy
from vaultlayer_hf.state.capture.recorded import Recorded
from vaultlayer_hf.state.capture.writing import FileWriter


class Capture:
    """One checkpoint that has been captured, and hasn't appeared yet.

    Args:
        folder, target, step: see below.
        recorded: its files that aren't written yet.
        copy: see below; what they are written from.
        keep: writes what is ours into the folder, where it appears before ``hand_in``.

    Attributes:
        folder: where it is written.
        target: its folder's final path.
        step: at which its state was captured.
        before: what is done when it is written, and about to appear; on the training thread.
        behind: what is done once it has appeared, in this order; on the training thread.
        copy: of the state.
        handed_in: whether training has gone on since the copy.
        seconds: for which it was written, once it is.
        known: digests of its files that were taken meanwhile.
    """

    def __init__(
        self,
        folder: Path,
        target: Path,
        step: int,
        recorded: list[Recorded],
        copy: StateCopy,
        keep: Callable[[], object],
    ) -> None:
        self.folder, self.target, self.step = folder, target, step
        self.before = keep
        self.behind: list[Callable[[], object]] = []
        self.handed_in = False
        self.seconds = 0.0
        self.known: dict[str, KnownDigest] = {}
        self.copy = copy
        self._recorded = recorded
        self._jobs: list[Callable[[], object]] = []
        self._written: Future[None] | None = None

    def hand_in(
        self, job: Callable[[], object], before: Callable[[], object], save: Callable[[], object]
    ) -> None:
        """Say what else is to be done for this checkpoint, so that training can go on; called before ``write``.

        Args:
            job: done by the thread that writes, once the state is copied.
            before: see above; what is small of ours is written already.
            save: done last when it has appeared.
        """
        self._jobs.append(job)
        self.before = before
        self.behind.append(save)
        self.handed_in = True

    def write(self, copier: Copier) -> None:
        """Have the thread begin to write it; a second call does nothing."""
        if self._written is None:
            self._written = copier.submit(lambda: self.run(copier.writer))

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._written is not None and self._written.done()

    def wait(self) -> None:
        """Wait until it is written. Raises what writing raised."""
        if self._written is not None:
            self._written.result()

    def give_up(self) -> None:
        """Wait until nothing is copied any more, because nobody wants this checkpoint."""
        self.copy.give_up()

    def run(self, writer: FileWriter) -> None:
        """Write the files, once the state is copied; on the thread that writes."""
        begin = time.monotonic()
        self.copy.wait()
        for job in self._jobs:
            job()
        known = writer.write(self._recorded, self.copy.of)
        self.known = {path.relative_to(self.folder).as_posix(): one for path, one in known.items()}
        self._recorded, self._jobs = [], []
        self.seconds = time.monotonic() - begin
