"""The watch: what it sees of a metadata server, what it asks of whom, and what it leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers import free_ports
from tests.session.stop.metadata import MetadataServer
from vaultlayer_hf.base.events import Event, Events
from vaultlayer_hf.session.stop.clouds import Aws
from vaultlayer_hf.session.stop.notice import Action
from vaultlayer_hf.session.stop.watch import NoticeWatch


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    """A running server to which the variables lead, asked often."""
    monkeypatch.setattr(Aws, "interval", 0.02)
    with MetadataServer() as made:
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        yield made


def heard(events: Events) -> list[Event]:
    found: list[Event] = []
    events.listen(found.append)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def action(watch: NoticeWatch, saved: float = 0.0) -> Action | None:
    found = watch.pending(time.time(), 0.0, saved)
    return found[0] if found is not None else None


def test_a_notice_is_seen_once(server: MetadataServer) -> None:
    """A notice that stands is said once, asks for a save until one was asked for, and a stop outranks it."""
    events = Events()
    said = heard(events)
    watch = NoticeWatch((), 30.0, "aws", events)
    watch.open()
    assert action(watch) is None
    server.rebalance = {"noticeTime": "2026-01-01T00:00:00Z"}
    wait_for(lambda: action(watch) == "save")
    pair = watch.pending(time.time(), 0.0, 0.0)
    assert pair is not None
    watch.done(pair[1])
    asked = server.requests.total()
    wait_for(lambda: server.requests.total() > asked + 6)
    assert action(watch) is None
    server.action = {"action": "stop", "time": "2026-01-01T00:00:00Z"}
    wait_for(lambda: action(watch) == "stop")
    wait_for(lambda: len(said) >= 2)  # it is said behind that
    watch.close()
    assert [event.kind for event in said] == ["preempt", "preempt"]


def test_closed_it_asks_nobody(server: MetadataServer) -> None:
    """Behind the training no request is made, and no thread is left."""
    watch = NoticeWatch((), 30.0, "aws", Events())
    before = set(threading.enumerate())  # a training that a test has broken off may have left one
    watch.open()
    wait_for(lambda: server.requests.total() > 3)
    watch.close()
    wait_for(
        lambda: not [one for one in set(threading.enumerate()) - before if one.name == "vaultlayer-watch"]
    )


def test_a_server_that_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, server: MetadataServer
) -> None:
    """Three tries in vain end the looking, with one line that says why and what may help."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    events = Events()
    said = heard(events)
    watch = NoticeWatch((), 30.0, "aws", events)
    watch.open()
    wait_for(lambda: bool(said))
    watch.close()
    assert "hop limit" in said[0].message


def test_a_server_that_fails_meanwhile_is_asked_on(
    monkeypatch: pytest.MonkeyPatch, server: MetadataServer
) -> None:
    """One that has answered before is asked on through whatever trouble, in silence."""
    events = Events()
    said = heard(events)
    watch = NoticeWatch((), 30.0, "aws", events)
    watch.open()
    wait_for(lambda: server.requests.total() > 3)
    plain, broken = server.find, [True]
    monkeypatch.setattr(server, "find", lambda *given: (500, "") if broken[0] else plain(*given))
    asked = server.requests.total()
    wait_for(lambda: server.requests.total() > asked + 10)
    broken[0] = False
    server.action = {"action": "stop", "time": "2026-01-01T00:00:00Z"}
    wait_for(lambda: action(watch) == "stop")
    wait_for(lambda: bool(said))  # it is said behind that
    watch.close()
    assert [event.kind for event in said] == ["preempt"]


def test_one_rank_of_a_host_asks(monkeypatch: pytest.MonkeyPatch, server: MetadataServer) -> None:
    """Only local rank 0 asks the metadata server of its host."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    watch = NoticeWatch((), 30.0, "aws", Events())
    watch.open()
    time.sleep(0.1)
    watch.close()
    assert server.requests.total() == 0


def test_outside_the_clouds_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, server: MetadataServer) -> None:
    """By default a machine whose firmware names no cloud sends nothing to any metadata address."""
    monkeypatch.setattr("vaultlayer_hf.session.stop.clouds.detect", lambda: None)
    watch = NoticeWatch((), 30.0, "auto", Events())
    watch.open()
    time.sleep(0.1)
    watch.close()
    assert server.requests.total() == 0
