"""Whose a run folder is, how a command is started, and how the other commands find it from where a person stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import vl
from tests.run.programs import environment, finish, start
from vaultlayer_hf.run.journal import OWNER, Journal, own_folder, read_journal, run_folders
from vaultlayer_hf.run.program import as_program, program_of, runs_in_shell


@pytest.fixture(autouse=True)
def _no_run_folder_named(monkeypatch) -> None:
    monkeypatch.delenv("VAULTLAYER_RUN_DIR", raising=False)


def test_two_scripts_of_one_folder_keep_their_attempts_apart(tmp_path: Path) -> None:
    """Each has a journal of its own, the first one's stays where it was, and the newest is what status shows."""
    for name in ("sft", "dpo", "sft"):
        (tmp_path / f"{name}.py").write_text("print('trained')")
        assert finish(start(tmp_path, sys.executable, f"{name}.py"), tmp_path).code == 0
    first, second = tmp_path / ".vl", next((tmp_path / ".vl").glob("dpo-*"))
    for folder, name, starts in ((first, "sft", 2), (second, "dpo", 1)):
        lines = read_journal(folder)
        assert {line["program"] for line in lines if line["kind"] == "begin"} == {
            str(tmp_path / f"{name}.py")
        }
        assert sum(line["kind"] == "start" for line in lines) == starts
    assert run_folders(first) == [second, first]
    shown = [
        len(vl("status", *which, "--json", cwd=tmp_path).json()["attempts"]) for which in ((), ("dpo.py",))
    ]
    assert shown == [2, 1]


def test_a_folder_belongs_to_one_program_and_one_vault(tmp_path: Path) -> None:
    """Another vault is another run; one without a readable owner is somebody else's."""
    home = tmp_path / ".vl"
    assert own_folder(home, "/train.py", "file:///one") == home
    other = own_folder(home, "/train.py", "file:///two")
    assert other.parent == home
    assert own_folder(home, "/train.py", "file:///one") == home
    assert own_folder(home, "/train.py", "file:///two") == other
    old = tmp_path / "old"
    Journal(old).write("begin", vault="file:///one")
    assert own_folder(old, "/train.py", "file:///one") != old
    (home / OWNER).write_text("{")
    assert own_folder(home, "/train.py", "file:///one") != home


def test_a_run_is_found_from_where_it_was_started(tmp_path: Path) -> None:
    """Below the script's folder, and where the command was given although the script lies elsewhere."""
    for name in ("src/deep", "work", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "src" / "train.py").write_text("")
    ran = finish(start(tmp_path / "work", sys.executable, "../src/train.py"), tmp_path)
    assert ran.code == 0
    assert "vl status ../src/.vl --watch" in ran.err
    for here in ("src", "src/deep", "work"):
        assert vl("status", cwd=tmp_path / here).code == 0, here
    assert vl("status", "../src/train.py", cwd=tmp_path / "other").code == 0
    assert vl("status", cwd=tmp_path / "other").code == 1, "nothing of this folder's"


@pytest.mark.parametrize("command", ["train.py", "./train.py"])
def test_a_bare_script_is_run_by_this_python(command: str, tmp_path: Path) -> None:
    """The first thing that anybody types works, with its arguments, executable or not."""
    (tmp_path / "train.py").write_text("import sys; print(sys.executable, sys.argv[1:])")
    ran = finish(start(tmp_path, command, "--lr", "1"), tmp_path)
    assert (ran.code, ran.out) == (0, f"{sys.executable} ['--lr', '1']\n")


def test_a_script_that_starts_itself_does(tmp_path: Path, monkeypatch) -> None:
    """An executable one that is named by its path chooses its own Python; one that isn't executable says so."""
    monkeypatch.chdir(tmp_path)
    for name in ("train.py", "train.sh"):
        Path(name).write_text("#!/bin/sh\n")
    Path("train.py").chmod(0o755)
    assert as_program(["./train.py", "-x"]) == ["./train.py", "-x"]
    ran = finish(start(tmp_path, "./train.sh"), tmp_path)
    assert (ran.code, "isn't executable: chmod +x" in ran.err) == (2, True)


def test_a_program_is_known_without_its_arguments(tmp_path: Path, monkeypatch) -> None:
    """Its script whatever starts it, else its module."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").touch()
    assert (
        program_of(["torchrun", "train.py", "--lr", "1"])
        == program_of(["python", "train.py"])
        == str(tmp_path / "train.py")
    )
    assert program_of(["python", "-m", "trl.sft", "--lr", "1"]) == "trl.sft"


def test_a_command_line_that_begins_at_step_0_beside_another_run_says_so(tmp_path: Path) -> None:
    """Other arguments are another run: where the script has trained by another line, the vault of that is named."""
    (tmp_path / "train.py").write_text("")
    first = finish(start(tmp_path, "train.py"), tmp_path)
    assert "goes on there" not in first.err
    shown = re.search(r"file://(\S+vault-train-\w+)", first.err)
    assert shown
    (Path(shown[1]) / "log").mkdir(parents=True)
    other = os.path.relpath(shown[1], tmp_path)
    again = finish(start(tmp_path, "train.py", "--epochs", "5"), tmp_path)
    assert f"another one has trained train.py into {other}: --vault {other} goes on there" in again.err
    assert "goes on there" not in finish(start(tmp_path, "python", "train.py"), tmp_path).err


def test_watching_begins_before_the_run(tmp_path: Path) -> None:
    """`vl status --watch` waits for the run to begin, says so, and ends with it."""
    command = [sys.executable, "-m", "vaultlayer_hf.cli", "status", "--watch", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stderr.readline().startswith("vl: waiting for a run in this folder")
        (tmp_path / "train.py").write_text("")
        assert finish(start(tmp_path, "train.py"), tmp_path).code == 0
        assert '"finished"' in watching.stdout.read().splitlines()[-1]
    assert watching.returncode == 0


def test_a_shell_is_known_by_its_name(tmp_path) -> None:
    """What stands between `vl run` and the Python that it starts may keep exit codes: a shell, named or by a script."""
    script = tmp_path / "launch"
    script.write_text("#!/usr/bin/env bash\npython train.py\n")
    script.chmod(0o755)
    shells = [
        ["bash", "-c", "python train.py | tee log"],
        ["srun", "/bin/sh", "-c", "x"],
        ["./train.sh"],
        [str(script)],
    ]
    assert [runs_in_shell(command) for command in shells] == [True] * 4
    script.write_text("#!/usr/bin/env python\n")
    others = [
        ["python", "launch.py", "train.sh"],
        ["torchrun", "train.py", "bash"],
        ["accelerate", "launch"],
        [str(script)],
        ["/no/such"],
    ]
    assert [runs_in_shell(command) for command in others] == [False] * 5
