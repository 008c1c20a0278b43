"""What the background uploader is given."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.vault.snapshot import Snapshot

Unloadable = Callable[[Path, Collection[str]], list[str]]
"""Returns which of a folder's files can't be loaded, each with the reason. Never raises."""


def all_loadable(folder: Path, paths: Collection[str]) -> list[str]:
    """Try nothing: for files of which nobody knows how they are loaded."""
    return []


@dataclass(frozen=True)
class Job:
    """A snapshot and what to do with it.

    Attributes:
        snapshot: sealed or not.
        folder: key prefix in the vault, the same on all nodes.
        only: paths that this node sends; None: all.
        others: the other nodes whose parts belong to the checkpoint; for the node that commits.
        nonfinite: what of the run is nan; empty: all is finite.
        unloadable: tries the files that this node sends.
    """

    snapshot: Snapshot
    folder: str
    only: frozenset[str] | None = None
    others: tuple[int, ...] = ()
    nonfinite: str = ""
    unloadable: Unloadable = all_loadable

    @property
    def seq(self) -> int:
        """Position among the saves of this writer."""
        return self.snapshot.seq

    @property
    def size(self) -> int:
        """Bytes of the snapshot."""
        if self.snapshot.stats:
            return sum(size for size, _ in self.snapshot.stats.values())
        return self.snapshot.manifest.bytes
