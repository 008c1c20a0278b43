"""The words between ranks: over a real TCP store, each rank a thread with a connection of its own."""

from __future__ import annotations

import pickle
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from vaultlayer_hf.errors import RanksError, ResumeError, SettingsError, WrongModelError
from vaultlayer_hf.session.place import find_topology
from vaultlayer_hf.session.process_group import current_ranks
from vaultlayer_hf.session.ranks import Ranks


@contextmanager
def ranks_of(
    world: int, timeout: float = 5.0, nonce: str = "0", within: Callable[[Any], Any] = lambda store: store
) -> Iterator[list[Ranks]]:
    """Ranks that talk through a TCP store on a random port."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    clients = [
        TCPStore("127.0.0.1", server.port, is_master=False, timeout=timedelta(seconds=20))
        for _ in range(world)
    ]
    yield [Ranks(rank, world, within(clients[rank]), timeout, nonce) for rank in range(world)]


class Spoiled:
    """A store in which something else lies under keys with a given end than what was said."""

    def __init__(self, store: Any, ending: str, data: bytes) -> None:
        self._store, self._ending, self._data = store, ending, data

    def set(self, key: str, value: bytes) -> None:
        self._store.set(key, self._data if key.endswith(self._ending) else value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def on_all(ranks: list[Ranks], function: Callable[[Ranks], Any]) -> list[Any]:
    """Call a function for each rank at once; return what each returned or raised."""

    def call(one: Ranks) -> Any:
        try:
            return function(one)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(call, ranks))


def test_rank_0_decides_for_all() -> None:
    """All ranks get what rank 0 makes of everybody's words."""
    with ranks_of(4) as ranks:
        assert on_all(ranks, lambda one: one.decide(one.rank * 10, sum)) == [60] * 4
        assert on_all(ranks, lambda one: one.broadcast(one.rank + 5)) == [5] * 4


def test_an_error_of_rank_0_is_raised_on_all() -> None:
    """What rank 0 raises is the same typed error everywhere; a mistake that isn't ours is told in words."""

    def wrong() -> None:
        raise WrongModelError("another model")

    def broken() -> None:
        raise KeyError("x")

    with ranks_of(3) as ranks:
        found = on_all(ranks, lambda one: one.on_rank_zero(wrong))
        assert [(type(error), str(error)) for error in found] == [(WrongModelError, "another model")] * 3
        found = on_all(ranks, lambda one: one.on_rank_zero(broken))
        assert [type(error) for error in found] == [KeyError, RanksError, RanksError]


def test_an_error_of_any_rank_is_raised_on_all() -> None:
    """A full disk under rank 2 is the same ResumeError on all ranks, and names that rank."""

    def write(one: Ranks) -> None:
        if one.rank == 2:
            raise OSError(28, "No space left on device")

    with ranks_of(3) as ranks:
        found = on_all(ranks, lambda one: one.on_every_rank(lambda: write(one)))
        assert {type(error) for error in found} == {ResumeError}
        assert len({str(error) for error in found}) == 1
        assert str(found[0]).startswith("rank 2 on ")
        assert "No space left" in str(found[0])


def test_a_rank_that_stays_away_is_named_on_all() -> None:
    """Without a word from rank 1 the others get RanksError with its number, within the bound."""
    with ranks_of(3, timeout=0.5) as ranks:
        begin = time.monotonic()
        found = on_all([ranks[0], ranks[2]], lambda one: one.gather(None))
        assert time.monotonic() - begin < 5
        assert [str(error) for error in found] == ["no word from rank 1 within 0 s"] * 2


def test_a_wait_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Waits of several looks leave the terminal alone: those of torch print C++ warnings that nobody can stop."""
    with ranks_of(2, timeout=0.6) as ranks:
        found = on_all([ranks[0]], lambda one: one.gather(None))
        assert isinstance(found[0], RanksError)
        found = on_all([ranks[1]], lambda one: one.gather(None))
        assert isinstance(found[0], RanksError)
    assert capfd.readouterr() == ("", "")


def test_nobody_waits_for_a_rank_that_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose training has failed says so: the others, in a round or before it, get RanksError that names it."""
    monkeypatch.setattr("vaultlayer_hf.session.ranks._LOOK_SECONDS", 0.1)

    def take_part(one: Ranks) -> Any:
        if one.rank == 1:
            time.sleep(0.3)
            return one.leave()
        return one.gather(None)

    with ranks_of(3, timeout=3600) as ranks:
        for _ in range(2):
            found = on_all(ranks, take_part)
            words = f"rank 1 on {platform.node()} has ended its training"
            assert [str(found[0]), found[1], str(found[2])] == [words, None, words]


