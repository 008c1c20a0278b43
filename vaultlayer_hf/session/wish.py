"""What the seam wants of a checkpoint, and how one of another number of ranks is made to fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.state.model_identity import Parameters


@dataclass(frozen=True)
class Conversion:
    """What makes a checkpoint of another number of ranks loadable.

    Attributes:
        of_folder: changes the folder on each node before it appears; raises WorldSizeError where it can't.
        on_ranks: called on every rank once the checkpoint is chosen.
    """

    of_folder: Callable[[Path], None]
    on_ranks: Callable[[], None]


def no_conversion(paths: set[str], written: int, now: int) -> Conversion | None:
    """Nothing has to be converted."""
    return None


@dataclass(frozen=True)
class Wish:
    """What the seam wants of a checkpoint.

    Attributes:
        parameters: of the model at hand; empty where it isn't known.
        missing: returns what a checkpoint with these files lacks that was written at this world size.
        wanted: returns those of these paths that these ranks load, at the world size it was written with.
        refuse: returns why a checkpoint with these files, written at the first world size, can't be resumed at
            the second; empty where it can.
        localise: given a folder and ``output_dir``, returns new content for files that name paths of the
            old host, by file name.
        best: whether the best checkpoint must be on the disk too.
        convert: returns how a checkpoint with these files, written at the first world size, is converted for the
            second; None where it needn't be.
    """

    parameters: Parameters
    missing: Callable[[set[str], int], list[str]]
    wanted: Callable[[set[str], tuple[int, ...], int], set[str]]
    refuse: Callable[[set[str], int, int], str]
    localise: Callable[[Path, Path], dict[str, bytes]]
    best: bool = False
    convert: Callable[[set[str], int, int], Conversion | None] = no_conversion
