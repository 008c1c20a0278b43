"""RetryingStore: patience around a store. Tries again with exponential back-off and full jitter.

Only what may help is repeated: StoreUnavailableError, and with ``retry_all`` also StoreDeniedError and
StoreFullError, because somebody may correct the credentials or free the disk while a training runs.

A create whose answer was lost may be repeated against its own success and then raises AlreadyExistsError.
That is passed on as it is: only the caller can tell, by the write id in the object, whether it has won.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vaultlayer_hf.errors import StoreDeniedError, StoreError, StoreFullError, StoreUnavailableError
from vaultlayer_hf.stores.base import ObjectInfo, Pace, Store, Take, WrappedStore

_T = TypeVar("_T")
_OWN = random.Random()  # a training draws from the common one: what we took there would change its numbers
_SLICE = 0.2  # seconds of a wait after which should_stop is asked again


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient to be.

    Attributes:
        base: the longest first wait in seconds; doubles with each attempt. The wait is drawn from 0 to it.
        longest: the longest wait in seconds.
        deadline: seconds from the first attempt after which no new one starts; None: for ever.
        retry_all: also try again when denied or full.
    """

    base: float = 0.5
    longest: float = 30.0
    deadline: float | None = 60.0
    retry_all: bool = False

    def retries(self, error: StoreError) -> bool:
        """Tell whether an error is worth another attempt."""
        kinds = (StoreUnavailableError, StoreDeniedError, StoreFullError)
        return error.transient or (self.retry_all and isinstance(error, kinds))

    def delay(self, attempt: int, draw: float) -> float:
        """Return seconds to wait after failed attempt ``attempt`` (from 1), for a ``draw`` in [0, 1)."""
        return draw * min(self.longest, self.base * 2.0 ** min(attempt - 1, 60))


class RetryingStore(WrappedStore):
    """A store that tries again.

    Args:
        inner: the store to use.
        policy: how often and how long.
        should_stop: called before each attempt and several times a second while waiting; what it raises ends
            the operation and comes out as it is.
        on_retry: called with the error, the number of the failed attempt (from 1) and the seconds to wait.
        clock, sleep, draw: for tests: seconds that never go back, a wait, a number in [0, 1).
    """

    def __init__(
        self,
        inner: Store,
        policy: RetryPolicy | None = None,
        *,
        should_stop: Callable[[], None] | None = None,
        on_retry: Callable[[StoreError, int, float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = _OWN.random,
    ) -> None:
        super().__init__(inner)
        self.policy = policy or RetryPolicy()
        self._should_stop = should_stop or (lambda: None)
        self._on_retry = on_retry or (lambda *_: None)
        self._clock, self._sleep, self._draw = clock, sleep, draw

    def read(self, key: str, *, limit: int) -> bytes:
        return self._try(partial(self.inner.read, key, limit=limit))

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        return self._try(partial(self.inner.read_range, key, start, length))

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        done = 0

        def keep(offset: int, piece: memoryview) -> None:
            nonlocal done
            take(offset, piece)
            done = offset + len(piece) - start

        while True:
            before = done
            try:
                self._try(lambda: self.inner.read_pieces(key, start + done, length - done, keep))
                return
            except StoreError as error:
                if done == before or not self.policy.retries(error):
                    raise  # else it got on: a slow line is no dead one, and patience begins anew

    def head(self, key: str) -> ObjectInfo:
        return self._try(partial(self.inner.head, key))

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        last = after
        listing: Iterator[ObjectInfo] | None = None

        def step() -> ObjectInfo | None:
            nonlocal listing
            if listing is None:
                listing = iter(self.inner.list(prefix, after=last))
            try:
                return next(listing, None)
            except StoreError:
                listing = None  # goes on behind the last key that came
                raise

        while (info := self._try(step)) is not None:
            last = info.key
            yield info

    def create(self, key: str, data: bytes) -> None:
        self._try(partial(self.inner.create, key, data))

    def write(self, key: str, data: bytes) -> None:
        self._try(partial(self.inner.write, key, data))

    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        return self._try(partial(self.inner.upload, key, source, size=size, pace=pace))

    def copy(self, source: str, target: str) -> ObjectInfo:
        return self._try(partial(self.inner.copy, source, target))

    def delete(self, keys: Iterable[str]) -> None:
        every = list(keys)
        self._try(lambda: self.inner.delete(every))

    def _try(self, function: Callable[[], _T]) -> _T:
        started, attempt = self._clock(), 0
        while True:
            self._should_stop()
            try:
                return function()
            except StoreError as error:
                attempt += 1
                delay = self.policy.delay(attempt, self._draw())
                deadline = self.policy.deadline
                late = deadline is not None and self._clock() + delay - started > deadline
                if late or not self.policy.retries(error):
                    raise
                self._on_retry(error, attempt, delay)
            self._wait(delay)

    def _wait(self, delay: float) -> None:
        end = self._clock() + delay
        while (left := end - self._clock()) > 0:
            self._should_stop()
            self._sleep(min(left, _SLICE))
