"""`vl init` as a person and as a program use it: asking, backups, undo, JSON."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT
from tests.cli.conftest import vl
from tests.run.insert.kit import EDITED, SCRIPTS, VAULT, proposal_text
from vaultlayer_hf.cli.init import offer_before_run
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.insert.apply import apply, undo
from vaultlayer_hf.run.insert.propose import propose


@pytest.fixture
def script(tmp_path) -> Path:
    """A script to edit."""
    return Path(shutil.copy(SCRIPTS / "step_loop.py", tmp_path / "train.py"))


def on_terminal(script: Path, answer: str) -> tuple[int, str]:
    """Run `vl init` on a terminal, answer its question; return exit code and what was shown."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vaultlayer_hf.cli", "init", str(script), "--vault", VAULT]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown, answered, end = "", False, time.monotonic() + 60
        while time.monotonic() < end and select.select([ours], [], [], 60)[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:  # it has closed its end
                break
            shown += data.decode()
            if "[y/N]" in shown and not answered:
                os.write(ours, f"{answer}\n".encode())
                answered = True
    os.close(ours)
    return process.returncode, shown.replace("\r\n", "\n")


@pytest.mark.parametrize("name", EDITED[::4])
def test_undo_restores_to_the_byte(name, tmp_path) -> None:
    """Edited and undone, each script is what it was, its mode too, and nothing is left beside it."""
    script = Path(shutil.copy(SCRIPTS / f"{name}.py", tmp_path / "train.py"))
    script.chmod(0o755)
    before = script.read_bytes()
    backup = apply(propose(script, VAULT))
    assert backup.read_bytes() == before
    assert script.read_bytes() != before
    undo(script)
    assert script.read_bytes() == before
    assert script.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [script]


def test_undo_never_loses_what_was_edited_since(script) -> None:
    """A script that was worked on after `vl init` isn't overwritten: the command that does it nevertheless is named."""
    before = script.read_bytes()
    backup = apply(propose(script, VAULT))
    script.write_text(script.read_text() + "# mine\n")
    with pytest.raises(SettingsError, match=backup.name) as refused:
        undo(script)
    assert script.read_text().endswith("# mine\n")
    assert backup.exists()
    subprocess.run(str(refused.value).rpartition(": ")[2], shell=True, check=True)
    assert script.read_bytes() == before


def test_undo_without_a_backup_says_so(script) -> None:
    """Nothing to undo is one sentence and exit code 2, and the script stays."""
    before = script.read_bytes()
    done = vl("init", "--undo", str(script))
    assert (done.code, script.read_bytes()) == (2, before)
    assert "no backup" in done.err


def test_a_script_that_changed_meanwhile_is_not_overwritten(script) -> None:
    """What an editor saved while the question was open is kept."""
    found = propose(script, VAULT)
    script.write_text("print('new')\n")
    with pytest.raises(SettingsError, match="has changed"):
        apply(found)
    assert script.read_text() == "print('new')\n"


def test_a_linked_script_is_edited_where_it_lies(script, tmp_path) -> None:
    """A link to a script stays a link; what it leads to is edited, and undone."""
    before = script.read_bytes()
    (tmp_path / "link").mkdir()
    link = tmp_path / "link" / "train.py"
    link.symlink_to(script)
    apply(propose(link, VAULT))
    assert link.is_symlink()
    assert b"Checkpointer" in script.read_bytes()
    undo(link)
    assert (link.is_symlink(), script.read_bytes()) == (True, before)


def test_without_a_terminal_nothing_is_edited(script) -> None:
    """In a pipe or a job the diff is shown, the file stays, and the exit code says that nothing was done."""
    before = script.read_bytes()
    done = vl("init", str(script), "--vault", VAULT)
    assert (done.code, script.read_bytes()) == (1, before)
    assert done.out == proposal_text("step_loop").replace("step_loop.py", str(script))
    assert "--yes" in done.err


def test_yes_edits_and_undo_command_restores(script) -> None:
    """`--yes` edits without a terminal, says how to go back, and that command does."""
    before = script.read_bytes()
    done = vl("init", str(script), "--vault", VAULT, "--yes")
    assert done.code == 0, done.err
    assert script.read_bytes() == propose(script.with_name(backup_of(script)), VAULT).after
    assert f"vl init --undo {script}" in done.out
    assert vl("init", "--undo", str(script)).code == 0
    assert script.read_bytes() == before


def test_another_vault_of_an_edited_script_is_named_where_it_stands(script) -> None:
    """`--vault` changes nothing in a script that is edited already, and says where the vault is to be changed."""
    assert vl("init", str(script), "--vault", VAULT, "--yes").code == 0
    before = script.read_bytes()
    again = vl("init", str(script), "--vault", "s3://bucket/another", "--yes")
    assert (again.code, script.read_bytes()) == (0, before)
    assert f"to have s3://bucket/another, change it in {script}" in again.out


def backup_of(script: Path) -> str:
    """The name of a script's only backup."""
    return next(path.name for path in script.parent.glob(f"{script.name}.before-vl-*"))


@pytest.mark.parametrize(("answer", "edited"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_it_asks(script, answer, edited) -> None:
    """A person sees the explained diff and decides; Enter alone changes nothing."""
    before = script.read_bytes()
    code, shown = on_terminal(script, answer)
    assert code == 0, shown
    assert "Saves a loop to a vault" in shown
    assert (script.read_bytes() != before) is edited
    assert bool(list(script.parent.glob("*.before-vl-*"))) is edited


def test_json_for_programs(script) -> None:
    """`--json` is one object in each case: proposed, edited, integrated, unrecognised, undone."""
    path = str(script)
    proposed = vl("init", path, "--vault", VAULT, "--json")
    assert proposed.code == 1
    found = proposed.json()
    assert (found["kind"], found["edited"], found["backup"], found["vault"]) == ("loop", False, None, VAULT)
    assert all(set(hunk) == {"line", "why", "diff"} for hunk in found["hunks"])
    edited = vl("init", path, "--vault", VAULT, "--json", "--yes").json()
    assert (edited["edited"], Path(edited["backup"]).name) == (True, backup_of(script))
    again = vl("init", path, "--json")
    assert (again.code, again.json()["kind"], again.json()["hunks"]) == (0, "integrated", [])
    assert vl("init", path, "--undo", "--json").json()["kind"] == "undone"
    script.write_text("print('no loop')\n")
    unknown = vl("init", path, "--json")
    assert (unknown.code, unknown.json()["kind"], len(unknown.json()["lines"])) == (1, "unrecognised", 5)


@pytest.mark.parametrize(
    ("name", "yes", "words", "edited"),
    [
        ("step_loop", True, "", True),
        ("step_loop", False, "begins anew at each start: vl init", False),
        ("data_generator", True, "goes round them by itself", False),
        ("trainer", True, "", False),
        ("integrated", True, "", False),
    ],
)
def test_offered_before_a_run(name, yes, words, edited, tmp_path, capsys) -> None:
    """`vl run` offers the edit where only an edit helps; where nobody is there it takes --yes, and else it is said."""
    script = Path(shutil.copy(SCRIPTS / f"{name}.py", tmp_path / "train.py"))
    before, said = script.read_bytes(), []
    offer_before_run(script, None, yes, said.append)
    assert (script.read_bytes() != before) is edited
    shown = capsys.readouterr()
    assert (shown.out, bool(shown.err)) == ("", edited)
    assert bool(said) is bool(words)
    assert words in "".join(said)


@pytest.mark.slow
def test_vl_run_edits_a_loop_with_yes(script, tmp_path) -> None:
    """`vl run --yes` edits the loop first, and the run that follows commits to the vault."""
    done = vl(
        "run",
        "--vault",
        "vaults/mine",
        "--yes",
        "--",
        sys.executable,
        "train.py",
        cwd=tmp_path,
        PYTHONPATH=str(ROOT),
    )
    assert done.code == 0, done.err
    assert b'Checkpointer("vaults/mine"' in script.read_bytes()
    assert [
        item["step"] for item in vl("ls", str(tmp_path / "vaults" / "mine"), "--json").json()["checkpoints"]
    ] == [12]


@pytest.mark.slow
def test_vl_run_leaves_a_loop_alone_without_a_terminal(script, tmp_path) -> None:
    """Nobody there and no `--yes`: the script is run as it is, and it is said that a restart begins anew."""
    before = script.read_bytes()
    done = vl("run", "--", sys.executable, "train.py", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (done.code, script.read_bytes()) == (0, before), done.err
    assert "begins anew at each start: vl init train.py" in done.err
    assert (
        "begins anew"
        not in vl(
            "run", "--no-insert", "--", sys.executable, "train.py", cwd=tmp_path, PYTHONPATH=str(ROOT)
        ).err
    )


def test_what_trains_nothing_is_run_in_silence(tmp_path) -> None:
    """A script in which nothing looks like a training isn't lectured about loops."""
    (tmp_path / "run.py").write_text("import subprocess\nsubprocess.run(['true'])\n")
    said: list[str] = []
    offer_before_run(tmp_path / "run.py", None, True, said.append)
    assert said == []


def test_without_libcst_the_extra_is_named(script, tmp_path, monkeypatch) -> None:
    """An install without the extra says which one to add, and exits with 2."""
    monkeypatch.setattr("tests.cli.conftest._forks", [])  # a fork has its import path already
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "libcst.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path / "hide"), os.environ.get("PYTHONPATH", "")])
    done = vl("init", str(script), PYTHONPATH=path)
    assert done.code == 2
    assert "vaultlayer-hf[init]" in done.err
