"""What a person asks for and can't have is refused in one line that names the fix, never passed over."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.vault.vaults import train
from vaultlayer_hf.cli import app
from vaultlayer_hf.cli.checks import check_libraries
from vaultlayer_hf.cli.common import span
from vaultlayer_hf.cli.mistyped import misplaced
from vaultlayer_hf.cli.status import describe, facts, headline
from vaultlayer_hf.cli.tables import print_table
from vaultlayer_hf.run.assemble import assemble
from vaultlayer_hf.vault.log.entry import Commit, Entry, VaultState

from .conftest import vl
from .stories import a_run


def test_a_step_behind_the_vault_is_heeded(trained: Path) -> None:
    """VAULT@STEP means that checkpoint alone to ls and verify, and one that isn't there fails."""
    assert [item["step"] for item in vl("ls", f"{trained}@40", "--json").json()["checkpoints"]] == [40]
    assert vl("verify", f"{trained}@40").out.startswith("step 40: ok")
    assert vl("verify", f"{trained}@40").out.count("\n") == 1
    for command in ("ls", "verify"):
        done = vl(command, f"{trained}@50")
        assert (done.code, "no checkpoint of step 50; it holds: 20, 40, 60" in done.err) == (1, True), (
            done.err
        )
        assert done.out == ""
    assert vl("verify", f"{trained}@40", "--newest").code == 2


