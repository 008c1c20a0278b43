"""`vl status` and `vl logs`: from a run folder with its vault, and from a vault alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vaultlayer_hf.run.assemble import assemble
from vaultlayer_hf.run.journal import OUTPUT, Journal, append

from . import schema
from .conftest import vl
from .stories import ATTEMPTS, LOST, MAX_STEPS, a_run


def test_status_of_a_run_with_two_deaths(tmp_path: Path) -> None:
    """Each attempt with where it began, how far it came and what ended it; what was lost is counted."""
    run, _ = a_run(tmp_path)
    found = vl("status", str(run), "--json").json()
    assert schema.misfits(found, schema.STATUS) == []
    assert (found["state"], found["step"], found["max_steps"]) == ("finished", MAX_STEPS, MAX_STEPS)
    assert [(item["began_at"], item["step"], item["cause"]) for item in found["attempts"]] == [
        attempt[1:4] for attempt in ATTEMPTS
    ]
    assert [item["lost"] for item in found["attempts"]] == [30, 60, 0]
    assert (found["lost_steps"], found["commits"], found["last_commit_step"]) == (LOST, 10, MAX_STEPS)
    # By hand: 215, 180 and 150 s of steps, of which 15 and 30 s were trained twice; 723 s in all.
    assert found["goodput"] == pytest.approx((215 - 15 + 180 - 30 + 150) / 723, abs=0.01)
    text = vl("status", cwd=tmp_path)
    assert text.code == 0, text.err
    assert "Finished: step 1000 of 1000" in text.out
    assert "CUDA out of memory at step 761" in " ".join(text.out.split())


def test_status_of_a_run_that_is_alive(tmp_path: Path) -> None:
    """While it runs: the step of its pulse, its speed, what is left, and the exposure since its last commit."""
    run, _ = a_run(tmp_path, begin=time.time() - 723, alive=True)
    found = vl("status", str(run), "--json").json()
    assert (found["state"], found["attempts"][-1]["cause"]) == ("running", None)
    assert found["steps_per_second"] == pytest.approx(2, rel=0.2)
    assert found["exposure_seconds"] >= 0
    assert "a death now would cost that" in vl("status", str(run)).out


def test_status_between_two_attempts(tmp_path: Path) -> None:
    """Behind a death it doesn't run: neither its speed nor what is left is shown, but which attempt has ended, and how.

    Once the next attempt is started it runs again.
    """
    journal = Journal(tmp_path / ".vl")
    journal.write("begin", pid=os.getpid(), host="elsewhere")
    notes = journal.new_attempt() / "rank-0.jsonl"
    journal.write("start", pid=1, folder="attempt-0001", divide=1, at=None)
    append(notes, {"time": time.time() - 9, "kind": "train", "step": 0, "max_steps": 1200, "pid": 1})
    for step in (100, 150):
        append(notes, {"time": time.time() + step / 50 - 8, "kind": "log", "step": step, "loss": 1.0})
    journal.write(
        "death", cause="killed", signal="SIGKILL", step=150, detail="SIGKILL ended it after step 150"
    )
    journal.write("decision", action="restart", reason="as decided", wait=0.0, divide=1, at=None)
    found = vl("status", "--json", cwd=tmp_path).json()
    assert schema.misfits(found, schema.STATUS) == []
    assert (found["state"], found["steps_per_second"], found["seconds_left"]) == ("restarting", None, None)
    shown = vl("status", cwd=tmp_path).out
    assert "Restarting: step 150 of 1200; attempt 1: SIGKILL ended it after step 150\n" in shown
    assert "150 steps since the start at the death" in shown
    journal.new_attempt()
    journal.write("start", pid=1, folder="attempt-0002", divide=1, at=None)
    assert vl("status", "--json", cwd=tmp_path).json()["state"] == "running"


def test_status_of_a_vault_alone(trained: Path) -> None:
    """Without a run folder the vault's log still tells of attempts, commits and the end."""
    found = vl("status", str(trained), "--json").json()
    assert (found["state"], found["last_commit_step"], len(found["attempts"])) == ("finished", 60, 1)


def test_status_where_the_vault_is_out_of_reach(tmp_path: Path) -> None:
    """The run folder tells what it knows, and what can't be read is said on stderr."""
    journal = Journal(tmp_path / ".vl")
    journal.write("begin", vault="s3://bucket/run", pid=os.getpid(), host="elsewhere")
    path = journal.new_attempt()
    journal.write("start", pid=1, folder=path.name, divide=1, at=None)
    done = vl(
        "status", cwd=tmp_path, AWS_ENDPOINT_URL="not-a-url", AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s"
    )
    assert (done.code, "Running: no step yet" in done.out) == (0, True), done.err
    assert "endpoint" in done.err


