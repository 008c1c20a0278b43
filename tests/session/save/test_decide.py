"""The cadence: what the settings ask for, and what `auto` makes of measurements. Pure."""

from __future__ import annotations

import math

import pytest

from vaultlayer_hf import SettingsError
from vaultlayer_hf.base.spans import Cadence, parse_cadence, parse_duration
from vaultlayer_hf.session.save.cadence import (
    FIRST,
    IO_SHARE,
    SaveCosts,
    between,
    choose_interval,
    daly,
    mean_time_between_failures,
)

HOUR = 3600.0


@pytest.mark.parametrize(
    ("text", "cadence"),
    [
        (None, Cadence()),
        ("none", Cadence()),
        ("auto", Cadence("auto")),
        ("5min", Cadence("seconds", 300.0)),
        ("30s", Cadence("seconds", 30.0)),
        ("1.5 Hours", Cadence("seconds", 5400.0)),
        ("200 steps", Cadence("steps", 200.0)),
        ("1 step", Cadence("steps", 1.0)),
    ],
)
def test_what_save_every_says(text: str | None, cadence: Cadence) -> None:
    """Times, numbers of steps, auto and nothing are understood as a person means them."""
    assert parse_cadence(text) == cadence


@pytest.mark.parametrize("text", ["200", "-5min", "5 parsecs", "", "0 steps", "1.5 steps", "auto 5min"])
def test_what_it_cant_say(text: str) -> None:
    """Anything else is an error that shows what can be said; a bare number isn't guessed at."""
    with pytest.raises(SettingsError, match="200 steps"):
        parse_cadence(text)


def test_durations() -> None:
    """A bound is a time, or a number of seconds."""
    assert parse_duration("10min", "max_loss") == parse_duration(600, "max_loss") == 600.0
    assert parse_duration(None, "max_loss") is None
    with pytest.raises(SettingsError, match="max_loss=True"):
        parse_duration(True, "max_loss")


@pytest.mark.parametrize("stall", [0.1, 5.0, 60.0, 900.0])
def test_daly_is_the_optimum(stall: float) -> None:
    """No other interval wastes less time by Daly's own model of a run with exponential failures (to 0.1 %)."""
    mean = 6 * HOUR

    def wall(interval: float) -> float:
        """Seconds that a second of training takes, restarts left out (Daly 2006, equation 20)."""
        return mean * (math.exp((interval + stall) / mean) - 1) / interval

    best = min(wall(daly(stall, mean) * (0.5 + n / 200)) for n in range(300))
    assert wall(daly(stall, mean)) <= best * 1.001


def test_daly_where_saves_take_longer_than_the_run_lives() -> None:
    """A stall of twice the time between failures and more: no closed form, the time between failures is taken."""
    assert daly(100.0, 40.0) == 40.0


def test_failures_are_learnt() -> None:
    """A failure a day is assumed at first; what was seen outweighs it soon, in both directions."""
    assert mean_time_between_failures(0, 0.0) == 24 * HOUR
    assert mean_time_between_failures(10, 10 * HOUR) < 2.5 * HOUR
    assert mean_time_between_failures(0, 1000 * HOUR) > 1000 * HOUR


def test_frequent_failures_are_believed_at_once() -> None:
    """A failure each half a minute is believed after the first, and forgotten where none follows it."""
    assert mean_time_between_failures(1, 30.0) < 60
    assert mean_time_between_failures(2, 60.0) < 60
    assert mean_time_between_failures(10, 300.0) < 60
    assert mean_time_between_failures(1, 600.0) > 300
    assert mean_time_between_failures(1, 12 * HOUR) > 12 * HOUR


def test_the_first_save_measures() -> None:
    """Before anything was measured, a save comes soon, and within the loss that is allowed."""
    assert choose_interval(SaveCosts()).seconds == FIRST
    assert choose_interval(SaveCosts(), max_loss=45.0).seconds == 45.0


