"""The run folder's journal, as `vl status`, `vl logs` and `vl report` read it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from vaultlayer_hf.cli.run_folders import run_of
from vaultlayer_hf.run.journal import (
    Journal,
    append,
    attempt_folder,
    attempts,
    owner_of,
    read_beats,
    read_journal,
    read_notes,
    run_folder,
    run_folders,
)


def test_what_is_written_is_read_back_past_a_torn_line(tmp_path) -> None:
    """Lines come back in order, and one that a crash has cut short takes none of the others with it."""
    journal = Journal(tmp_path / ".vl")
    journal.write("begin", command=["python", "train.py"])
    with open(tmp_path / ".vl" / "journal.jsonl", "ab") as file:
        file.write(b'{"time": 1, "kind": "dea\n')
    journal.new_attempt()
    journal.write("start", pid=5)
    lines = read_journal(tmp_path / ".vl")
    assert [line["kind"] for line in lines] == ["begin", "start"]
    assert [line["attempt"] for line in lines] == [0, 1]
    assert len({line["run"] for line in lines}) == 1


def test_attempts_are_numbered_over_all_runs_of_a_folder(tmp_path) -> None:
    """A second `vl run` in the folder neither overwrites the first one's logs nor takes its numbers."""
    first, second = Journal(tmp_path), Journal(tmp_path)
    folders = [first.new_attempt(), second.new_attempt(), first.new_attempt()]
    assert folders == [attempt_folder(tmp_path, number) for number in (1, 2, 3)]
    assert attempts(tmp_path) == [1, 2, 3]
    assert first.run != second.run


def test_folders_of_others_are_passed_over() -> None:
    """Beside folders that this user may not look into, as in /scratch, or whose files it can't read, is its own."""
    with tempfile.TemporaryDirectory() as name:  # where another user can go, which pytest's own isn't
        home = Path(name)
        home.chmod(0o755)
        mine, closed, unread = (home / one for one in ("mine", "closed", "unread"))
        for folder in (mine, closed, unread):
            Journal(folder).write("begin", vault=str(folder))
            (folder / "run.json").write_text("{}")
        for path in (*unread.iterdir(), closed):
            path.chmod(0)
        try:
            told = _as_another_user(
                lambda: [sorted(run_of(one).vault or "" for one in run_folders(home)), owner_of(unread)]
            )
        finally:
            closed.chmod(0o700)
        assert json.loads(told) == [["", str(mine)], ["", ""]]


def _as_another_user(function: Callable[[], object]) -> str:
    """Call it in a child, as nobody where this is root, who may read all; return its result as JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            os.write(write, json.dumps(function()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read()
    os.waitpid(pid, 0)
    return told


def test_notes_and_pulse_are_read_by_rank(tmp_path) -> None:
    """What each rank wrote is found under its number; a pulse that isn't whole counts as none."""
    append(tmp_path / "rank-0.jsonl", {"time": 1.0, "kind": "hooked"})
    append(tmp_path / "rank-1.jsonl", {"time": 2.0, "kind": "error", "message": "no"})
    (tmp_path / "rank-0.beat").write_text('{"step": 3, "beats": 9}\n')
    (tmp_path / "rank-1.beat").write_text("")
    assert [line["kind"] for line in read_notes(tmp_path)[1]] == ["error"]
    assert set(read_notes(tmp_path)) == {0, 1}
    assert read_beats(tmp_path) == {0: {"step": 3, "beats": 9}}


def test_the_folder_is_beside_the_script_unless_it_is_named(tmp_path, monkeypatch) -> None:
    """The commands find the folder that `vl run` has used, without being told."""
    monkeypatch.delenv("VAULTLAYER_RUN_DIR", raising=False)
    assert run_folder(tmp_path / "train.py") == tmp_path / ".vl"
    monkeypatch.chdir(tmp_path)
    assert run_folder() == tmp_path / ".vl"
    monkeypatch.setenv("VAULTLAYER_RUN_DIR", str(tmp_path / "elsewhere"))
    assert run_folder(tmp_path / "train.py") == tmp_path / "elsewhere"


def test_a_full_disk_does_not_stop_the_supervisor(tmp_path) -> None:
    """A line that can't be written is returned all the same: `vl run` goes on deciding."""
    journal = Journal(tmp_path / ".vl")
    (tmp_path / ".vl" / "journal.jsonl").symlink_to("/dev/full")
    assert journal.write("decision", action="restart")["action"] == "restart"
