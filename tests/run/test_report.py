"""What a rank tells `vl run`: nothing that a script does there ends it, or hides how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vaultlayer_hf.run.journal import read_beats, read_notes
from vaultlayer_hf.run.report import AttemptReport


class MuteError(Exception):
    """An error of a script's own class that can't say what is wrong."""

    def __str__(self) -> str:
        raise AttributeError("path")


def test_an_error_that_raises_where_it_is_asked(tmp_path: Path) -> None:
    """It is noted with its class and its lines; the script ends by it, and not by what it raises."""
    try:
        raise MuteError
    except MuteError as error:
        AttemptReport(str(tmp_path)).error(error)
    ((note,),) = read_notes(tmp_path).values()
    assert note["type"].endswith("test_report.MuteError")
    assert note["message"] == "it can't say what is wrong"
    assert "raise MuteError" in note["traceback"]


def test_a_child_of_a_rank_has_no_say(tmp_path: Path) -> None:
    """What a forked child comes to isn't the rank's end; a rank that a launcher forks speaks, as it trains."""
    report = AttemptReport(str(tmp_path))
    report.open()
    report.note("train", step=0)
    report.beat(step=3, phase="train")
    before = read_notes(tmp_path), read_beats(tmp_path)

    def child() -> None:
        report.note("trained", step=3)
        report.beat(phase="done")
        report.error(ValueError("the child's own"))

    _forked(child)
    assert (read_notes(tmp_path), read_beats(tmp_path)) == before
    _forked(
        lambda: [report.note("train", step=1), report.beat(step=4), report.error(ValueError("the rank's"))]
    )
    assert [note["kind"] for note in read_notes(tmp_path)[0]] == ["train", "train", "error"]
    assert read_beats(tmp_path)[0]["step"] == 4


def _forked(function: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