@pytest.mark.parametrize(
    "command", [("logs",), ("status",), ("prune", "--dry-run"), ("report",)], ids=" ".join
)
def test_a_step_that_means_nothing_is_refused(
    command: tuple[str, ...], trained: Path, tmp_path: Path
) -> None:
    """What is about the whole vault says so instead of showing all as if nothing had been asked."""
    done = vl(command[0], f"{trained}@40", *command[1:], cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "leave out @40" in done.err


@pytest.mark.parametrize("option", [("--attempt", "2"), ("--follow",)], ids=" ".join)
def test_options_of_a_run_folder_are_refused_for_a_vault(option: tuple[str, ...], trained: Path) -> None:
    """A vault's log has no attempts."""
    done = vl("logs", str(trained), *option)
    assert (done.code, done.out, option[0] in done.err) == (2, "", True)


@pytest.mark.parametrize(
    "command",
    [("ls",), ("verify",), ("show",), ("why",), ("logs",), ("status",), ("prune", "--dry-run")],
    ids=" ".join,
)
def test_a_typo_is_answered_with_the_vault_beside_it(command: tuple[str, ...], vault: Path) -> None:
    """Each command ends with 1 and names the vault that may have been meant."""
    done = vl(command[0], str(vault)[:-1], *command[1:])
    assert (done.code, done.out) == (1, "")
    assert f"did you mean {vault}?" in done.err


def test_a_typo_in_a_bucket_is_answered_with_the_vault_beside_it(s3_uri: str, tmp_path: Path) -> None:
    """As in a folder; and where nothing is near, nothing is guessed."""
    train(f"{s3_uri}/my-run", tmp_path / "output", 2)
    done = vl("status", f"{s3_uri}/my-rnu")
    assert (done.code, f"did you mean {s3_uri}/my-run?" in done.err) == (1, True), done.err
    done = vl("ls", f"{s3_uri}/quite-another")
    assert (done.code, "did you mean" in done.err) == (1, False), done.err


@pytest.mark.parametrize("option", [("--out", "x.pdf"), ("--out", "x.html", "--png", "x.jpg")], ids=" ".join)
def test_a_report_is_called_what_it_is(option: tuple[str, ...], trained: Path, tmp_path: Path) -> None:
    """A name that promises another format is refused before anything is written."""
    done = vl("report", str(trained), *option, cwd=tmp_path)
    assert (done.code, option[-1] in done.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_beside_the_vault_is_answered_with_the_vault(vault: Path, tmp_path: Path) -> None:
    """What lies in a vault, and a folder that holds one alone, are told from a vault, and it is named."""
    checkpoint = next(vault.glob("data/*/checkpoint-40"))
    for given in (vault / "log", checkpoint, tmp_path):
        done = vl("ls", str(given))
        assert (done.code, f"did you mean {vault}?" in done.err) == (1, True), done.err


def test_an_output_dir_is_told_from_a_vault(tmp_path: Path) -> None:
    """Who looks into output_dir for the vault is told where a vault lies."""
    (tmp_path / "output" / "checkpoint-40").mkdir(parents=True)
    for given in ("output", "output/checkpoint-40"):
        done = vl("ls", given, cwd=tmp_path)
        assert (done.code, "a vault lies where resume= or --vault says" in done.err) == (1, True), done.err


@pytest.mark.parametrize(
    ("names", "told"), [("ab", "2 lie in it, a, b"), ("abcde", "5 lie in it, a, b, c and 2 more")]
)
def test_the_vaults_of_a_folder_are_named(names: str, told: str, tmp_path: Path) -> None:
    """A folder that holds several vaults is none itself: who names it is told which lie in it."""
    for name in names:
        train(tmp_path / "runs" / name, tmp_path / name, 1)
    done = vl("ls", str(tmp_path / "runs"))
    assert (done.code, f"no vault at file://{tmp_path}/runs yet: {told}\n" in done.err) == (1, True), done.err


def test_a_script_that_was_never_run_is_told_so(tmp_path: Path) -> None:
    """`vl status train.py` ahead of the first run isn't taken for a vault of that name."""
    (tmp_path / "train.py").write_text("")
    done = vl("status", "train.py", cwd=tmp_path)
    assert (done.code, "no run of train.py was started yet: `vl run train.py`" in done.err) == (1, True), (
        done.err
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [("pyhton train.py", "did you mean python?"), ("scripts", "scripts is a folder: name the script in it")],
)
def test_a_mistyped_program_is_refused_before_anything_is_made(
    command: str, said: str, tmp_path: Path
) -> None:
    """What can't be started leaves no run folder behind."""
    (tmp_path / "scripts").mkdir()
    done = vl("run", "--", *command.split(), cwd=tmp_path)
    assert (done.code, said in done.err) == (2, True), done.err
    assert not (tmp_path / ".vl").exists()


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("train.py --vault s3://b/x", "", "vl run --vault s3://b/x -- train.py"),
        ("python train.py --vault=s3://b/x --lr 1", "", "vl run --vault=s3://b/x -- python train.py --lr 1"),
        ("python train.py --no-spare", "", "vl run --no-spare -- python train.py"),
        ("python train.py --vault x", "parser.add_argument('--vault')", ""),
        ("python train.py --vault x", "vault: str = 'x'", ""),
        ("python --vault train.py --lr 1", "", ""),
    ],
)
def test_an_option_after_the_script_is_said_to_be_the_scripts(
    command: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names the vault after the script is told that vl run doesn't read it; a script's own option is left alone."""
    (tmp_path / "train.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    found = misplaced(command.split())
    assert found.endswith(said) if said else found == ""


def test_a_vault_is_not_copied_among_other_files(trained: Path, tmp_path: Path) -> None:
    """As a vault doesn't begin among a person's files, no copy of one does."""
    (tmp_path / "notes.txt").write_text("mine")
    done = vl("copy", str(trained), str(tmp_path))
    assert (done.code, "holds other files (notes.txt)" in done.err) == (2, True), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interrupted_pull_says_that_it_goes_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends a command with one line and 130; a copy says that it isn't begun anew."""

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vaultlayer_hf.vault.reader.vault.Vault.pull", interrupt)
    done = CliRunner().invoke(app, ["pull", str(trained), str(tmp_path / "copy")])
    assert (done.exit_code, done.stderr) == (
        130,
        "vl: interrupted: the same command goes on where it was\n",
    )


def test_prune_takes_none(trained: Path) -> None:
    """As the setting does; anything else that is no number is refused."""
    found = vl("prune", str(trained), "--dry-run", "--keep-last", "none", "--json").json()
    assert found["policy"]["keep_last"] is None
    assert all(item["keep"] for item in found["checkpoints"])
    for wrong in ("0", "some"):
        done = vl("prune", str(trained), "--dry-run", "--keep-last", wrong)
        assert (done.code, f"--keep-last '{wrong}'" in done.err) == (2, True)


def test_a_reader_that_leaves_ends_it_quietly(trained: Path) -> None:
    """`vl ls | head -c0` says nothing, as a program that SIGPIPE ends."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "vaultlayer_hf.cli", "ls", str(trained), "--json"],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_pull_names_the_folder_that_cannot_be_written(trained: Path) -> None:
    """Not a hidden file that nobody has asked for."""
    done = vl("pull", f"{trained}@40", "/proc/checkpoint")
    assert done.code == 1
    assert "/proc/checkpoint can't be written" in done.err
    assert "part" not in done.err


def test_init_of_a_notebook_names_the_vault(tmp_path: Path) -> None:
    """The lines to add by hand are lines that can be added."""
    (tmp_path / "train.ipynb").write_text(json.dumps({"cells": []}))
    done = vl("init", "train.ipynb", "--vault", "s3://bucket/run", cwd=tmp_path)
    assert 'resume="s3://bucket/run",' in done.out
    assert "{" not in done.out


def test_doctor_asks_for_what_the_package_asks_for() -> None:
    """The versions that its metadata states, of every dependency: one that is too old, too new or missing is bad."""
    found = list(
        check_libraries(["torch>=99", "transformers<1", "no-such-library>=1", 'tqdm>=99; extra == "demo"'])
    )
    assert [(item.state, item.text.split()[0]) for item in found[:-1]] == [
        ("bad", "torch"), ("bad", "transformers"), ("bad", "no-such-library"),
    ]  # fmt: skip
    assert found[0].fix == "pip install 'torch>=99'"
    (own,) = check_libraries()
    assert own.state == "ok"
    for name in ("torch", "transformers", "accelerate", "obstore", "blake3", "typer"):
        assert f"{name} " in own.text


def test_figures_that_a_vault_alone_cannot_tell_are_not_known() -> None:
    """Of two claims and no journal: steps that were trained twice aren't 0, but not known, and so is what follows."""

    claims = [
        Entry(number, "claim", "w", number, f"2026-01-01T00:00:0{number}.000Z", {}, VaultState("w", number))
        for number in (1, 2)
    ]
    story = assemble([], {}, {}, claims, vault="v", alive=False, now=9e9)
    assert (story.lost_steps, story.exposure, story.goodput) == (None, None, None)
    found = describe(story)
    told = dict(facts(found))
    assert [name for name, text in told.items() if text == "not known"] == [
        "exposure",
        "lost work",
        "goodput",
    ]
    assert " ".join([headline(found), *told.values()]).count("journal") == 1
    told = dict(facts({**found, "state": "finished", "reason": "the run finished at step 8"}))
    assert " ".join(told.values()).count("journal") == 1


def test_the_last_commit_may_be_from_before_the_run() -> None:
    """Where this `vl run` has committed nothing, the vault's newest checkpoint is named, and not none."""
    state = VaultState("w", 1, (Commit(2, 1, 40, 40, "data/1/checkpoint-40", "", 1, 1, "blake3:0", 100),))
    commit = Entry(2, "commit", "w", 1, "2026-01-01T00:00:02.000Z", {}, state)
    lines = [
        {"kind": kind, "run": "r", "attempt": 1, "time": 2e9, "host": "h"} for kind in ("begin", "start")
    ]
    found = describe(assemble(lines, {}, {}, [commit], vault="v", alive=False, now=2e9 + 1))
    assert (found["last_commit_step"], found["commits"]) == (40, 0)
    assert "step 40, 2026-01-01 00:00:02 (UTC); from before this run" in dict(facts(found))["last commit"]


def test_latest_means_that_one_alone(trained: Path) -> None:
    """VAULT@latest is the newest checkpoint, to ls and verify as to the others."""
    assert [item["step"] for item in vl("ls", f"{trained}@latest", "--json").json()["checkpoints"]] == [60]
    assert vl("verify", f"{trained}@latest").out.startswith("step 60: ok")


def test_a_narrow_terminal_shows_whole_columns(trained: Path) -> None:
    """At 40 columns `vl ls` leaves columns out rather than cut each one short."""
    out = vl("ls", str(trained), COLUMNS="40").out.splitlines()
    assert out[0].split() == ["step", "when", "(UTC)", "state"]
    assert all("…" not in line and len(line) <= 40 for line in out)
    assert out[3].split()[0] == "60"
    assert vl("ls", str(trained), COLUMNS="60").out.splitlines()[0].split()[-2:] == ["size", "state"]


@pytest.mark.parametrize("command", ["status", "show", "why", "logs", "prune --dry-run", "ls --metrics"])
@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_table_is_cut_short(command: str, columns: int, trained: Path) -> None:
    """However narrow the terminal, nothing is left out of a cell: columns go, or each row becomes lines of its own."""
    name, *options = command.split()
    done = vl(name, str(trained), *options, COLUMNS=str(columns))
    lines = done.out.splitlines()
    assert done.code == 0, done.err
    assert "…" not in re.sub(r"[0-9a-f]{12}…", "", done.out), "digests are shown short"
    assert all(len(line) <= columns for line in lines if "   " in line.strip()), (
        "prose is wrapped by the terminal"
    )


def test_a_pipe_has_no_width(monkeypatch, capsys) -> None:
    """Where no terminal shows it, a row is one line, so that grep finds what stands in one cell."""
    monkeypatch.delenv("COLUMNS", raising=False)
    cell = "step 100: 11 files in data/4/checkpoint-100; " * 4 + "the end"
    print_table(("entry", "what"), [("1", cell)], fold=(1,))
    assert capsys.readouterr().out.splitlines()[1].split(maxsplit=1) == ["1", cell]


def test_status_in_a_narrow_terminal_shows_how_each_attempt_ended(tmp_path: Path) -> None:
    """At 40 columns each attempt is a block of lines, at 60 what matters least is left out."""
    run, _ = a_run(tmp_path)
    narrow = [line.split() for line in vl("status", str(run), COLUMNS="40").out.splitlines()]
    first = narrow.index(["attempt", "1"])
    assert ["to", "step", "430"] in narrow[first : first + 6]
    assert ["ended", "killed:", "rank", "0", "was"] in narrow[first : first + 6]
    between = next(
        line for line in vl("status", str(run), COLUMNS="60").out.splitlines() if "attempt" in line
    )
    assert between.split() == ["attempt", "from", "to", "step", "ended"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("2min", 120.0), ("1.5 h", 5400.0), (300.0, 300.0)]
)
def test_a_time_is_a_number_or_a_span(text: str | float, seconds: float) -> None:
    """Options that are times take a number of seconds, or text such as 2min."""
    assert span("--grace")(text) == seconds
    for wrong in ("long", "-1", "nan", "inf", "3 steps"):
        with pytest.raises(typer.BadParameter):
            span("--grace")(wrong)
    with pytest.raises(typer.BadParameter, match="too short"):
        span("--hang-after", 0.1)("0")


