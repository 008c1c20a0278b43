"""Sizes and spans of time as people read them, the same in the log, the tables and the errors."""

from __future__ import annotations

import pytest

from vaultlayer_hf.base.text import bytes_bar, duration_text, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1024, "1.0 kB"),
        (16384, "16.4 kB"),
        (1.5e9, "1.5 GB"),
        (2e15, "2000.00 TB"),
    ],
)
def test_a_size_is_in_powers_of_1000(size: float, text: str) -> None:
    """Sizes are written in the decimal units that their names mean."""
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.005, "5 ms"),
        (0.75, "0.75 s"),
        (42.31, "42.3 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (20 * 60, "20 min"),
        (5.25 * 3600, "5.25 h"),
        (36 * 3600, "1.5 days"),
        (1100 * 86400, "1100 days"),
    ],
)
def test_a_span_has_three_digits_and_a_unit(seconds: float, text: str) -> None:
    """Spans of time are written to three digits, in the unit that a person would choose."""
    assert duration_text(seconds) == text


def test_a_bar_counts_only_where_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar that isn't shown writes nothing, and takes counts all the same."""
    for shown in (True, False):
        with bytes_bar(2000, "Restoring", shown=shown) as bar:
            bar.update(2000)
        assert ("Restoring: 100%" in capsys.readouterr().err) is shown