@pytest.mark.parametrize("failures", [0, 3, 1000])
@pytest.mark.parametrize("upload", [0.0, 30.0])
@pytest.mark.parametrize("stall", [0.0, 0.01, 2.0, 50.0])
def test_saves_stay_under_their_share(stall: float, upload: float, failures: int) -> None:
    """Saves take at most 1 % of the time, 1 % more for each failure that was seen, and none overtakes an upload."""
    decision = choose_interval(SaveCosts(stall, upload, failures, 10 * HOUR))
    assert stall / (decision.seconds + stall) <= IO_SHARE * (1 + failures) * (1 + 1e-9)
    assert decision.seconds >= upload


@pytest.mark.parametrize("own", [3.0, 10.0, 13.0, 15.0, 24.0, 25.0, 100.0])
def test_between_the_scripts_own_saves(own: float) -> None:
    """No other number of saves between two of the script's own costs less, by Young's model: as many as pay."""
    stall, mean = 0.05, 1000.0
    optimum = math.sqrt(2 * stall * mean)  # 10 s
    parts = max(1, round(own / between(optimum, own)))

    def cost(parts: int) -> float:
        return parts * stall / own + own / parts / (2 * mean)

    assert cost(parts) <= min(cost(other) for other in range(1, 20)) * (1 + 1e-9)
    if parts == 1:
        assert between(optimum, own) > own, "the script's own save comes first"


def test_the_scripts_own_saves_leave_auto_its_share() -> None:
    """Where failures come often, auto saves between two saves of the script's, though these take 1 % by themselves."""
    decision = choose_interval(SaveCosts(0.02, 0.1, 10, 300.0, stalled=0.0, running=30.0, own=2.0))
    assert decision.seconds == 1.0
    rare = choose_interval(SaveCosts(0.02, 0.1, 0, HOUR, stalled=0.0, running=30.0, own=2.0))
    assert rare.seconds > 2.0


def test_what_was_spent_too_early_is_made_up_for() -> None:
    """Saves that have taken more than their share so far make the next one wait until the whole run keeps it."""
    decision = choose_interval(SaveCosts(1.0, 0.0, 1, HOUR, stalled=9.0, running=60.0))
    assert 10.0 / (60.0 + decision.seconds + 1.0) == pytest.approx(2 * IO_SHARE)
    frugal = choose_interval(SaveCosts(1.0, 0.0, 1, HOUR, stalled=1.0, running=5000.0))
    assert frugal.seconds == pytest.approx(daly(1.0, mean_time_between_failures(1, HOUR)))


def test_a_run_that_dies_often_saves_at_the_optimum() -> None:
    """Where failures each half a minute were seen, their optimum counts, though saves take more than 1 % by it."""
    often = choose_interval(SaveCosts(0.03, 0.1, 10, 300.0, stalled=0.0, running=1.0))
    assert often.seconds == pytest.approx(daly(0.03, mean_time_between_failures(10, 300.0)))
    assert 0.03 / (often.seconds + 0.03) > IO_SHARE


def test_more_failures_mean_more_saves() -> None:
    """The interval shrinks with the failures that were seen, down to the bound, and the reason names them."""
    intervals = [choose_interval(SaveCosts(0.05, 1.0, failures, 24 * HOUR)) for failures in (0, 5, 50)]
    assert intervals[0].seconds > intervals[1].seconds > intervals[2].seconds
    assert "5 in 24 h" in intervals[1].reason


def test_the_loss_is_bounded() -> None:
    """What a failure may cost, upload included, wins over the optimum and over the share, and the reason says so."""
    decision = choose_interval(SaveCosts(0.1, 20.0, 0, HOUR), max_loss=60.0)
    assert decision.seconds + 0.1 + 20.0 == pytest.approx(60.0)
    assert "at most 60 s may be lost" in decision.reason
    dear = choose_interval(SaveCosts(5.0, 20.0, 0, HOUR), max_loss=60.0)
    assert dear.seconds + 25.0 == pytest.approx(60.0)
    assert "12.5% of the time" in dear.reason


def test_a_loss_that_uploads_dont_allow() -> None:
    """Uploads too slow for the bound: as often as they allow, and the reason says that it can't be met."""
    decision = choose_interval(SaveCosts(0.1, 120.0, 0, HOUR), max_loss=60.0)
    assert decision.seconds == 120.0
    assert "too long for a loss of" in decision.reason