def test_a_time_between_saves_has_its_unit() -> None:
    """A bare number is a step in `save_every` and a second in other options: `vl doctor --save-every` takes none."""
    read = span("--save-every", 0.5, bare=False)
    assert read("20min") == read(1200.0) == 1200.0
    for bare in ("20", "200 steps"):
        with pytest.raises(typer.BadParameter, match="a time with its unit, such as 20min"):
            read(bare)


def test_in_a_terminal_a_finding_stands_beside_its_mark(tmp_path: Path) -> None:
    """What doctor finds, and what `vl` alone says, isn't broken within words; NO_COLOR takes its colours away."""
    terminal = {"COLUMNS": "60", "FORCE_COLOR": "1", "NO_COLOR": ""}
    coloured = vl("doctor", str(tmp_path / "vault"), **terminal).out
    lines = re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert len(lines) > 12
    assert all(line[:8] in ("ok      ", "WARNING ", "BAD     ", " " * 8) for line in lines)
    assert "\x1b[32mok" in coloured
    assert "\x1b[3" not in vl("doctor", str(tmp_path / "vault"), **{**terminal, "NO_COLOR": "1"}).out
    for columns in ("36", "80"):
        words = vl(cwd=tmp_path, **{**terminal, "COLUMNS": columns}).out
        assert all(len(line) <= int(columns) for line in words.splitlines())
        assert "vl doctor s3://bucket/my-run" in words
        assert "first run" in " ".join(words.split())
    piped = vl("doctor", str(tmp_path / "vault")).out.splitlines()
    assert {line[:8] for line in piped if "fix:" not in line} <= {"ok      ", "WARNING "}  # one line each


def test_the_folder_of_a_run_is_no_vault_and_names_its_own(tmp_path: Path) -> None:
    """`vl ls .vl` is answered with the vault of that run."""
    run, vault = a_run(tmp_path)
    for folder in (run, run.parent):
        done = vl("ls", str(folder))
        assert (done.code, f"the run that was started there is file://{vault}" in done.err) == (1, True), (
            done.err
        )
