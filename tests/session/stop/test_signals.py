"""Traps for signals in this process: real signals, taken note of, chained, and put back."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import ROOT
from vaultlayer_hf.session.option_values import parse_signals
from vaultlayer_hf.session.stop.signals import Traps

USED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in USED}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a training of another test may have broken off
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Noted:
    """Traps for all signals that are used here, and what they note."""

    def __init__(self, *names: str) -> None:
        self.names: list[str] = []
        self.hurried = 0
        self.traps = Traps(names or [number.name for number in USED], self.names.append, self._hurry)

    def _hurry(self) -> None:
        self.hurried += 1


def send(number: signal.Signals) -> None:
    signal.raise_signal(number)  # to this very thread: another one would take note a moment later


def test_signals_are_noted_and_nothing_else() -> None:
    """TERM, USR1 and USR2, each of which would end a process, and INT are taken note of; the process lives on."""
    noted = Noted()
    assert noted.traps.set()
    for number in USED:
        send(number)
    assert noted.names == [number.name for number in USED]


def test_only_those_that_are_asked_for() -> None:
    """A signal that isn't in the settings keeps its handler."""
    before = signal.getsignal(signal.SIGUSR1)
    Noted("SIGTERM").traps.set()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_handlers_of_the_script_are_called_and_come_back() -> None:
    """Its handler is called with each signal, and is in place again behind the training."""
    own: list[Any] = []
    signal.signal(signal.SIGTERM, lambda number, frame: own.append(number))
    mine = signal.getsignal(signal.SIGTERM)
    noted = Noted()
    noted.traps.set()
    send(signal.SIGTERM)
    assert (noted.names, own) == (["SIGTERM"], [signal.SIGTERM])
    noted.traps.release()
    assert signal.getsignal(signal.SIGTERM) is mine
    send(signal.SIGTERM)
    assert (noted.names, len(own)) == (["SIGTERM"], 2)


def test_a_handler_that_was_set_meanwhile_stays() -> None:
    """What the script puts in place during training isn't taken away by its end."""
    noted = Noted()
    noted.traps.set()
    newer = lambda number, frame: None  # noqa: E731 - compared by identity, and two lines shorter
    signal.signal(signal.SIGTERM, newer)
    noted.traps.release()
    assert signal.getsignal(signal.SIGTERM) is newer


def _trained_with_a_handler_on_top(own: list[str]) -> tuple[Noted, Any]:
    """Return what a training has noted in which a script has set a handler that hands on, and the trap below it."""
    signal.signal(signal.SIGTERM, lambda number, frame: own.append("first"))
    noted = Noted()

    def training() -> Any:
        noted.traps.set(training.__code__)
        trap: Any = signal.getsignal(signal.SIGTERM)

        def newer(number: int, frame: Any) -> None:
            own.append("newer")
            trap(number, frame)

        signal.signal(signal.SIGTERM, newer)
        send(signal.SIGTERM)
        noted.traps.release()
        return trap

    return noted, training()


def test_a_handler_that_was_set_meanwhile_may_hand_on() -> None:
    """It hands on to the trap that it has replaced, also behind the training: to the one before that, then."""
    own: list[str] = []
    noted, _ = _trained_with_a_handler_on_top(own)
    assert (noted.names, own) == (["SIGTERM"], ["newer", "first"])
    send(signal.SIGTERM)
    assert (noted.names, own) == (["SIGTERM"], ["newer", "first"] * 2)


def test_a_trap_that_the_script_puts_back_behind_the_training() -> None:
    """A script that undoes what it has set, behind the training: the trap gives way, to signals and to the next one."""
    own: list[str] = []
    noted, trap = _trained_with_a_handler_on_top(own)
    signal.signal(signal.SIGTERM, trap)
    send(signal.SIGTERM)
    assert (noted.names, own[2:]) == (["SIGTERM"], ["first"])
    signal.signal(signal.SIGTERM, trap)
    again = Noted("SIGTERM")
    again.traps.set()
    send(signal.SIGTERM)
    again.traps.release()
    assert (noted.names, again.names, own[2:]) == (["SIGTERM"], ["SIGTERM"], ["first"] * 2)


def test_traps_that_are_set_again_where_the_script_has_put_one_back() -> None:
    """The next training of the same traps notes signals, and puts back what was there before the first."""
    own: list[str] = []
    noted, trap = _trained_with_a_handler_on_top(own)
    signal.signal(signal.SIGTERM, trap)
    noted.traps.set()
    send(signal.SIGTERM)
    noted.traps.release()
    send(signal.SIGTERM)
    assert (noted.names, own[2:]) == (["SIGTERM"] * 2, ["first"] * 2)


