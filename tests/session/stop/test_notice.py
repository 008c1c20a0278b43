"""What is done about a notice, and when; and what still fits before its deadline. Pure."""

from __future__ import annotations

import pytest

from vaultlayer_hf.session.stop.notice import LEAD, MARGIN, Notice, RemainingWork, choose_last_save

NOW = 1_000_000.0


def test_a_near_end_stops_at_once() -> None:
    """Within two minutes of its end a run stops; without a deadline, too."""
    assert Notice("AWS", "x", NOW + LEAD).action(NOW) == "stop"
    assert Notice("SIGINT", "x", None).action(NOW) == "stop"


def test_a_far_end_saves_now_and_stops_later() -> None:
    """An end in a quarter of an hour: one save at once, training goes on, and it stops when the end is near."""
    notice = Notice("Azure", "x", NOW + 900, seen=NOW)
    assert notice.action(NOW + 1) == "save"
    assert notice.action(NOW + 20, saved=NOW + 10) is None
    assert notice.action(NOW + 780, saved=NOW + 10) == "stop"


def test_a_large_checkpoint_stops_earlier() -> None:
    """Where a save and its upload take long, training stops as early as they need, twice over."""
    assert Notice("Azure", "x", NOW + 900).action(NOW, needed=450) == "stop"


def test_a_recommendation_never_stops() -> None:
    """What only may happen asks for one save, unless there was one since."""
    notice = Notice("AWS", "x", None, stops=False, seen=NOW)
    assert notice.action(NOW) == "save"
    assert notice.action(NOW, saved=NOW + 1) is None


def test_a_notice_travels() -> None:
    """What one rank has seen the others read unchanged."""
    notice = Notice("AWS", 'it says "stop" at 10 %', NOW, code=130, seen=1.5)
    assert Notice.decode(notice.encode()) == notice


GB = 10**9


@pytest.mark.parametrize(
    ("nodes", "left", "save"),
    [
        ([RemainingWork(0, GB, 1e8, 1.0)], 15.3, True),  # 1 + 10 s, a fifth to spare, and the margin
        ([RemainingWork(0, GB, 1e8, 1.0)], 15.1, False),
        ([RemainingWork(5 * GB, GB, 1e8, 1.0)], 75.1, False),  # what is under way goes first
        ([RemainingWork(5 * GB, GB, 1e8, 1.0)], 75.3, True),
        # The slowest node counts.
        ([RemainingWork(0, GB, 1e8, 1.0), RemainingWork(0, 10 * GB, 1e8, 1.0)], 60.0, False),
        ([RemainingWork(0, GB, 1e8, 1.0), RemainingWork()], 60.0, True),  # a rank that uploads nothing
        ([RemainingWork(0, GB, 1e8, 1.0)], None, True),
        ([RemainingWork()], 5.0, True),  # nothing measured: tried
        ([RemainingWork(GB, None, 1e8)], 5.0, True),
        ([RemainingWork()], MARGIN, False),
        ([RemainingWork()], -3.0, False),
    ],
)
def test_what_fits(nodes: list[RemainingWork], left: float | None, save: bool) -> None:
    """A save is started only where it and all that is under way can be uploaded in time, on every node."""
    found = choose_last_save(nodes, left)
    assert found.save is save
    assert found.reason
