"""What a rank tells `vl run`: nothing that a script does there ends it, or hides how it ended."""

from __future__ import annotations

from pathlib import Path

from vaultlayer_hf.run.journal import read_notes
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
