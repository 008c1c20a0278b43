"""What the ranks tell each other about a checkpoint, and who uploads which of its files. Pure.

The two rounds that carry these are in rounds.py: a ``RankStatus`` of each rank becomes a ``SaveSummary`` for all, and
the ``NodeFiles`` of each node's leader become the ``UploadPlan``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vaultlayer_hf.base.digest import KnownDigest
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.state.model_identity import Parameters
from vaultlayer_hf.vault.log.entry import Commit


@dataclass(frozen=True)
class Save:
    """What the seam tells about a checkpoint folder that has just been written.

    Attributes:
        folder: where it is on this rank's disk.
        step: global step.
        files: the seam's; they say what the folder lacks, and what of it can't be loaded, before it may be committed.
        parameters: of the model.
        best_step: step of the best checkpoint so far, or None.
        rotates: whether the Trainer itself rotates old folders on this rank's disk.
        failed: why the folder couldn't be written, the same on all ranks; None where it could.
        nonfinite: what of this rank's part of the run is nan, in words; empty: all is finite.
        known: digests of its files that were taken as these were written.
    """

    folder: Path
    step: int
    files: CheckpointFiles
    parameters: Parameters = ()
    best_step: int | None = None
    rotates: bool = True
    failed: str | None = None
    nonfinite: str = ""
    known: Mapping[str, KnownDigest] = field(default_factory=dict)


@dataclass(frozen=True)
class RankStatus:
    """What each rank says in the first round: that it has written, why to stop, and what troubles its uploads.

    Attributes:
        node: number of its node.
        fenced: why to stop, or None.
        trouble: the host's name and what keeps its uploads from succeeding, or None.
        nonfinite: what of its part of the run is nan; empty: all is finite.
    """

    node: int
    fenced: str | None = None
    trouble: str | None = None
    nonfinite: str = ""


@dataclass(frozen=True)
class SaveSummary:
    """What rank 0 makes of the statuses of all ranks, for all ranks.

    Attributes:
        fenced: why to stop, or None.
        troubles: (rank, node, words) of each rank in trouble.
        wanted: positions of the saves that rank 0 still carries, and of this one.
        commits: the newest commits, oldest first.
        best_step: step of the best checkpoint as the log knows it.
        nonfinite: what of the run is nan, as the first rank says that has found any.
    """

    fenced: str | None = None
    troubles: tuple[tuple[int, int, str], ...] = ()
    wanted: tuple[int, ...] = ()
    commits: tuple[Commit, ...] = ()
    best_step: int | None = None
    nonfinite: str = ""


@dataclass(frozen=True)
class NodeFiles:
    """What each node's leader says in the second round; the other ranks say nothing of their own.

    Attributes:
        node: number of the node; None from ranks that lead none.
        paths: files that lie in the node's folder.
        error: why the folder could not be frozen.
        folders: names of the checkpoint folders on the disk, after rotation.
        sealed: whether the files' digests were on the disk already; where a snapshot is adopted.
    """

    node: int | None = None
    paths: tuple[str, ...] = ()
    error: str | None = None
    folders: tuple[str, ...] = ()
    sealed: bool = True


@dataclass(frozen=True)
class UploadPlan:
    """Who sends what of one checkpoint.

    Attributes:
        folder: name of the checkpoint's folder in the vault.
        owners: the node that sends each file which lies on several.
        others: the nodes other than 0 that have something to send.
        paths: all files, of all nodes; only on rank 0.
        objection: why this checkpoint can't be committed, or None.
        folders: names of the checkpoint folders on rank 0's disk.
    """

    owners: dict[str, int]
    folder: str = ""
    others: tuple[int, ...] = ()
    paths: frozenset[str] = frozenset()
    objection: str | None = None
    folders: tuple[str, ...] = ()

    def share_of(self, node: int, paths: Iterable[str]) -> frozenset[str]:
        """Return those of the files that lie on a node which it sends."""
        return frozenset(path for path in paths if self.owners.get(path, node) == node)


def divide(listings: Sequence[NodeFiles]) -> UploadPlan:
    """Give each file to the lowest node that holds it. Pure."""
    first: dict[str, int] = {}
    owners: dict[str, int] = {}
    senders = set()
    for listing in sorted((item for item in listings if item.node is not None), key=_node_of):
        node = _node_of(listing)
        for path in listing.paths:
            if path in first:
                owners[path] = first[path]
            else:
                first[path] = node
                senders.add(node)
    return UploadPlan(owners, others=tuple(sorted(senders - {0})), paths=frozenset(first))


def _node_of(listing: NodeFiles) -> int:
    assert listing.node is not None
    return listing.node
