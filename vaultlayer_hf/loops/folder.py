"""What the checkpoint folder of a loop holds: writing this rank's files, reading them, and saying what must be there.

``files.py`` says which files these are.
"""

from __future__ import annotations

from pathlib import Path

from vaultlayer_hf.base.versions import versions
from vaultlayer_hf.loops.data import LoopData
from vaultlayer_hf.loops.files import ABOUT, rank_files, read_about, read_state, write_about, write_state
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.state.random_state import put_random_state, take_random_state


class LoopFolder:
    """Writes and reads checkpoint folders.

    Args:
        state: the objects of the training.
        position: where the loop is in its data.
    """

    def __init__(self, state: Stateful, position: LoopData) -> None:
        self._state, self._position = state, position

    def write(
        self, folder: Path, step: int, figures: dict[str, float], *, rank: int, world_size: int
    ) -> None:
        """Write this rank's files; rank 0's ``vaultlayer.json`` comes last. All ranks.

        ``figures``: numbers kept with the checkpoint, such as the loss, by name. Raises what the objects raise.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._state.write(folder, rank)
        random_file, data_file = rank_files(rank)
        write_state(folder / random_file, take_random_state())
        write_state(folder / data_file, self._position.state_dict())
        if rank == 0:
            write_about(folder, step=step, world_size=world_size, versions=versions(), **figures)

    def read(self, folder: Path, *, rank: int) -> int:
        """Load everything, and return how many steps are done. All ranks.

        A rank that the checkpoint's run didn't have gets rank 0's place in the data, and keeps its own random numbers.
        Raises ResumeError, and what the objects raise.
        """
        about = read_about(folder)
        self._state.read(folder)
        written = int(about["world_size"])
        random_file, data_file = rank_files(rank if rank < written else 0)
        position = read_state(folder / data_file)
        random = read_state(folder / random_file) if rank < written else None
        self._position.load_state_dict(position, random, written)
        if random is not None:
            put_random_state(random)
        return int(about["step"])

    def missing(self, paths: set[str], world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks that ``world_size`` ranks have written."""
        needed = [ABOUT, *(name for rank in range(world_size) for name in rank_files(rank))]
        return self._state.missing(paths, world_size) + [name for name in needed if name not in paths]
