"""What the background uploader is given."""

from __future__ import annotations

from dataclasses import dataclass

from vaultlayer_hf.vault.snapshot import Snapshot


@dataclass(frozen=True)
class Job:
    """A snapshot and what to do with it.

    Attributes:
        snapshot: sealed or not.
        folder: key prefix in the vault, the same on all nodes.
        only: paths that this node sends; None: all.
        others: the other nodes whose parts belong to the checkpoint; for the node that commits.
        nonfinite: what of the run is nan; empty: all is finite.
    """

    snapshot: Snapshot
    folder: str
    only: frozenset[str] | None = None
    others: tuple[int, ...] = ()
    nonfinite: str = ""

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
