"""What the ranks of a run tell each other: agreed on the main thread, bounded in time, never a hang.

Messages go through the store that the process group was set up with (keys and values on rank 0's node), not
through collectives: a collective of gloo waits for ever for a rank that is gone, and one of NCCL can't be
called beside another. A single process has nobody to talk to, and the same calls return at once.

A round: each rank leaves its value at rank 0, rank 0 decides, all read what it decided. So all agree on who was
missing, too: a rank that came late reads that it was left out, and is back at the next round with a tag.
"""

from __future__ import annotations

import platform
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

from vaultlayer_hf.errors import RanksError, ResumeError, StoreError, VaultLayerError
from vaultlayer_hf.session.messages import KeyValueStore, MessageStore, first_line, portable

T = TypeVar("T")
_GRACE_SECONDS = 10.0
"""How much longer than rank 0 the others wait, so that it is rank 0 that decides who is missing."""
_SIGN_OF_LIFE_SECONDS = 30.0
"""Time between two signs of life of a rank that waits."""
_LOOK_SECONDS = 2.0
"""Time after which a rank that waits looks whether another one has left, again and again."""
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.001, 0.25
_PAUSE_SHARE = 0.05
"""Share of the time waited so far that is slept before the next look: so a wait is 5 % longer than it must be, and a
thousand ranks that wait for minutes don't keep rank 0's host busy. The store's own wait() would be exact, but it prints
two warnings to stderr at each time-out, and no other thread can use the store meanwhile."""
_KEPT_ROUNDS = 8
"""Results that stay in the store: who takes part is at most one round behind, so it has read all older ones."""
_LEFT = "left"
"""Topic of the status of a rank that has left."""


