"""Which ranks see one file system: they form a *node* here, whatever machines they run on.

Found out by a probe file at the start, not configured. The lowest rank of a node is its leader; rank 0 is the
leader of node 0.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.ranks import Ranks

_LOOKS = 5
"""How often it is looked: a network file system may show a new file late."""


@dataclass(frozen=True)
class Topology:
    """Where a rank is among the others.

    Attributes:
        rank: of this process, from 0.
        world_size: how many ranks there are.
        nodes: the ranks that see one file system, group by group, ordered by their lowest rank.
    """

    rank: int
    world_size: int
    nodes: tuple[tuple[int, ...], ...]

    @property
    def node(self) -> int:
        """The number of this rank's node."""
        return next(number for number, ranks in enumerate(self.nodes) if self.rank in ranks)

    @property
    def leads_node(self) -> bool:
        """Whether this rank is the leader of its node."""
        return self.nodes[self.node][0] == self.rank


def find_topology(ranks: Ranks, folder: Path) -> Topology:
    """Find out which ranks see one file system under ``folder``. All ranks.

    Raises RanksError, and ResumeError where a rank can't write there.
    """
    if ranks.world_size == 1:
        return Topology(0, 1, ((0,),))
    probe = folder / f"probe-{ranks.broadcast(uuid.uuid4().hex)}"

    def leave_mark() -> None:
        files.make_folder(probe)
        (probe / str(ranks.rank)).touch()

    ranks.on_every_rank(leave_mark)
    try:
        for look in range(_LOOKS):
            time.sleep(look * 0.2)
            seen = tuple(sorted(int(path.name) for path in probe.iterdir()))
            nodes = _partition(ranks.gather(seen))
            if nodes is not None:
                return Topology(ranks.rank, ranks.world_size, nodes)
        raise RanksError(f"the ranks don't agree on who shares the file system of {folder}")
    finally:
        files.remove_tree(probe)
        with contextlib.suppress(OSError):  # an output folder with nothing in it stays so
            folder.rmdir()


def _partition(seen: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...] | None:
    """Return the nodes from what each rank saw, by rank; None where they contradict each other. Pure."""
    nodes = tuple(sorted(set(seen)))
    if sorted(rank for node in nodes for rank in node) != list(range(len(seen))):
        return None
    return nodes if all(rank in group for rank, group in enumerate(seen)) else None