def test_ignored_signals_stay_ignored() -> None:
    """A signal that is ignored on purpose (nohup, a shell's background job) is left so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    noted = Noted()
    noted.traps.set()
    send(signal.SIGINT)
    assert noted.names == []


TWICE = """
import signal
from vaultlayer_hf.session.stop.signals import Traps

signal.signal(signal.SIGINT, signal.default_int_handler)
seen = []
Traps(["SIGINT"], seen.append, lambda: seen.append("hurried")).set()
signal.raise_signal(signal.SIGINT)
try:
    signal.raise_signal(signal.SIGINT)
    for _ in range(10**7):
        pass
except KeyboardInterrupt:
    seen.append("ended")
seen.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(seen)
"""
"""Interrupts itself twice. A process of its own: a KeyboardInterrupt a moment late would end the test runner."""


def test_a_second_interrupt_ends_at_once() -> None:
    """The second Ctrl-C raises KeyboardInterrupt there and then, and the handlers are gone."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout == "['SIGINT', 'hurried', 'ended', True]\n", done.stderr


def test_set_twice() -> None:
    """Set again, a trap doesn't take itself for the handler that was there before."""
    noted = Noted()
    noted.traps.set()
    noted.traps.set()
    send(signal.SIGUSR1)
    noted.traps.release()
    assert noted.names == ["SIGUSR1"]
    assert signal.getsignal(signal.SIGUSR1) is not noted.traps


def test_on_the_way_out_nothing_counts_any_more() -> None:
    """A launcher that ends the other ranks with SIGTERM doesn't spoil the exit code of one that is leaving."""
    noted = Noted()
    noted.traps.set()
    noted.traps.release(leaving=True)
    send(signal.SIGTERM)
    assert noted.names == []


def test_a_training_that_broke_off_leaves_no_trap() -> None:
    """Traps that nobody has taken away don't outlive what they were set in: the signal does what it did before."""
    own: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: own.append(number))
    noted = Noted()

    def training() -> None:
        noted.traps.set(training.__code__)
        send(signal.SIGTERM)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own, which has no text
        training()
    assert (noted.names, len(own)) == (["SIGTERM"], 1)
    send(signal.SIGTERM)
    assert (noted.names, len(own)) == (["SIGTERM"], 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_training_behind_one_that_broke_off() -> None:
    """A cell that is run again after an exception: its signal is noted once, by its own traps, and the script's
    handler is called once."""
    own: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: own.append(number))
    mine = signal.getsignal(signal.SIGTERM)
    broken, again = Noted("SIGTERM"), Noted("SIGTERM")

    def training(noted: Noted, error: Exception | None) -> None:
        noted.traps.set(training.__code__)
        if error:
            raise error
        send(signal.SIGTERM)
        noted.traps.release()

    with pytest.raises(ValueError) as seen:  # noqa: PT011 - the test's own, which has no text
        training(broken, ValueError())
    training(again, None)
    assert seen.value.__traceback__  # as in a notebook, which keeps the last one: its frames are still there
    assert (broken.names, again.names, len(own)) == ([], ["SIGTERM"], 1)
    assert signal.getsignal(signal.SIGTERM) is mine


def test_a_training_behind_one_in_another_that_broke_off() -> None:
    """Two trainings, one inside the other, died of one exception: neither's traps are left under the next one's."""
    mine = lambda number, frame: None  # noqa: E731 - compared by identity, and two lines shorter
    signal.signal(signal.SIGTERM, mine)
    outer, inner, again = Noted("SIGTERM"), Noted("SIGTERM"), Noted("SIGTERM")

    def training() -> None:
        inner.traps.set(training.__code__)
        raise ValueError

    def search() -> None:
        outer.traps.set(search.__code__)
        training()

    with pytest.raises(ValueError):  # noqa: PT011 - the test's own, which has no text
        search()
    again.traps.set()
    send(signal.SIGTERM)
    again.traps.release()
    assert (outer.names, inner.names, again.names) == ([], [], ["SIGTERM"])
    assert signal.getsignal(signal.SIGTERM) is mine


def test_names() -> None:
    """Names are taken with and without SIG, as Slurm writes them; what can't be caught is refused."""
    assert parse_signals("term, SIGUSR1,term") == ("SIGTERM", "SIGUSR1")
    for bad in ("KILL", "SIGSTOP", "HELLO"):
        with pytest.raises(ValueError, match="can be caught"):
            parse_signals(bad)
