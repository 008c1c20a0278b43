"""One checkpoint that has been captured: written by a thread of ours, and then ready to appear."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.state.capture.copying import StateCopy
from vaultlayer_hf.state.capture.recorded import Recorded, copied


class Capture:
    """One checkpoint that has been captured, and hasn't appeared yet.

    Attributes:
        folder: where it is written.
        target: its folder's final path.
        step: at which its state was captured.
        copy: of its state.
        behind: what is done once it has appeared, in this order; on the training thread.
    """

    def __init__(
        self, folder: Path, target: Path, step: int, recorded: list[Recorded], copy: StateCopy
    ) -> None:
        self.folder, self.target, self.step = folder, target, step
        self.behind: list[Callable[[], object]] = []
        self.copy = copy
        self._recorded = recorded
        self._jobs: list[Callable[[], object]] = []
        self._written: Future[None] | None = None

    def add(self, job: Callable[[], object]) -> None:
        """Have something done by the thread that writes, once the state is copied. Before ``write``."""
        self._jobs.append(job)

    def write(self, thread: ThreadPoolExecutor) -> None:
        """Have it written; once."""
        if self._written is not None:
            return
        try:
            self._written = thread.submit(self.run)
        except RuntimeError:  # the interpreter is ending: no thread takes anything more
            self._written = Future()
            try:
                self.run()
            except Exception as error:
                self._written.set_exception(error)
            else:
                self._written.set_result(None)

    def copy_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return what stands for a tensor of the training in the copy; one that isn't in there is copied at once."""
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
        if plain and self.copy.holds(tensor.untyped_storage()):
            return copied(tensor, self.copy.of)
        return tensor.detach().clone()

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._written is not None and self._written.done()

    def wait(self) -> None:
        """Wait until it is written. Raises what writing raised."""
        if self._written is not None:
            self._written.result()

    def run(self) -> None:
        """Write the files, once the state is copied; on the thread that writes."""
        self.copy.wait()
        for job in self._jobs:
            job()
        for one in self._recorded:
            one.write(self.copy.of)
            files.fsync_file(
                one.path
            )  # here, where it holds up nothing: what follows on the training thread is short
        self._recorded, self._jobs = [], []


def write_now(recorded: list[Recorded]) -> None:
    """Write recorded files from the state itself."""
    for one in recorded:
        one.write(_on_host)


def _on_host(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]
