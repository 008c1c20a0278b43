"""A save of all ranks: agreed in two short rounds on the main thread, then carried by background threads.

1. Every rank says that it has written its files. `on_save` fires on rank 0 before the others have written
   theirs, so only after this round is the folder complete. Here too all ranks learn whether to stop.
2. Each node's leader freezes its folder and tells which files it holds. A file that several nodes hold is
   the lowest node's to send, so each file is uploaded once and a node sends what only it has.

A rank that doesn't answer in time costs that checkpoint, never the run. With one rank both rounds are free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vaultlayer_hf import files
from vaultlayer_hf.fingerprint import Parameters


@dataclass(frozen=True)
class Save:
    """What the seam tells about a checkpoint folder that has just been written.

    Attributes:
        folder: where it is on this rank's disk.
        step: global step.
        missing: returns what a folder with these files lacks; empty means that it may be committed.
        parameters: of the model.
        best_step: step of the best checkpoint so far, or None.
        rotates: whether the Trainer itself rotates old folders on this rank's disk.
    """

    folder: Path
    step: int
    missing: Callable[[Path, set[str]], list[str]]
    parameters: Parameters = ()
    best_step: int | None = None
    rotates: bool = True


@dataclass(frozen=True)
class Word:
    """What each rank says in the first round: that it has written, why to stop, and what troubles its uploads."""

    fenced: str | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Listing:
    """What each node's leader says in the second round; the other ranks say nothing of their own.

    Attributes:
        node: number of the node; None from ranks that lead none.
        paths: files that lie in the node's folder.
        error: why the folder could not be frozen.
        folders: names of the checkpoint folders on the disk, after rotation.
    """

    node: int | None = None
    paths: tuple[str, ...] = ()
    error: str | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Who sends what of one checkpoint.

    Attributes:
        paths: all files, of all nodes.
        owners: the paths that each node sends.
    """

    paths: frozenset[str]
    owners: dict[int, frozenset[str]] = field(default_factory=dict)

    @property
    def others(self) -> tuple[int, ...]:
        """The nodes other than 0 that have something to send."""
        return tuple(node for node, paths in sorted(self.owners.items()) if node != 0 and paths)


def divide(listings: Sequence[Listing]) -> Plan:
    """Give each file to the lowest node that holds it. Pure."""
    owners: dict[int, frozenset[str]] = {}
    taken: set[str] = set()
    for listing in sorted(
        (item for item in listings if item.node is not None), key=lambda item: item.node or 0
    ):
        assert listing.node is not None
        owners[listing.node] = frozenset(set(listing.paths) - taken)
        taken |= set(listing.paths)
    return Plan(frozenset(taken), owners)


def mirror_rotation(output_dir: Path, keep: Sequence[str], step: int) -> None:
    """Remove checkpoint folders that rank 0's disk has rotated away; for nodes on which nobody else does."""
    for path in output_dir.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if path.is_dir() and number.isdigit() and int(number) < step and path.name not in keep:
            files.remove_tree(path)