def test_status_without_anything(tmp_path: Path) -> None:
    """Where there is neither a run folder nor a vault, that is said with 1."""
    for command in ("status", "logs", "report"):
        done = vl(command, cwd=tmp_path)
        assert (done.code, done.out) == (1, "")
        assert "no run folder" in done.err
        assert vl(command, str(tmp_path / "none")).code == 1
    assert list(tmp_path.iterdir()) == []


def test_status_watches_until_the_run_ends(tmp_path: Path) -> None:
    """--watch shows how it goes, again and again, and ends with the run."""
    journal = Journal(tmp_path / ".vl")
    journal.write("begin", pid=os.getpid(), host="elsewhere")
    journal.new_attempt()
    journal.write("start", pid=1, folder="attempt-0001", divide=1, at=None)
    threading.Timer(
        4, lambda: journal.write("end", code=0, reason="all done", attempts=1, step=1, seconds=1)
    ).start()
    done = vl("status", "--watch", "--json", cwd=tmp_path)
    lines = done.out.splitlines()
    assert done.code == 0
    assert len(lines) > 1
    assert '"running"' in lines[0]
    assert '"finished"' in lines[-1]


def test_logs_of_an_attempt(tmp_path: Path) -> None:
    """The last attempt's output, or the one that is asked for, or its last lines."""
    run, _ = a_run(tmp_path)
    assert vl("logs", str(run)).out.splitlines()[0] == "attempt 3"
    assert vl("logs", str(run), "--attempt", "1").out.splitlines()[0] == "attempt 1"
    assert vl("logs", str(run), "-n", "2").out == "line 3\nline 4\n"
    found = vl("logs", str(run), "-n", "1", "--json").json()
    assert schema.misfits(found, schema.LOGS) == []
    assert found["lines"] == ["line 4"]
    absent = vl("logs", str(run), "--attempt", "9")
    assert (absent.code, "it holds: 1, 2, 3" in absent.err) == (1, True)


