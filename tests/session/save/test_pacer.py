"""The pacer: when saves are due, on one rank and on several, by steps, by the clock and by measurement."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import TCPStore

from vaultlayer_hf.base.events import Event, Events
from vaultlayer_hf.base.spans import Cadence, parse_cadence
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.save.pacing import Pacer
from vaultlayer_hf.vault.log.history import VaultHistory


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pacer(cadence: Cadence, clock: Clock, events: Events | None = None, **more: object) -> Pacer:
    return Pacer(cadence, Ranks(), events or Events(), clock=clock, **more)  # type: ignore[arg-type]


def drive(
    made: Pacer, clock: Clock, steps: int, *, seconds: float, stall: float = 0.0, first: int = 1
) -> list[int]:
    """Train steps of ``seconds`` with saves of ``stall`` seconds; return the steps that were saved."""
    saved = []
    for step in range(first, first + steps):
        clock.now += seconds
        made.mark()
        if made.due(step):
            clock.now += stall
            made.saved()
            saved.append(step)
    return saved


def test_none_never_saves() -> None:
    """Without save_every there are the training's own saves only."""
    clock = Clock()
    made = pacer(Cadence(), clock)
    made.begin()
    assert drive(made, clock, 50, seconds=1000.0) == []


def test_steps_are_counted_alike_after_a_resume() -> None:
    """A cadence in steps saves at multiples, wherever the run was resumed."""
    clock = Clock()
    made = pacer(parse_cadence("20 steps"), clock)
    made.begin()
    assert drive(made, clock, 50, seconds=1.0, first=13) == [20, 40, 60]


def test_seconds_count_from_the_last_save() -> None:
    """A cadence by the clock is kept from save to save, also from one that the training made by itself."""
    clock = Clock()
    made = pacer(parse_cadence("30s"), clock)
    made.begin()
    assert drive(made, clock, 9, seconds=10.0) == [3, 6, 9]
    clock.now += 20.0
    made.saved()
    assert drive(made, clock, 6, seconds=10.0, first=12) == [14, 17]


def test_auto_keeps_its_share_and_says_why_once() -> None:
    """It measures with its first save, makes up for it, keeps its share, and says so in three lines."""
    clock, events, heard = Clock(), Events(), list[Event]()
    events.listen(heard.append)
    made = pacer(Cadence("auto"), clock, events, history=lambda: VaultHistory(1, 60.0))
    made.begin()
    saved = drive(made, clock, 300, seconds=1.0, stall=2.0)
    assert saved[0] == 60
    assert saved[1:] == pytest.approx([198, 296], abs=5)  # the first one came early, and is made up for
    assert made.share < 0.0201
    assert [event.kind for event in heard] == ["cadence"] * 3
    assert "measures" in heard[0].message
    assert "may take 2% of the time" in heard[1].message
    assert "2 s and a failure in" in heard[2].message


def test_auto_saves_between_the_scripts_own_saves() -> None:
    """Of a run that dies often: halfway between two saves of the script's, which count as no spending of auto's."""
    clock = Clock()
    made = pacer(Cadence("auto"), clock, history=lambda: VaultHistory(400, 4 * 3600.0, stall=0.1))
    made.begin()
    saved = []
    for step in range(1, 401):
        clock.now += 0.2
        made.mark()
        own = step % 20 == 0  # each 4 s, 2.5 % of the time
        if made.due(step, saves=own):
            saved.append(step)
        if own or saved[-1:] == [step]:
            clock.now += 0.1
            made.saved()
    assert not [step for step in saved if step % 20 == 0]
    assert 15 <= len(saved) <= 20  # one between each two
    assert made.share > 0.04


def test_auto_leaves_alone_what_the_script_saves_often_enough() -> None:
    """Where the script saves a little less often than the optimum, and is late at times, auto adds nothing."""
    clock = Clock()
    made = pacer(Cadence("auto"), clock, history=lambda: VaultHistory(40, 4 * 3600.0, stall=0.01))
    made.begin()
    saved = []
    for step in range(1, 201):
        clock.now += 0.36 + (0.01 if step % 20 < 10 else 0.0)
        made.mark()
        if made.due(step, saves=step % 10 == 0) and step > 30:
            saved.append(step)
        if step % 10 == 0:
            clock.now += 0.01
            made.saved()
    assert saved == []


def test_auto_knows_what_saves_cost_before_its_first() -> None:
    """What an attempt before has noted in the log counts at once: no save is needed to measure."""
    clock, events, heard = Clock(), Events(), list[Event]()
    events.listen(heard.append)
    made = pacer(
        Cadence("auto"), clock, events, history=lambda: VaultHistory(0, 3600.0, stall=2.0, upload=400.0)
    )
    made.begin()
    assert drive(made, clock, 1000, seconds=1.0, stall=2.0)[0] > 400
    assert "measures" not in heard[0].message


def test_auto_says_so_when_it_changes_much() -> None:
    """Uploads that become slow move the interval, and the log says it again; a small change it keeps to itself."""
    clock, events, heard = Clock(), Events(), list[Event]()
    events.listen(heard.append)
    upload = [1.0]
    made = pacer(Cadence("auto"), clock, events, upload_seconds=lambda: upload[0])
    made.begin()
    drive(made, clock, 500, seconds=1.0, stall=0.01)
    count = len(heard)
    upload[0] = 2.0
    drive(made, clock, 100, seconds=1.0, stall=0.01, first=501)
    assert len(heard) == count
    upload[0] = 600.0
    drive(made, clock, 100, seconds=1.0, stall=0.01, first=601)
    assert len(heard) == count + 1
    assert "an upload takes 10 min" in heard[-1].message


def test_what_is_written_beside_the_training_is_on_the_way_to_a_commit() -> None:
    """A save that hardly stalls isn't made again before its files are written and uploaded."""
    clock = Clock()
    made = pacer(Cadence("auto"), clock, upload_seconds=lambda: 10.0)
    made.begin()
    assert drive(made, clock, 61, seconds=1.0, stall=0.01)[0] == 60
    made.waited(0.02)  # in front of the optimizer's step, for the copy
    made.mark()
    made.saved(again=True, beside=600.0)
    assert made.stall == pytest.approx(0.03)
    assert drive(made, clock, 1000, seconds=1.0, stall=0.01, first=62)[0] in range(668, 672)


def test_steps_of_a_cadence_are_said() -> None:
    """A fixed cadence is said once, at the begin."""
    clock, events, heard = Clock(), Events(), list[Event]()
    events.listen(heard.append)
    made = pacer(parse_cadence("5min"), clock, events)
    made.begin()
    drive(made, clock, 100, seconds=60.0)
    assert [event.message for event in heard] == ["a save every 5 min, as save_every says"]


@pytest.mark.parametrize("world", [2, 3])
def test_all_ranks_save_at_the_same_steps(world: int) -> None:
    """By the clock of rank 0 alone: ranks whose own clocks say otherwise save at the same steps."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    gradients = threading.Barrier(world)

    def train(rank: int) -> list[int]:
        clock = Clock()
        store = TCPStore("127.0.0.1", server.port, is_master=False)
        made = Pacer(parse_cadence("30s"), Ranks(rank, world, store, 5.0, "x"), Events(), clock=clock)
        made.begin()
        saved = []
        for step in range(1, 41):
            gradients.wait(20)
            clock.now += 10.0 if rank == 0 else 170.0 * rank
            if made.due(step):
                made.saved()
                saved.append(step)
        return saved

    with ThreadPoolExecutor(world) as pool:
        found = list(pool.map(train, range(world)))
    assert found == [found[0]] * world
    assert len(found[0]) >= 8
