"""What the ranks of a run tell each other: agreed on the main thread, bounded in time, never a hang.

Words go through the store that the process group was set up with (keys and values on rank 0's node), not
through collectives: a collective of gloo waits for ever for a rank that is gone, and one of NCCL can't be
called beside another. A single process has nobody to talk to, and the same calls return at once.

A round: each rank leaves its word at rank 0, rank 0 decides, all read what it decided. So all agree on who was
missing, too: a rank that came late reads that it was left out, and is back at the next round with a tag.
"""

from __future__ import annotations

import pickle
import platform
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

from vaultlayer_hf.errors import RanksError, ResumeError, StoreError, VaultLayerError

T = TypeVar("T")
_GRACE_SECONDS = 10.0
"""How much longer than rank 0 the others wait, so that it is rank 0 that decides who is missing."""
_SIGN_OF_LIFE_SECONDS = 30.0
"""Time between two signs of life of a rank that waits."""
_LOOK_SECONDS = 2.0
"""Time after which a rank that waits looks whether another one has left, again and again."""
_KEPT_ROUNDS = 8
"""Results that stay in the store: who takes part is at most one round behind, so it has read all older ones."""
LAG = 2
"""Steps between a request and the step at whose end all ranks act on it.

Each training step holds a collective (DDP's all-reduce), so ranks are at most one step apart: who asks at the end of
step n is seen by all at n + 1 at the latest. A loop without one (LocalSGD, no_sync over many steps) must not use this.
"""
_LEFT = "left"
"""Topic of the note of a rank that has left."""


