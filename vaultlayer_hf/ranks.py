"""What the ranks of a run tell each other: agreed on the main thread, bounded in time, never a hang.

Words go through the store that the process group was set up with (keys and values on rank 0's node), not
through collectives: a collective of gloo waits for ever for a rank that is gone, and one of NCCL can't be
called beside another. A single process has nobody to talk to, and the same calls return at once.

Ranks that see one file system form a *node* here, whatever machines they run on: found out by a probe file at
the start, not configured. The lowest rank of a node is its leader; rank 0 is the leader of node 0.

A round: each rank leaves its word at rank 0, rank 0 decides, all read what it decided. So all agree on who was
missing, too: a rank that came late reads that it was left out, and is back at the next round with a tag.
"""

from __future__ import annotations

import itertools
import pickle
import platform
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from vaultlayer_hf import files
from vaultlayer_hf.errors import RanksError, ResumeError, StoreError, VaultLayerError

T = TypeVar("T")
_GRACE = 10.0
"""Seconds that the others wait longer than rank 0, so that it is rank 0 that decides who is missing."""
_KEPT_ROUNDS = 8
_SEEN_WITHIN = 2
"""Steps after which every rank has seen what one has asked for: none can end a step that another hasn't begun."""
_LOOKS = 5
"""How often a node is looked for: a network file system may show a new file late."""
_made = itertools.count()


