"""The bandwidth cap and the composition of paces, with a clock of our own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.pace import BandwidthCap


class Clock:
    """Time that passes only where somebody sleeps; for several threads."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lock = threading.Lock()

    def __call__(self) -> float:
        with self.lock:
            return self.now

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds


@pytest.mark.parametrize("chunk", [1, 1000, 8 * 1024 * 1024])
def test_the_rate_holds(chunk: int) -> None:
    """Whatever the size of the chunks, all but the last have had their time before the last one starts."""
    clock = Clock()
    cap = BandwidthCap(1_000_000, clock=clock, sleep=clock.sleep)
    for _ in range(50):
        cap(chunk)
    assert clock.now == pytest.approx(49 * chunk / 1_000_000)


def test_no_burst_after_a_pause() -> None:
    """Time in which nothing is sent isn't saved up."""
    clock = Clock()
    cap = BandwidthCap(100, clock=clock, sleep=clock.sleep)
    cap(100)
    clock.now = 1000.0
    for _ in range(5):
        cap(100)
    assert clock.now == pytest.approx(1004.0)


def test_threads_share_the_cap() -> None:
    """Four threads together are held to one rate."""
    clock = Clock()
    cap = BandwidthCap(1000, clock=clock, sleep=clock.sleep)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [cap(100) for _ in range(25)], range(4)))
    assert clock.now >= 99 * 100 / 1000 - 1e-6


def test_a_wait_can_be_stopped() -> None:
    """What should_stop raises ends a long wait soon and comes out as it is."""
    clock = Clock()

    def should_stop() -> None:
        if clock.now > 2.0:
            raise KeyError("stopped")

    cap = BandwidthCap(1, should_stop=should_stop, clock=clock, sleep=clock.sleep)
    cap(1_000_000)
    with pytest.raises(KeyError, match="stopped"):
        cap(1)
    assert clock.now < 3.0


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_rates_that_make_no_sense(rate: float) -> None:
    """A cap that lets nothing through is refused."""
    with pytest.raises(ValueError, match="above 0"):
        BandwidthCap(rate)


def test_an_upload_is_held_to_it(tmp_path: Path) -> None:
    """A real upload asks the cap for each of its bytes."""
    clock = Clock()
    cap = BandwidthCap(1_000_000, clock=clock, sleep=clock.sleep)
    local = tmp_path / "local"
    local.write_bytes(bytes(20_000_000))
    store = open_store(tmp_path / "vault")
    store.upload("x", local, size=20_000_000, pace=cap)
    cap(0)
    assert clock.now == pytest.approx(20.0)
