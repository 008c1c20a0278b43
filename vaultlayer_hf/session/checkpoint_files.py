"""What a save and a start ask about a checkpoint's files: which must be there, which are loaded, how they fit.

Only who wrote a checkpoint knows its files, so each seam answers for its own: the Trainer's ``TrainerFiles``, a loop's
``StateFiles`` and ``LoopFiles``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vaultlayer_hf.state.model_identity import ModelIdentity


@dataclass(frozen=True)
class Conversion:
    """What makes a checkpoint of another number of ranks loadable.

    Attributes:
        of_folder: changes the folder on each node before it appears; raises WorldSizeError where it can't.
        on_ranks: called on every rank once the checkpoint is chosen.
    """

    of_folder: Callable[[Path], None]
    on_ranks: Callable[[], None]


class CheckpointFiles(Protocol):
    """The files of one seam's checkpoints. ``paths`` are relative to the checkpoint's folder, with ``/``.

    files.missing({"model.safetensors"}, world_size=1)  # ['optimizer.pt', 'scheduler.pt', 'rng_state.pth']
    """

    @property
    def model(self) -> ModelIdentity:
        """The identity of the model at hand; without parameters where it isn't known."""
        ...

    @property
    def best(self) -> bool:
        """Whether the best checkpoint must be on the disk too; not, unless the seam says so."""
        return False

    def missing(self, paths: set[str], *, world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks that ``world_size`` ranks have written; for a message."""
        ...

    def unwritten(self, folder: Path, paths: set[str], *, world_size: int) -> list[str]:
        """Return what a folder lacks that this run has just written, with these files of all nodes; for a message.

        More is asked for than by ``missing``: what this version writes and an earlier one didn't, and what the files
        themselves name. ``folder``: on rank 0's disk. May raise anything where that is damaged: it isn't committed.
        """
        return self.missing(paths, world_size=world_size)

    def unloadable(self, folder: Path, paths: Collection[str]) -> list[str]:
        """Return what of these files of a folder can't be loaded, each with the reason. Never raises."""
        return []

    def best_step(self, folder: Path) -> int | None:
        """Return the step of the best checkpoint that a folder names; None where it names none. Raises ValueError."""
        return None

    def wanted(self, paths: set[str], ranks: tuple[int, ...], *, world_size: int) -> set[str]:
        """Return those of these paths that ``ranks`` load, at the world size that the checkpoint was written with."""
        ...

    def refusal(self, paths: set[str], *, written: int, now: int) -> str:
        """Return why a checkpoint that ``written`` ranks wrote can't be resumed on ``now``; empty where it can."""
        ...

    def localised(self, folder: Path, output_dir: Path, versions: Mapping[str, str]) -> dict[str, bytes]:
        """Return new content, by file name, for files in ``folder`` that can't be used here as they are.

        They name paths of the old host, say, or were written by another version of a library. Empty unless the seam
        has such files.

        Args:
            folder: of the checkpoint.
            output_dir: where checkpoint folders lie on this host.
            versions: of the libraries that have written it, by name, as far as that is known.
        """
        return {}

    def conversion(self, paths: set[str], *, written: int, now: int) -> Conversion | None:
        """Return how a checkpoint that ``written`` ranks wrote is converted for ``now``; None where it needn't be."""
        return None