class KeyValueStore(Protocol):
    """The part of torch.distributed.Store that is used."""

    def set(self, key: str, value: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def multi_get(self, keys: list[str]) -> list[bytes]: ...
    def check(self, keys: list[str]) -> bool: ...
    def compare_set(self, key: str, expected: str, desired: str) -> bytes: ...
    def wait(self, keys: list[str], timeout: timedelta) -> None: ...
    def delete_key(self, key: str) -> bool: ...


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
        self._requests: dict[str, int] = {}
        self._published: deque[str] = deque()

    def decide(
        self,
        value: Any,
        function: Callable[[list[Any]], T],
        *,
        tag: str | None = None,
        timeout: float | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> T:
        """Give the values of all ranks, by rank, to ``function`` on rank 0, and return its result on all.

        ``tag`` names the round where ranks may have lost count. ``timeout``: seconds to wait for a rank.
        ``on_wait`` is called every half a minute of waiting.
        Raises RanksError, on all ranks that take part, naming those that are missing, or one that has left; on all
        ranks whatever VaultLayerError ``function`` raises.
        """
        if self._store is None:
            return function([value])
        self._count += tag is None
        bound = self.timeout if timeout is None else timeout
        prefix = f"{self._prefix}{tag or self._count}/"
        try:
            if self.rank != 0:
                self._store.set(f"{prefix}{self.rank}", pickle.dumps(value))
                self._wait(self._store, [f"{prefix}all"], bound + _GRACE_SECONDS, on_wait)
                result, failure = pickle.loads(self._store.get(f"{prefix}all"))
            else:
                found, missing = self._collect(self._store, prefix, value, bound, on_wait)
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
        self,
        store: KeyValueStore,
        prefix: str,
        value: Any,
        bound: float,
        on_wait: Callable[[], None] | None,
    ) -> tuple[list[Any], list[int]]:
        """Wait for the words of the others; return the words by rank, and the ranks that are missing."""
        keys = [f"{prefix}{rank}" for rank in range(1, self.world_size)]
        missing: list[int] = []
        try:
            self._wait(store, keys, bound, on_wait)
        except RuntimeError as error:
            if not _is_timeout(error):
                raise
            missing = [rank for rank, key in enumerate(keys, 1) if not store.check([key])]
            keys = [key for rank, key in enumerate(keys, 1) if rank not in missing]
        found = [value, *map(pickle.loads, store.multi_get(keys) if keys else [])]
        for key in keys:
            store.delete_key(key)
        return found, missing

    def _wait(
        self, store: KeyValueStore, keys: list[str], bound: float, on_wait: Callable[[], None] | None
    ) -> None:
        """Wait for keys, with signs of life. Raises RuntimeError where time is up, RanksError where a rank has left."""
        shown = time.monotonic()
        deadline = shown + bound
        while True:
            remaining = deadline - time.monotonic()
            try:
                store.wait(keys, timedelta(seconds=max(0.001, min(_LOOK_SECONDS, remaining))))
                return
            except RuntimeError as error:
                if remaining <= _LOOK_SECONDS or not _is_timeout(error):
                    raise
            if (gone := self.get_status(_LEFT)) and not store.check(keys):
                raise RanksError(f"{gone} has ended its training")
            if on_wait is not None and time.monotonic() - shown >= _SIGN_OF_LIFE_SECONDS:
                on_wait()
                shown = time.monotonic()

    def leave(self) -> None:
        """Say that this rank takes no further part, so that nobody waits for it; best effort."""
        self.set_status(_LEFT, self._who)

    @property
    def _who(self) -> str:
        return f"rank {self.rank} on {platform.node()}"

    def _publish(self, store: KeyValueStore, key: str, value: Any) -> None:
        store.set(key, pickle.dumps(value))
        self._published.append(key)
        if len(self._published) > _KEPT_ROUNDS:  # read by everybody who still takes part
            store.delete_key(self._published.popleft())

    def gather(
        self,
        value: Any,
        *,
        tag: str | None = None,
        timeout: float | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Return what each rank gave, by rank; everything else as ``decide``."""
        return self.decide(value, lambda found: found, tag=tag, timeout=timeout, on_wait=on_wait)

    def set_status(self, topic: str, words: str) -> None:
        """Leave words for others to look at meanwhile; best effort. On any thread."""
        if self._store is not None:
            try:
                self._store.set(f"{self._prefix}note/{topic}", words.encode())
            except (RuntimeError, OSError):
                pass

    def get_status(self, topic: str) -> str:
        """Return the words that a rank has left last; empty where there are none."""
        key = f"{self._prefix}note/{topic}"
        try:
            return (
                self._store.get(key).decode() if self._store is not None and self._store.check([key]) else ""
            )
        except (RuntimeError, OSError):
            return ""

    def broadcast(self, value: Any, *, timeout: float | None = None) -> Any:
        """Return what rank 0 gave; the others' value is ignored. Raises RanksError."""
        return self.decide(value if self.rank == 0 else None, lambda found: found[0], timeout=timeout)

    def on_rank_zero(self, function: Callable[[], T], *, within: float = 0.0) -> T:
        """Call ``function`` on rank 0 alone and return its result on all; what it raises is raised on all.

        ``within``: seconds that it may take, on top of what ranks wait for each other anyway.
        """
        if self._store is None:
            return function()
        result, failure = _outcome(function, [], 0.0) if self.rank == 0 else (None, None)
        patience = self.timeout + (within if self.rank != 0 else 0.0)
        told = self.broadcast((result, _portable(failure)), timeout=patience)
        if self.rank != 0:
            result, failure = told
        if failure is not None:
            raise failure
        return cast(T, result)

    def on_every_rank(self, function: Callable[[], object], *, timeout: float | None = None) -> None:
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
        where = f"{self._who}: " if self.world_size > 1 else ""
        if isinstance(error, OSError) and not isinstance(error, VaultLayerError):
            return ResumeError(f"{where}{error}")
        if isinstance(error, StoreError) or not where:
            return error
        return type(error)(f"{where}{error}")

    def request(self, step: int, wanted: str | None, topic: str = "stop") -> str | None:
        """Ask at the end of ``step`` for something that all ranks are to do, such as to stop; None: ask for nothing.

        Returns what was asked for, ``LAG`` steps later and at the end of the same step on every rank; None until then.
        Of several requests under one ``topic`` the first wins. Costs one small request to the store a step. Where the
        store can't be reached nothing is agreed on.
        """
        if self._store is None:
            return wanted
        count = self._requests.get(topic, 0)
        key = f"{self._prefix}request/{topic}/{count}"
        try:
            if wanted is not None:
                self._store.compare_set(key, "", f"{step + LAG} {wanted}")
            if not self._store.check([key]):
                return None
            target, _, agreed = self._store.get(key).decode().partition(" ")
        except (RuntimeError, OSError):
            return None
        if step < int(target):
            return None
        self._requests[topic] = count + 1
        return agreed


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


def _is_timeout(error: RuntimeError) -> bool:
    return "imed out" in str(error) or "imeout" in str(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
