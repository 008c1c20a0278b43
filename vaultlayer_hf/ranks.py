"""What the ranks of a run tell each other: agreed on the main thread, bounded in time, never a hang.

Words go through the store that the process group was set up with (keys and values on rank 0's node), not
through collectives: a collective of gloo waits for ever for a rank that is gone, and one of NCCL can't be
called beside another. A single process has nobody to talk to, and the same calls return at once.

Ranks that see one file system form a *node* here, whatever machines they run on: found out by a probe file at
the start, not configured. The lowest rank of a node is its leader; rank 0 is the leader of node 0.
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from vaultlayer_hf import files
from vaultlayer_hf.errors import RanksError, VaultLayerError

T = TypeVar("T")
_GRACE = 10.0
"""Seconds that the others wait longer than rank 0, so that it is rank 0 that decides who is missing."""
_KEPT_ROUNDS = 8


class KeyValueStore(Protocol):
    """The part of torch.distributed.Store that is used."""

    def set(self, key: str, value: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def wait(self, keys: list[str], timeout: timedelta) -> None: ...
    def delete_key(self, key: str) -> bool: ...


@dataclass(frozen=True)
class Place:
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
    def leads(self) -> bool:
        """Whether this rank is the leader of its node."""
        return self.nodes[self.node][0] == self.rank


class Ranks:
    """The ranks of this run, seen from one of them.

    Every method is called by all ranks in the same order, on the main thread. A rank that was late for a round
    finds back to the others at the next round with a tag.

    Args:
        rank: of this process.
        world_size: how many there are.
        store: how they talk; None for a single process.
        timeout: seconds that a rank waits for another at the start and at a save.
    """

    def __init__(
        self, rank: int = 0, world_size: int = 1, store: KeyValueStore | None = None, timeout: float = 600.0
    ):
        self.rank = rank
        self.world_size = world_size
        self._store = store
        self._timeout = timeout
        self._count = 0
        self._published: deque[str] = deque()

    def gather(self, value: Any, *, tag: str | None = None, timeout: float | None = None) -> list[Any]:
        """Return what each rank gave, by rank; ``tag`` names the round where ranks may have lost count.

        Raises RanksError, on all ranks that take part, naming the ranks that are missing.
        """
        if self._store is None:
            return [value]
        self._count += tag is None
        bound = self._timeout if timeout is None else timeout
        try:
            found, missing = self._exchange(self._store, f"vaultlayer/{tag or self._count}/", value, bound)
        except (RuntimeError, OSError) as error:
            raise RanksError(
                f"rank {self.rank} can't reach the others any more: {_first_line(error)}"
            ) from error
        if missing:
            raise RanksError(f"no word from rank {', '.join(map(str, missing))} within {bound:.0f} s")
        return found

    def _exchange(
        self, store: KeyValueStore, prefix: str, value: Any, bound: float
    ) -> tuple[list[Any], list[int]]:
        """Rank 0 collects and publishes, so that all ranks agree on who has answered too."""
        if self.rank != 0:
            store.set(f"{prefix}{self.rank}", pickle.dumps(value))
            store.wait([f"{prefix}all"], timedelta(seconds=bound + _GRACE))
            return pickle.loads(store.get(f"{prefix}all"))  # type: ignore[no-any-return]
        deadline = time.monotonic() + bound
        found, missing = [value], []
        for rank in range(1, self.world_size):
            key = f"{prefix}{rank}"
            try:
                store.wait([key], timedelta(seconds=max(0.001, deadline - time.monotonic())))
            except RuntimeError as error:
                if "imed out" not in str(error) and "imeout" not in str(error):
                    raise
                missing.append(rank)
                found.append(None)
                continue
            found.append(pickle.loads(store.get(key)))
            store.delete_key(key)
        store.set(f"{prefix}all", pickle.dumps((found, missing)))
        self._published.append(f"{prefix}all")
        if len(self._published) > _KEPT_ROUNDS:  # read by everybody who still takes part
            store.delete_key(self._published.popleft())
        return found, missing

    def share(self, value: Any, *, timeout: float | None = None) -> Any:
        """Return what rank 0 gave; the others' value is ignored. Raises RanksError."""
        return self.gather(value if self.rank == 0 else None, timeout=timeout)[0]

    def lead(self, function: Callable[[], T], *, timeout: float | None = None) -> T:
        """Call ``function`` on rank 0 alone and return its result on all; a VaultLayerError is raised on all."""
        value, failure = None, None
        if self.rank == 0:
            try:
                value = function()
            except VaultLayerError as error:
                failure = error
        value, failure = self.share((value, failure), timeout=timeout)
        if failure is not None:
            raise failure
        return cast(T, value)

    def locate(self, folder: Path) -> Place:
        """Find out which ranks see one file system under ``folder``. Raises RanksError, OSError."""
        if self._store is None:
            return Place(0, 1, ((0,),))
        name = self.share(uuid.uuid4().hex)
        probe = folder / f"probe-{name}"
        files.make_folder(probe)
        (probe / str(self.rank)).touch()
        self.gather(None)
        seen = tuple(sorted(int(path.name) for path in probe.iterdir()))
        nodes = tuple(sorted(set(self.gather(seen))))
        if self.rank == seen[0]:
            files.remove_tree(probe)
        return Place(self.rank, self.world_size, _partition(nodes, self.world_size))


def current_ranks(timeout: float = 600.0) -> Ranks:
    """Return the ranks of the process group that is set up, or a single rank where there is none."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Ranks()
    store: Any = dist.distributed_c10d._get_default_store()
    return Ranks(dist.get_rank(), dist.get_world_size(), store, timeout)


def _partition(groups: Sequence[tuple[int, ...]], world_size: int) -> tuple[tuple[int, ...], ...]:
    """Check that the groups of ranks cover every rank once. Pure."""
    if sorted(rank for group in groups for rank in group) != list(range(world_size)):
        raise RanksError(f"the ranks don't agree on who shares a file system: {groups}")
    return tuple(groups)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
