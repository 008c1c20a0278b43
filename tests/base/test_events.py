"""Where events are written, and at which level: the program's own logging decides, or the environment."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys

import pytest

from tests import ROOT
from vaultlayer_hf.base.events import EventKind, Events

PROGRAM = """
import logging, sys

def set_up():
    level = sys.argv[2] or None
    logging.basicConfig(format="PROGRAM %(message)s", level=level, force=True)

if sys.argv[1] == "before": set_up()
if sys.argv[1] == "ours": logging.getLogger("vaultlayer_hf").setLevel(sys.argv[2])
if sys.argv[1] == "root": logging.getLogger().setLevel(sys.argv[2])
from vaultlayer_hf.base.events import EventKind, Events
events = Events()
if sys.argv[1] == "after": set_up()
events.info(EventKind.CLAIM, "good news")
events.sign_of_life("still waiting")
events.warn(EventKind.NOTICE, "bad news")
"""
GOOD, WAITING, BAD = "good news", "still waiting", "bad news"


def lines(how: str, level: str = "", verbosity: str | None = None) -> list[str]:
    """Return what a program's stderr shows of two events and a sign of life."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, level],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"} | ({} if verbosity is None else {"VAULTLAYER_VERBOSITY": verbosity}),
    )
    assert run.stdout == ""
    return run.stderr.splitlines()


def own(*messages: str) -> list[str]:
    """Return lines as the library's own handler writes them."""
    return [f"[vaultlayer] {message}" for message in messages]


def programs(*messages: str) -> list[str]:
    """Return lines as the program's handler writes them."""
    return [f"PROGRAM {message}" for message in messages]


def test_a_program_without_logging_sees_all_events() -> None:
    """Where nobody has set up logging, events go to stderr from INFO on."""
    assert lines("") == own(GOOD, WAITING, BAD)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_root_loggers_level_holds(when: str) -> None:
    """A program that set logging to WARNING sees no INFO line, whether it did so before or after we started."""
    assert lines(when, "WARNING") == programs(BAD)
    assert lines(when, "ERROR") == []
    assert lines(when, "INFO") == programs(GOOD, WAITING, BAD)
    assert lines(when) == programs(BAD)  # the root logger's own default


def test_a_level_of_our_logger_holds() -> None:
    """A program that gave our logger a level has that one, also without a handler of its own."""
    assert lines("ours", "WARNING") == own(BAD)
    assert lines("root", "ERROR") == []


@pytest.mark.parametrize("when", ["", "before", "after"])
def test_the_environment_wins(when: str) -> None:
    """VAULTLAYER_VERBOSITY decides where it is set, whatever the program's root logger says."""
    made = programs if when else own
    assert lines(when, "ERROR", "info") == made(GOOD, WAITING, BAD)
    assert lines(when, "INFO", "warning") == made(BAD)
    assert lines(when, "WARNING", "") == (programs(BAD) if when else own(GOOD, WAITING, BAD))


def test_a_wrong_level_is_said() -> None:
    """A VAULTLAYER_VERBOSITY that is no level is named together with the levels that there are; events go on."""
    told, *rest = lines("", verbosity="loud")
    assert "VAULTLAYER_VERBOSITY='loud'" in told
    assert "debug, info, warning, error, critical" in told
    assert rest == own(GOOD, WAITING, BAD)


def test_what_repeats_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Commits and their like: listeners hear each, the log has one a minute with counts, and the rest at the end."""
    now = [0.0]
    events, heard = Events(clock=lambda: now[0]), []
    events.listen(heard.append)
    with caplog.at_level("INFO", "vaultlayer_hf"):
        for step in range(10):
            now[0] = step * 10.0
            events.repeated(EventKind.COMMIT, f"checkpoint-{step} committed", step=step)
            events.repeated(EventKind.RETIRE, f"checkpoint-{step - 1} deleted")
        events.sum_up()
        events.sum_up()
    assert len(heard) == 20
    assert heard[12].message == "checkpoint-6 committed"
    assert caplog.messages == [
        "checkpoint-0 committed",
        "checkpoint-6 committed (and since the last such line: 5 committed, 6 deleted as no longer needed)",
        "checkpoint-9 committed (and since the last such line: 2 committed, 4 deleted as no longer needed)",
    ]


def test_saves_that_are_abandoned_are_counted_by_themselves(caplog: pytest.LogCaptureFixture) -> None:
    """They are warnings, one a minute with a count, whatever commits are said meanwhile."""
    events = Events(clock=lambda: 0.0)
    with caplog.at_level("INFO", "vaultlayer_hf"):
        events.repeated(EventKind.COMMIT, "checkpoint-1 committed")
        for step in (2, 3, 4):
            events.repeated(EventKind.ABANDON, f"checkpoint-{step} is abandoned", level=logging.WARNING)
        events.repeated(EventKind.COMMIT, "checkpoint-5 committed")
        events.sum_up()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "checkpoint-1 committed"),
        ("WARNING", "checkpoint-2 is abandoned"),
        ("INFO", "checkpoint-5 committed"),
        ("WARNING", "since the last line on saves: 2 abandoned"),
    ]


def test_deletions_alone_are_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing was committed since the last line, the rest is said all the same; where there is none, nothing."""
    events = Events(clock=lambda: 0.0)
    with caplog.at_level("INFO", "vaultlayer_hf"):
        events.sum_up()
        events.repeated(EventKind.COMMIT, "checkpoint-1 committed")
        events.sum_up()
        events.repeated(EventKind.RETIRE, "checkpoint-0 deleted")
        events.sum_up()
    assert caplog.messages == [
        "checkpoint-1 committed",
        "since the last line on saves: 1 deleted as no longer needed",
    ]


BESIDE_A_BAR = """
import io, sys
from tqdm import tqdm
from vaultlayer_hf.base.events import EventKind, Events

sys.stderr = shown = io.StringIO()
bar = tqdm(total=10, file=shown, ncols=60)
bar.update(5)
before = len(shown.getvalue())
Events().info(EventKind.CLAIM, "news")
print(repr(shown.getvalue()[before:]))
"""


def test_a_line_is_not_glued_to_a_bar() -> None:
    """While a bar of tqdm is shown on stderr, a line begins where it began, and the bar is drawn again."""
    run = subprocess.run(
        [sys.executable, "-c", BESIDE_A_BAR], capture_output=True, text=True, check=True, cwd=ROOT
    )
    line, _, again = ast.literal_eval(run.stdout).partition("\n")
    assert line.rpartition("\r")[::2] == ("\r" + " " * 60, "[vaultlayer] news")
    assert "5/10" in again