class KeyValueStore(Protocol):
    """The part of torch.distributed.Store that is used."""

    def set(self, key: str, value: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def multi_get(self, keys: list[str]) -> list[bytes]: ...
    def check(self, keys: list[str]) -> bool: ...
    def compare_set(self, key: str, expected: str, desired: str) -> bytes: ...
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

    Every method is called by all ranks in the same order, on the main thread.

    Args:
        rank: of this process.
        world_size: how many there are.
        store: how they talk; None for a single process.
        timeout: seconds that a rank waits for another at the start and at a save.
        name: of this conversation; the same on all ranks, and another one for each that uses one store.
    """

    def __init__(
        self,
        rank: int = 0,
        world_size: int = 1,
        store: KeyValueStore | None = None,
        timeout: float = 600.0,
        name: str = "0",
    ):
        self.rank = rank
        self.world_size = world_size
        self.timeout = timeout
        self._store = store
        self._prefix = f"vaultlayer/{name}/"
        self._count = 0
        self._asked = 0
        self._published: deque[str] = deque()

    def decide(
        self,
        value: Any,
        function: Callable[[list[Any]], T],
        *,
        tag: str | None = None,
        timeout: float | None = None,
    ) -> T:
        """Give the values of all ranks, by rank, to ``function`` on rank 0, and return its result on all.

        ``tag`` names the round where ranks may have lost count. ``timeout``: seconds to wait for a rank.
        Raises RanksError, on all ranks that take part, naming those that are missing; on all ranks whatever
        VaultLayerError ``function`` raises.
        """
        if self._store is None:
            return function([value])
        self._count += tag is None
        bound = self.timeout if timeout is None else timeout
        prefix = f"{self._prefix}{tag or self._count}/"
        try:
            if self.rank != 0:
                self._store.set(f"{prefix}{self.rank}", pickle.dumps(value))
                self._store.wait([f"{prefix}all"], timedelta(seconds=bound + _GRACE))
                result, failure = pickle.loads(self._store.get(f"{prefix}all"))
            else:
                found, missing = self._collect(self._store, prefix, value, bound)
                result, failure = _outcome(lambda: function(found), missing, bound)
                self._publish(self._store, f"{prefix}all", (result, _portable(failure)))
        except (RuntimeError, OSError) as error:
            raise RanksError(
                f"rank {self.rank} can't reach the others any more: {_first_line(error)}"
            ) from error
        if failure is not None:
            raise failure
        return cast(T, result)

    def _collect(
        self, store: KeyValueStore, prefix: str, value: Any, bound: float
    ) -> tuple[list[Any], list[int]]:
        """Wait for the words of the others; return the words by rank, and the ranks that are missing."""
        keys = [f"{prefix}{rank}" for rank in range(1, self.world_size)]
        missing: list[int] = []
        try:
            store.wait(keys, timedelta(seconds=max(0.001, bound)))
        except RuntimeError as error:
            if "imed out" not in str(error) and "imeout" not in str(error):
                raise
            missing = [rank for rank, key in enumerate(keys, 1) if not store.check([key])]
            keys = [key for rank, key in enumerate(keys, 1) if rank not in missing]
        found = [value, *map(pickle.loads, store.multi_get(keys) if keys else [])]
        for key in keys:
            store.delete_key(key)
        return found, missing

    def _publish(self, store: KeyValueStore, key: str, value: Any) -> None:
        store.set(key, pickle.dumps(value))
        self._published.append(key)
        if len(self._published) > _KEPT_ROUNDS:  # read by everybody who still takes part
            store.delete_key(self._published.popleft())

    def gather(self, value: Any, *, tag: str | None = None, timeout: float | None = None) -> list[Any]:
        """Return what each rank gave, by rank. Raises RanksError as ``decide`` does."""
        return self.decide(value, lambda found: found, tag=tag, timeout=timeout)

    def share(self, value: Any, *, timeout: float | None = None) -> Any:
        """Return what rank 0 gave; the others' value is ignored. Raises RanksError."""
        return self.decide(value if self.rank == 0 else None, lambda found: found[0], timeout=timeout)

    def lead(self, function: Callable[[], T], *, within: float = 0.0) -> T:
        """Call ``function`` on rank 0 alone and return its result on all; what it raises is raised on all.

        ``within``: seconds that it may take, on top of what ranks wait for each other anyway.
        """
        if self._store is None:
            return function()
        result, failure = _outcome(function, [], 0.0) if self.rank == 0 else (None, None)
        patience = self.timeout + (within if self.rank != 0 else 0.0)
        told = self.share((result, _portable(failure)), timeout=patience)
        if self.rank != 0:
            result, failure = told
        if failure is not None:
            raise failure
        return cast(T, result)

    def everywhere(self, function: Callable[[], object], *, timeout: float | None = None) -> None:
        """Call ``function`` on every rank; where it fails on one, that failure is raised on all.

        An OSError becomes a ResumeError that names the rank and its host.
        """
        failure: VaultLayerError | None = None
        try:
            function()
        except (VaultLayerError, OSError) as error:
            failure = self.named(error)
        for found in self.gather(failure, timeout=timeout):
            if found is not None:
                raise found

    def named(self, error: VaultLayerError | OSError) -> VaultLayerError:
        """Return an error as all ranks may raise it: with the rank and host on which it happened."""
        where = f"rank {self.rank} on {platform.node()}: " if self.world_size > 1 else ""
        if isinstance(error, OSError) and not isinstance(error, VaultLayerError):
            return ResumeError(f"{where}{error}")
        if isinstance(error, StoreError) or not where:
            return error
        return type(error)(f"{where}{error}")

    def soon(self, step: int, word: str | None) -> str | None:
        """Say at the end of ``step`` that one rank wants something of all, such as to stop; None: nothing.

        Returns the word at the end of the same step, a few steps later, on every rank: that of the rank which
        was first. Costs one small request a step. Where the others can't be reached nothing is agreed on.
        """
        if self._store is None:
            return word
        key = f"{self._prefix}soon/{self._asked}"
        try:
            if word is not None:
                self._store.compare_set(key, "", f"{step + _SEEN_WITHIN} {word}")
            if not self._store.check([key]):
                return None
            target, _, agreed = self._store.get(key).decode().partition(" ")
        except (RuntimeError, OSError):
            return None
        if step < int(target):
            return None
        self._asked += 1
        return agreed

    def locate(self, folder: Path) -> Place:
        """Find out which ranks see one file system under ``folder``. Raises RanksError, ResumeError (a bad disk)."""
        if self._store is None:
            return Place(0, 1, ((0,),))
        probe = folder / f"probe-{self.share(uuid.uuid4().hex)}"

        def leave() -> None:
            files.make_folder(probe)
            (probe / str(self.rank)).touch()

        self.everywhere(leave)
        try:
            for look in range(_LOOKS):
                time.sleep(look * 0.2)
                seen = tuple(sorted(int(path.name) for path in probe.iterdir()))
                nodes = _partition(self.gather(seen))
                if nodes is not None:
                    return Place(self.rank, self.world_size, nodes)
            raise RanksError(f"the ranks don't agree on who shares the file system of {folder}")
        finally:
            files.remove_tree(probe)


def current_ranks(timeout: float = 600.0) -> Ranks:
    """Return the ranks of the process group that is set up, or a single rank where there is none.

    All ranks must call it, equally often.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Ranks()
    store: Any = dist.distributed_c10d._get_default_store()
    return Ranks(dist.get_rank(), dist.get_world_size(), store, timeout, name=str(next(_made)))


def _outcome(
    function: Callable[[], T], missing: list[int], bound: float
) -> tuple[T | None, Exception | None]:
    """Return what ``function`` returns or raises, or that ranks are missing."""
    if missing:
        return None, RanksError(f"no word from rank {', '.join(map(str, missing))} within {bound:.0f} s")
    try:
        return function(), None
    except Exception as error:
        return None, error


def _portable(error: Exception | None) -> Exception | None:
    """Return an error as the other ranks get it: ours as they are, any other in words."""
    if error is None or isinstance(error, VaultLayerError):
        return error
    return RanksError(f"rank 0 failed: {type(error).__name__}: {_first_line(error)}")


def _partition(seen: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...] | None:
    """Return the nodes from what each rank saw, by rank; None where they contradict each other. Pure."""
    nodes = tuple(sorted(set(seen)))
    if sorted(rank for node in nodes for rank in node) != list(range(len(seen))):
        return None
    return nodes if all(rank in group for rank, group in enumerate(seen)) else None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