class Ranks:
    """The ranks of this run, seen from one of them.

    Every method but ``leave``, ``set_status`` and ``get_status`` is called by all ranks in the same order, on the main
    thread. Values are what ``messages.encode`` can tell: plain data, frozen dataclasses and errors of this package.

    Args:
        rank: of this process.
        world_size: how many there are.
        store: how they talk; None for a single process.
        timeout: seconds that a rank waits for another at the start and at a save.
        nonce: secret of this conversation, the same on all ranks and never used before: see ``process_group``.
        apart: how many steps ranks are apart at most: one with a collective (DDP's all-reduce) keeps them within one.
    """

    def __init__(
        self,
        rank: int = 0,
        world_size: int = 1,
        store: KeyValueStore | None = None,
        timeout: float = 600.0,
        nonce: str = "0",
        apart: int = 1,
    ):
        self.rank, self.world_size = rank, world_size
        self.timeout, self.apart = timeout, apart
        self._messages = MessageStore(store, nonce) if store is not None else None
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
        ranks whatever VaultLayerError ``function`` raises; where it raises anything else, that on rank 0 and RanksError
        on the others.
        """
        if self._messages is None:
            return function([value])
        self._count += tag is None
        bound = self.timeout if timeout is None else timeout
        name = str(tag or self._count)
        with self.leaving_where_interrupted():
            try:
                if self.rank != 0:
                    self._messages.put(f"{name}/{self.rank}", value)
                    if not self._wait(self._messages, [f"{name}/all"], bound + _GRACE_SECONDS, on_wait):
                        raise RanksError(f"no word from rank 0 within {bound + _GRACE_SECONDS:.0f} s")
                    result, failure = self._messages.get(f"{name}/all")
                else:
                    result, failure = self._lead_round(self._messages, name, value, function, bound, on_wait)
            except (RuntimeError, OSError) as error:
                what = f"rank {self.rank} can't reach the others any more: {first_line(error)}"
                raise RanksError(what) from error
        if failure is not None:
            raise failure
        return cast(T, result)

    def _lead_round(
        self,
        messages: MessageStore,
        name: str,
        value: Any,
        function: Callable[[list[Any]], T],
        bound: float,
        on_wait: Callable[[], None] | None,
    ) -> tuple[T | None, Exception | None]:
        """Collect the values of a round on rank 0, decide, and tell the others; return the result or the failure."""
        names = [f"{name}/{rank}" for rank in range(1, self.world_size)]
        missing: list[int] = []
        if not self._wait(messages, names, bound, on_wait):
            missing = [rank for rank, own in enumerate(names, 1) if not messages.there([own])]

        def decided() -> T:
            if missing:
                raise RanksError(f"no word from rank {', '.join(map(str, missing))} within {bound:.0f} s")
            return function([value, *messages.get_all(names)])

        result, failure = _outcome(decided)
        for own in names:
            messages.delete(own)
        try:
            messages.put(f"{name}/all", (result, portable(failure)))
        except TypeError as error:  # a result that can't be told is a failure for all, not a wait
            result, failure = None, error
            messages.put(f"{name}/all", (None, portable(failure)))
        self._published.append(f"{name}/all")
        if len(self._published) > _KEPT_ROUNDS:
            messages.delete(self._published.popleft())
        return result, failure

    def _wait(
        self, messages: MessageStore, names: list[str], bound: float, on_wait: Callable[[], None] | None
    ) -> bool:
        """Return whether the messages came in time; with signs of life. Raises RanksError where a rank has left."""
        begin = looked = shown = time.monotonic()
        while not messages.there(names):
            now = time.monotonic()
            if now - begin >= bound:
                return False
            if now - looked >= _LOOK_SECONDS:
                looked = now
                if (gone := self.get_status(_LEFT)) and not messages.there(names):
                    raise RanksError(f"{gone} has ended its training")
            if on_wait is not None and now - shown >= _SIGN_OF_LIFE_SECONDS:
                shown = now
                on_wait()
            pause = min(max(_PAUSE_SHARE * (now - begin), _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            time.sleep(min(pause, begin + bound - now))
        return True

    @contextmanager
    def leaving_where_interrupted(self) -> Iterator[None]:
        """Tell the others, who would wait in vain, where Ctrl-C or an exit takes this rank out of a round."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self.leave()
            raise

    @contextmanager
    def leaving_where_failed(self) -> Iterator[None]:
        """Tell the others of an error that isn't ours: they can't know of it. Ours are raised on all ranks alike."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, VaultLayerError):
                self.leave()
            raise

    def forget(self) -> None:
        """In a forked child: talk to nobody. The parent is the rank, and its connection is no other process's."""
        self._messages = None

    def leave(self) -> None:
        """Say that this rank takes no further part, so that nobody waits for it; best effort."""
        self.set_status(_LEFT, self._who)

    @property
    def _who(self) -> str:
        return f"rank {self.rank} on {platform.node()}"

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

    def set_status(self, topic: str, text: str) -> None:
        """Leave a text that others can look at meanwhile; it replaces the last one. Best effort. On any thread."""
        if self._messages is not None:
            with suppress(RuntimeError, OSError):
                self._messages.put(f"status/{topic}", text)

    def get_status(self, topic: str) -> str:
        """Return the text that a rank has left last; empty where there is none. On any thread."""
        name = f"status/{topic}"
        with suppress(RuntimeError, OSError, RanksError):
            if self._messages is not None and self._messages.there([name]):
                return str(self._messages.get(name))
        return ""

    def broadcast(self, value: Any, *, timeout: float | None = None) -> Any:
        """Return what rank 0 gave; the others' value is ignored. Raises RanksError."""
        return self.decide(value if self.rank == 0 else None, lambda found: found[0], timeout=timeout)

    def on_rank_zero(self, function: Callable[[], T], *, within: float = 0.0) -> T:
        """Call ``function`` on rank 0 alone and return its result on all; what it raises is raised on all.

        ``within``: seconds that it may take, on top of what ranks wait for each other anyway.
        """
        patience = self.timeout + (within if self.rank != 0 else 0.0)
        with self.leaving_where_interrupted():
            result, failure = _outcome(function) if self.rank == 0 else (None, None)

        def outcome(_: list[Any]) -> T:
            if failure is not None:
                raise failure
            return cast(T, result)

        return self.decide(None, outcome, timeout=patience)

    def on_every_rank(self, function: Callable[[], object], *, timeout: float | None = None) -> None:
        """Call ``function`` on every rank; where it fails on one, that failure is raised on all.

        An OSError becomes a ResumeError that names the rank and its host, and any other error that isn't ours a
        RanksError on the other ranks.
        """
        with self.leaving_where_interrupted():
            _, failure = _outcome(function)
        failures = self.gather(self.named(failure) if failure is not None else None, timeout=timeout)
        if failure is not None and not isinstance(failure, VaultLayerError | OSError):
            raise failure
        for found in failures:
            if found is not None:
                raise found from failure

    def named(self, error: Exception) -> VaultLayerError:
        """Return an error as all ranks may raise it: one of ours, with the rank and host on which it happened."""
        where = f"{self._who}: " if self.world_size > 1 else ""
        if isinstance(error, VaultLayerError):
            return error if isinstance(error, StoreError) or not where else type(error)(f"{where}{error}")
        if isinstance(error, OSError):
            return ResumeError(f"{where}{error}")
        return RanksError(f"{where}{type(error).__name__}: {first_line(error)}")

    @property
    def lag(self) -> int:
        """Steps between a request and the step at whose end all ranks act on it: all see it one ahead of that."""
        return self.apart + 1

    def request(self, step: int, wanted: str | None, topic: str = "stop") -> str | None:
        """Ask at the end of ``step`` for something that all ranks are to do, such as to stop; None: ask for nothing.

        Returns what was asked for, ``lag`` steps later and at the end of the same step on every rank; None until then.
        Of several requests under one ``topic`` the first wins. Costs one small request to the store a step. Where the
        store can't be reached nothing is agreed on.
        """
        if self._messages is None:
            return wanted
        count = self._requests.get(topic, 0)
        name = f"request/{topic}/{count}"
        try:
            if wanted is not None:
                self._messages.put_first(name, (step + self.lag, wanted))
            if not self._messages.there([name]):
                return None
            target, agreed = self._messages.get(name)
        except (RuntimeError, OSError, RanksError):
            return None
        if step < target:
            return None
        self._requests[topic] = count + 1
        return cast(str, agreed)


def _outcome(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return what ``function`` returns or raises."""
    try:
        return function(), None
    except Exception as error:
        return None, error
