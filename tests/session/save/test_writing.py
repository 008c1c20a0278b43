"""Writing a checkpoint's folder: what goes wrong costs that checkpoint, whatever it is and wherever it comes up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vault.vaults import TrainersFiles, a_session
from vaultlayer_hf.session.save import full_disk, writing
from vaultlayer_hf.session.save.writing import write_on_all
from vaultlayer_hf.session.start.asked import keep_asked
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.state.asked import Asked


class MuteError(Exception):
    """An error of a script's own class that can't say what is wrong."""

    def __str__(self) -> str:
        raise AttributeError("path")


def test_an_error_that_raises_where_it_is_asked(tmp_path: Path) -> None:
    """It costs the checkpoint as any other does, and has its class's name in the reason."""
    session, _ = a_session(str(tmp_path / "vault"), tmp_path / "out")
    resume(session, TrainersFiles())

    def write() -> None:
        raise MuteError

    reason = write_on_all(session, tmp_path / "out" / "checkpoint-1", write)
    assert reason == "it can't be written: MuteError: it can't say what is wrong"
    session.close()


def test_trouble_with_what_was_written_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that neither writes nor removes, nor tells what may go, costs the checkpoint only; it is said."""
    session, heard = a_session(str(tmp_path / "vault"), tmp_path / "out")
    resume(session, TrainersFiles())

    def fail(*args: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writing, "is_full", lambda *args: True)
    monkeypatch.setattr(full_disk, "clear_trash", fail)
    reason = write_on_all(session, tmp_path / "out" / "checkpoint-1", fail, remove=fail)
    assert reason is not None
    assert "Input/output error" in reason
    assert "written in vain can't be removed" in heard.reasons("trouble")
    session.close()


def test_what_cannot_be_told_in_json_costs_no_checkpoint(tmp_path: Path) -> None:
    """What a training is asked for is kept for a comparison; where it can't be, that is said, and nothing else."""
    session, heard = a_session(str(tmp_path / "vault"), tmp_path / "out")
    keep_asked(tmp_path, session, Asked(arguments={"labels": {1, 2}}))
    assert "a start can't be compared with this one" in heard.reasons("trouble")
