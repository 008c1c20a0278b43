"""Patience: what is tried again, for how long, and how it is stopped; with a clock of our own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.testing import Fault, FaultStore, Operation


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store(tmp_path / "vault")


def failing(count: int, error: StoreError | None = None) -> Callable[[Operation], Fault | None]:
    """A plan by which the first operations fail before they happen."""
    return lambda operation: Fault.refused(error) if operation.number <= count else None


def test_every_operation_is_tried_again(folder: Store, clock: Clock, tmp_path: Path) -> None:
    """Each operation comes through two failures, and its result is that of the attempt that worked."""
    local = tmp_path / "local"
    local.write_bytes(b"data")
    folder.write("x", b"12345")
    for call in (
        lambda store: store.read("x", limit=10) == b"12345",
        lambda store: store.read_range("x", 1, 2) == b"23",
        lambda store: store.head("x").size == 5,
        lambda store: [info.key for info in store.list("")] == ["x"],
        lambda store: store.create("c", b"1") is None,
        lambda store: store.write("w", b"1") is None,
        lambda store: store.upload("u", local, size=4).size == 4,
        lambda store: store.copy("x", "y").size == 5,
        lambda store: store.delete(iter(["c", "w", "u", "y"])) is None,
    ):
        faults = FaultStore(folder, failing(2))
        assert call(RetryingStore(faults, clock=clock, sleep=clock.sleep))
        assert len(faults.operations) >= 3
    assert [info.key for info in folder.list("")] == ["x"]


def test_waits_grow_and_are_drawn(folder: Store, clock: Clock) -> None:
    """The bound of a wait doubles up to the longest; the wait is drawn below it and reported with the error."""
    said: list[tuple[str, int, float]] = []
    draws = random.Random(5)
    store = RetryingStore(
        FaultStore(folder, failing(9)),
        RetryPolicy(base=1.0, longest=20.0, deadline=None),
        on_retry=lambda error, attempt, delay: said.append((type(error).__name__, attempt, delay)),
        clock=clock,
        sleep=clock.sleep,
        draw=draws.random,
    )
    store.write("x", b"x")
    again = random.Random(5)
    bounds = [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0, 20.0]
    expected = [("StoreUnavailableError", i, bound * again.random()) for i, bound in enumerate(bounds, 1)]
    assert said == expected
    assert clock.now == pytest.approx(100.0 + sum(delay for _, _, delay in expected))


def test_deadline(folder: Store, clock: Clock) -> None:
    """When the time is up the last error comes out, and no wait goes beyond it."""
    faults = FaultStore(folder, failing(1000))
    policy = RetryPolicy(base=1.0, longest=8.0, deadline=60.0)
    store = RetryingStore(faults, policy, clock=clock, sleep=clock.sleep, draw=lambda: 1.0)
    with pytest.raises(StoreUnavailableError):
        store.head("x")
    assert 52.0 < clock.now - 100.0 <= 60.0
    assert len(faults.operations) == 10  # at 0, 1, 3, 7, 15, 23, 31, 39, 47, 55


def test_for_ever(folder: Store, clock: Clock) -> None:
    """Without a deadline it goes on for days."""
    store = RetryingStore(
        FaultStore(folder, failing(5000)),
        RetryPolicy(deadline=None),
        clock=clock,
        sleep=clock.sleep,
        draw=lambda: 0.99,
    )
    store.write("x", b"x")
    assert clock.now > 86400


@pytest.mark.parametrize("kind", [StoreDeniedError, StoreFullError])
def test_retry_all(folder: Store, clock: Clock, kind: type[StoreError]) -> None:
    """Denied and full end at once by default, and with retry_all are waited for: somebody may put it right."""
    plan = failing(3, kind("write", "x", "injected"))
    for retry_all, attempts in ((False, 1), (True, 4)):
        faults = FaultStore(folder, plan)
        policy = RetryPolicy(retry_all=retry_all, deadline=None)
        store = RetryingStore(faults, policy, clock=clock, sleep=clock.sleep)
        if retry_all:
            store.write("x", b"x")
        else:
            with pytest.raises(kind):
                store.write("x", b"x")
        assert len(faults.operations) == attempts


def test_what_waiting_cannot_change(folder: Store, clock: Clock) -> None:
    """Absent, existing and impossible objects are told at once, with retry_all too."""
    folder.create("x", b"x")
    faults = FaultStore(folder)
    store = RetryingStore(faults, RetryPolicy(retry_all=True), clock=clock, sleep=clock.sleep)
    with pytest.raises(ObjectNotFoundError):
        store.head("absent")
    with pytest.raises(AlreadyExistsError):
        store.create("x", b"y")
    with pytest.raises(StoreError):
        store.read("x", limit=0)
    assert len(faults.operations) == 3
    assert clock.now == 100.0


def test_a_lost_answer_of_create(folder: Store, clock: Clock) -> None:
    """A create that landed and lost its answer comes out as AlreadyExistsError, with its own bytes in place."""
    store = RetryingStore(FaultStore(folder, {1: Fault.lost_answer()}), clock=clock, sleep=clock.sleep)
    with pytest.raises(AlreadyExistsError):
        store.create("log/1.json", b"mine")
    assert folder.read("log/1.json", limit=10) == b"mine"


def test_a_listing_goes_on(folder: Store, clock: Clock) -> None:
    """A listing that breaks in the middle goes on behind the last key, without gaps or repetitions."""
    keys = [f"log/{i:03d}" for i in range(50)]
    for key in keys:
        folder.write(key, b"x")

    class Breaking(FaultStore):
        breaks = 4

        def list(self, prefix: str, *, after: str = ""):  # type: ignore[no-untyped-def]
            for number, info in enumerate(super().list(prefix, after=after)):
                if number == 7 and self.breaks:
                    self.breaks -= 1
                    raise StoreUnavailableError("list", prefix, "injected")
                yield info

    store = RetryingStore(Breaking(folder), clock=clock, sleep=clock.sleep)
    assert [info.key for info in store.list("log/", after="log/001")] == keys[2:]


def test_pieces_go_on(folder: Store, clock: Clock) -> None:
    """A range in pieces goes on where it was cut, and each piece that came renews the patience."""
    data = bytes(range(256)) * 130_000
    folder.write("x", data)
    policy = RetryPolicy(deadline=10.0)
    came: list[tuple[int, int]] = []

    def cut(operation: Operation) -> Fault | None:
        clock.now += 8  # two attempts in a row are within the patience, all of them aren't
        return Fault.refused() if operation.number % 2 == 0 else None

    store = RetryingStore(
        FaultStore(folder, cut), policy, clock=clock, sleep=lambda _: None, draw=lambda: 0.0
    )
    store.read_pieces("x", 5, len(data) - 5, lambda offset, piece: came.append((offset, len(piece))))
    assert [offset for offset, _ in came] == list(range(5, len(data), 8 * 2**20))
    assert sum(length for _, length in came) == len(data) - 5
    dead = RetryingStore(
        FaultStore(folder, lambda _: Fault.refused()),
        policy,
        clock=clock,
        sleep=clock.sleep,
        draw=lambda: 0.5,
    )
    with pytest.raises(StoreUnavailableError):
        dead.read_pieces("x", 0, 5, lambda offset, piece: None)


def test_stop_before_and_while_waiting(folder: Store, clock: Clock) -> None:
    """What should_stop raises ends a wait within a second and comes out as it is; no attempt follows."""
    stop_at = [103.0]

    def should_stop() -> None:
        if clock.now >= stop_at[0]:
            raise KeyError("stopped")

    faults = FaultStore(folder, failing(1000))
    policy = RetryPolicy(base=60.0, longest=60.0, deadline=None)
    store = RetryingStore(
        faults, policy, should_stop=should_stop, clock=clock, sleep=clock.sleep, draw=lambda: 0.9
    )
    with pytest.raises(KeyError, match="stopped"):
        store.write("x", b"x")
    assert clock.now < 104.0
    assert len(faults.operations) == 1
    with pytest.raises(KeyError, match="stopped"):
        store.write("x", b"x")
    assert len(faults.operations) == 1


def test_cancelled_by_its_pace(folder: Store, clock: Clock, tmp_path: Path) -> None:
    """An upload that its pace cancels isn't tried again."""
    local = tmp_path / "local"
    local.write_bytes(b"data")
    faults = FaultStore(folder)

    def pace(_: int) -> None:
        raise KeyError("cancelled")

    with pytest.raises(KeyError):
        RetryingStore(faults, clock=clock, sleep=clock.sleep).upload("x", local, size=4, pace=pace)
    assert len(faults.operations) == 1


def test_supports_create_passes_through(folder: Store) -> None:
    """What the probe finds out is known to every wrapper and to the store itself."""
    store = RetryingStore(FaultStore(folder))
    assert store.supports_create
    store.supports_create = False
    assert not folder.supports_create