def test_logs_follow_into_the_next_attempt(tmp_path: Path) -> None:
    """--follow prints what comes later, of this attempt and the next, and ends with `vl run`."""
    journal = Journal(tmp_path / ".vl")
    journal.write("begin", pid=os.getpid(), host="elsewhere")
    first = journal.new_attempt() / OUTPUT
    first.write_text("one\n")
    command = [sys.executable, "-m", "vaultlayer_hf.cli", "logs", "--follow"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "one\n"
        with first.open("a") as file:
            file.write("two\n")
        assert process.stdout.readline() == "two\n"
        (journal.new_attempt() / OUTPUT).write_text("three\n")
        assert process.stdout.readline() == "three\n"
        journal.write("end", code=0, reason="", attempts=2, step=1, seconds=1)
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_logs_of_a_vault(trained: Path) -> None:
    """The log of a vault, entry by entry, in words."""
    lines = vl("logs", str(trained)).out.splitlines()
    assert [line.split()[3] for line in lines[1:]] == ["claim", "commit", "commit", "commit", "finish"]


def test_lines_that_are_cut_short_are_passed_over() -> None:
    """A story is told from whatever is there: no death, no notes, nonsense in a note."""
    start = {"kind": "start", "run": "r", "attempt": 1, "time": 10.0, "pid": 1}
    notes = {1: {0: [{"kind": "log", "time": 11.0, "step": "x"}, {"kind": "train", "time": 11.0, "step": 5}]}}
    story = assemble([start], {}, {}, [], vault=None, alive=False, now=20.0)
    assert (story.state, story.step, story.goodput, story.exposure) == ("stopped", None, None, (0.0, 0))
    assert assemble([], {}, {}, [], vault=None, alive=False, now=1.0).attempts == ()
    assert assemble([start], notes, {}, [], vault=None, alive=False, now=20.0).step == 5


def test_logs_of_each_event(tmp_path: Path) -> None:
    """--events shows each commit and deletion that the output has only counted; a vault's log has them anyway."""
    run, vault = a_run(tmp_path)
    for number in range(3):
        note = {
            "time": 1.0 + number,
            "kind": "vault",
            "event": "retire",
            "message": f"checkpoint-{number} deleted",
        }
        append(run / "attempt-0003" / "rank-0.jsonl", note)
    found = vl("logs", str(run), "--events", "--json").json()
    assert [item["text"] for item in found["events"]] == [
        f"checkpoint-{number} deleted" for number in range(3)
    ]
    assert "checkpoint-2 deleted" in vl("logs", str(run), "--events", "-n", "1").out
    assert vl("logs", str(run), "--events", "--follow").code == 2
    assert vl("logs", str(vault), "--events").code == 2


def test_a_vault_alone_claims_no_figures(tmp_path: Path) -> None:
    """What a log of commits can't tell is called not known: of one attempt, too."""
    run, vault = a_run(tmp_path)
    shutil.rmtree(run)
    found = vl("status", str(vault), "--json").json()
    assert found["goodput"] is None
    assert found["watched"] is False
    assert "goodput" in (told := vl("status", str(vault)).out)
    assert "% of" not in told


def test_a_vault_is_told_with_the_run_folder_beside_it(tmp_path: Path) -> None:
    """A vault that is named is told as its run is, where the folder of the `vl run` that trains it is at hand."""
    run, vault = a_run(tmp_path)
    by_vault, by_run = (vl("status", str(one), "--json").json() for one in (vault, run))
    assert by_vault["watched"]
    assert by_vault["lost_steps"] is not None
    assert by_vault["attempts"] == by_run["attempts"]


def test_a_script_with_a_vault_of_its_own(tmp_path: Path) -> None:
    """What the script itself named is what the run keeps its checkpoints in, whatever `vl run` would have used."""
    run, vault = a_run(tmp_path)
    other = tmp_path / "own"
    vault.rename(other)
    for notes in run.glob("attempt-*/rank-0.jsonl"):
        append(
            notes, {"time": 0.0, "kind": "train", "step": 0, "max_steps": 1000, "vault": f"file://{other}"}
        )
    found = vl("status", str(run), "--json").json()
    assert (found["vault"], found["commits"]) == (f"file://{other}", 10)


def test_a_run_that_is_over_has_nothing_to_lose(trained: Path) -> None:
    """However long its process went on behind the last commit: what is committed can't be lost."""
    found = vl("status", str(trained), "--json").json()
    assert (found["state"], found["exposure_seconds"], found["exposure_steps"]) == ("finished", 0, 0)


def test_a_run_whose_vault_was_archived_is_still_told(tmp_path: Path) -> None:
    """The run folder tells of the run that was archived, with its commits, and that the next start begins anew."""
    run, vault = a_run(tmp_path)
    before = vl("status", str(run), "--json").json()
    assert vl("archive", str(vault)).code == 0
    after = vl("status", str(run), "--json").json()
    assert after.pop("reason").endswith("is archived: the next start begins at step 0")
    assert after == {name: value for name, value in before.items() if name != "reason"}


def test_commands_find_the_vault_of_the_run_that_was_started_here(tmp_path: Path) -> None:
    """Without a vault, they take that of the run in this folder, and say which; without a run, that of the variable."""
    _, vault = a_run(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for command in ("ls", "why", "show"):
        named = vl(command, str(vault), cwd=tmp_path)
        found = vl(command, cwd=tmp_path)
        assert (found.code, found.out) == (named.code, named.out), found.err
        assert f"vl: file://{vault}, the vault of the run in " in found.err
    looked = vl("doctor", cwd=tmp_path, VAULTLAYER_VAULT="")
    assert f"vl: file://{vault}, the vault of the run in " in looked.err
    assert "no vault" not in looked.out
    runless = {"VAULTLAYER_RUN_DIR": str(elsewhere / "none")}
    by_variable = vl("ls", cwd=elsewhere, VAULTLAYER_VAULT=str(vault), **runless)
    assert by_variable.out == vl("ls", str(vault)).out
    assert "as VAULTLAYER_VAULT says" in by_variable.err
    nothing = vl("ls", cwd=elsewhere, VAULTLAYER_VAULT="", **runless)
    assert (nothing.code, nothing.out) == (2, "")
    assert "name the vault" in nothing.err


def test_tables_in_a_pipe_have_no_blanks_at_their_ends(tmp_path: Path) -> None:
    """Lines that fill up a column with blanks are compared, copied and searched badly."""
    run, vault = a_run(tmp_path)
    for arguments in (("status", str(run)), ("why", str(vault)), ("ls", str(vault)), ("logs", str(vault))):
        lines = vl(*arguments).out.splitlines()
        assert len(lines) > 3
        assert [line for line in lines if line != line.rstrip()] == []