def test_nobody_waits_for_a_rank_that_failed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a script's own object ahead of a round ends the others' wait; one of ours is raised on all anyway."""
    monkeypatch.setattr("vaultlayer_hf.session.ranks._LOOK_SECONDS", 0.1)

    def take_part(one: Ranks) -> Any:
        with one.leaving_where_failed():
            if one.rank == 1:
                time.sleep(0.3)
                raise ZeroDivisionError
            return one.gather(None)

    with ranks_of(2, timeout=3600) as ranks:
        found = on_all(ranks, take_part)
        assert str(found[0]) == f"rank 1 on {platform.node()} has ended its training"
        assert isinstance(found[1], ZeroDivisionError)


def test_who_waits_long_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life while another rank is busy, with how far it is; the round itself is none the worse."""
    monkeypatch.setattr("vaultlayer_hf.session.ranks._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("vaultlayer_hf.session.ranks._SIGN_OF_LIFE_SECONDS", 0.1)
    seen: list[str] = []

    def take_part(one: Ranks) -> list[int]:
        if one.rank == 1:
            one.set_status("restore/1", "3 MB of 9 MB")
            time.sleep(0.5)
        return one.gather(one.rank, on_wait=lambda: seen.append(f"{one.rank} {one.get_status('restore/1')}"))

    with ranks_of(3) as ranks:
        assert on_all(ranks, take_part) == [[0, 1, 2]] * 3
    assert {"0 3 MB of 9 MB", "2 3 MB of 9 MB"} <= set(seen)


def test_a_late_rank_is_back_at_the_next_round() -> None:
    """A rank that comes late learns that it was left out, and the next round with a tag is whole again."""
    with ranks_of(2, timeout=0.3) as ranks:
        assert isinstance(on_all(ranks[:1], lambda one: one.gather(1, tag="save/1"))[0], RanksError)
        assert isinstance(on_all(ranks[1:], lambda one: one.gather(1, tag="save/1"))[0], RanksError)
        assert on_all(ranks, lambda one: one.gather(one.rank, tag="save/2")) == [[0, 1]] * 2


def test_a_second_conversation_hears_nothing_of_the_first() -> None:
    """Two trainers in one process group: the words of the first aren't taken for those of the second."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    stores = [TCPStore("127.0.0.1", server.port, is_master=False) for _ in range(2)]
    for nonce in ("0", "1"):
        ranks = [Ranks(rank, 2, stores[rank], 5.0, nonce) for rank in range(2)]
        word = [f"{nonce}{rank}" for rank in range(2)]
        assert on_all(ranks, lambda one, word=word: one.gather(word[one.rank], tag="save/1")) == [word] * 2  # type: ignore[misc]


def test_a_restart_on_the_same_store_learns_nothing_of_the_dead_attempt() -> None:
    """torchrun keeps its store over a restart: neither the old claim nor that a rank has left counts in the new one."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def attempt(nonce: str) -> list[Ranks]:
        return [
            Ranks(rank, 2, TCPStore("127.0.0.1", server.port, is_master=False), 20.0, nonce)
            for rank in range(2)
        ]

    def first(one: Ranks) -> Any:
        got = one.broadcast("token 7")
        one.leave()
        return got

    def second(one: Ranks) -> Any:
        time.sleep(0.5 if one.rank == 0 else 0)  # the others look before rank 0 has said anything
        return one.broadcast("token 12"), one.get_status("left"), one.request(9, None)

    assert on_all(attempt("of the first"), first) == ["token 7"] * 2
    assert on_all(attempt("of the second"), second) == [("token 12", "", None)] * 2


def test_a_forked_child_says_nothing_for_its_rank() -> None:
    """A child that leaves what its parent is in the midst of doesn't tell the others that the rank has gone."""
    stores: list[Any] = []

    def seen(store: Any) -> Any:
        stores.append(store)
        return store

    with ranks_of(2, within=seen) as ranks:
        in_child = Ranks(0, 2, stores[0])  # the same connection
        in_child.forget()
        in_child.leave()
        assert in_child.request(3, "stop") == "stop"
        assert [one.get_status("left") for one in ranks] == ["", ""]
        assert on_all(ranks, lambda one: one.broadcast(one.rank)) == [0, 0]


@pytest.mark.parametrize("garbage", [b"", b"x" * 200, pickle.dumps(print)], ids=["none", "noise", "pickle"])
@pytest.mark.parametrize("under", ["1", "all"])
def test_what_strangers_leave_in_the_store_is_refused(garbage: bytes, under: str) -> None:
    """Whatever lies under the key of a round, as who reaches the port can put there, is RanksError on who reads it."""
    with ranks_of(2, timeout=1.0, within=lambda store: Spoiled(store, f"/{under}", garbage)) as ranks:
        found = on_all(ranks, lambda one: one.gather(one.rank))
    reads = [0, 1] if under == "1" else [1]  # what rank 0 couldn't read it says to all
    assert [isinstance(found[rank], RanksError) for rank in reads] == [True] * len(reads)
    assert all("no message of this run" in str(found[rank]) for rank in reads)


def test_a_long_wait_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """A rank that waits three seconds for another writes nothing: the store's own time-outs warn, twice each."""
    with ranks_of(2, timeout=20) as ranks:
        capfd.readouterr()

        def take_part(one: Ranks) -> list[int]:
            time.sleep(3.0 if one.rank == 1 else 0)
            return one.gather(one.rank)

        assert on_all(ranks, take_part) == [[0, 1]] * 2
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("where", ["decide", "on_rank_zero", "on_every_rank"])
def test_who_is_interrupted_in_a_round_tells_the_others(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C on rank 0, in whatever all take part in: the others learn that it has left, and don't wait an hour."""
    monkeypatch.setattr("vaultlayer_hf.session.ranks._LOOK_SECONDS", 0.1)

    def interrupted() -> None:
        raise KeyboardInterrupt

    def take_part(one: Ranks) -> Any:
        calls: dict[str, Callable[[], Any]] = {
            "decide": lambda: one.decide(1, lambda found: interrupted()),
            "on_rank_zero": lambda: one.on_rank_zero(interrupted),
            "on_every_rank": lambda: one.on_every_rank(interrupted if one.rank == 0 else lambda: None),
        }
        try:
            return calls[where]()
        except KeyboardInterrupt:
            return "interrupted"

    with ranks_of(3, timeout=3600) as ranks:
        found = on_all(ranks, take_part)
    assert found[0] == "interrupted"
    assert [str(error) for error in found[1:]] == [f"rank 0 on {platform.node()} has ended its training"] * 2


def test_a_mistake_on_any_rank_reaches_all() -> None:
    """An error that isn't ours is raised as it is where it happened, and as RanksError that names it elsewhere."""

    def mistaken(one: Ranks) -> None:
        if one.rank == 2:
            raise KeyError("x")

    with ranks_of(3, timeout=60) as ranks:
        found = on_all(ranks, lambda one: one.on_every_rank(lambda: mistaken(one)))
        assert [type(error) for error in found] == [RanksError, RanksError, KeyError]
        assert str(found[0]) == f"rank 2 on {platform.node()}: KeyError: 'x'"
        found = on_all(ranks, lambda one: one.decide(1, lambda said: object()))
        assert [type(error) for error in found] == [TypeError, RanksError, RanksError]


def test_what_one_rank_wants_happens_at_the_same_step_on_all() -> None:
    """Whichever rank asks first, all get its word at the end of one and the same step, however they are scheduled."""
    world, steps = 3, 40
    with ranks_of(world) as ranks:
        step_done = [threading.Barrier(world) for _ in range(steps)]  # the gradients: nobody is a step ahead

        def train(one: Ranks) -> tuple[int, str] | None:
            for step in range(steps):
                step_done[step].wait(20)
                time.sleep(0.002 * ((one.rank * 7 + step) % 3))
                word = one.request(step, f"rank {one.rank} is fenced" if step >= 10 - one.rank else None)
                if word is not None:
                    return step, word
            return None

        # Ranks that have stopped leave the barrier, so the others would break if they went on alone.
        found = on_all(ranks, train)
        assert found == [(10, "rank 2 is fenced")] * world


def test_ranks_that_are_several_steps_apart() -> None:
    """Where only each fifth step keeps ranks together, a slow one's word is acted on at one step, too."""
    world, steps, update = 2, 30, 5
    with ranks_of(world) as ranks:
        update_done = [threading.Barrier(world) for _ in range(steps)]

        def train(one: Ranks) -> tuple[int, str] | None:
            one.apart = update
            for step in range(steps):
                if step % update == update - 1:
                    update_done[step].wait(20)
                elif one.rank:
                    time.sleep(0.02)
                word = one.request(step, "stop" if one.rank and step == 10 else None)
                if word is not None:
                    return step, word
            return None

        assert on_all(ranks, train) == [(16, "stop")] * world


def test_nodes_are_found_by_what_they_see(tmp_path: Path) -> None:
    """Ranks 0 and 2 share one folder, 1 and 3 another: two nodes, led by 0 and 1; no probe is left."""
    with ranks_of(4) as ranks:
        places = on_all(ranks, lambda one: find_topology(one, tmp_path / str(one.rank % 2)))
    assert [place.nodes for place in places] == [((0, 2), (1, 3))] * 4
    assert [place.leads_node for place in places] == [True, True, False, False]
    assert [place.node for place in places] == [0, 1, 0, 1]
    assert not list(tmp_path.glob("*/probe-*"))


def test_a_disk_that_cant_be_written_is_said_on_all(tmp_path: Path) -> None:
    """A node whose output_dir can't be made stops the start on all ranks at once, with the rank and the reason."""
    (tmp_path / "file").touch()
    with ranks_of(2) as ranks:
        folders = [tmp_path / "good", tmp_path / "file" / "below"]
        found = on_all(ranks, lambda one: find_topology(one, folders[one.rank]))
    assert [type(error) for error in found] == [ResumeError] * 2
    assert str(found[0]).startswith("rank 1 on ")


def test_processes_that_nothing_connects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by torchrun and not yet a process group: an error now, not two runs that fence each other."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="2 processes"):
        current_ranks()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert current_ranks().world_size == 1
