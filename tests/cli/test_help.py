"""The command line's manners: help, completion, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from vaultlayer_hf import errors
from vaultlayer_hf.cli import app
from vaultlayer_hf.cli.common import EXIT_CODES, ExitCode, exit_code

from .conftest import vl
from .stories import a_run


def test_help_loads_nothing_heavy() -> None:
    """`vl --help` answers at once because it loads no torch, no transformers and no store's library."""
    code = (
        "import sys, json\nfrom vaultlayer_hf.cli import main\nsys.argv = ['vl', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}
    assert "verify" in done.stdout
    assert not loaded & {"torch", "transformers", "accelerate", "obstore", "numpy"}


@pytest.mark.parametrize("command", [item.callback.__name__ for item in app.registered_commands])
def test_each_command_shows_an_example(command) -> None:
    """The help of every command ends in a line to copy."""
    done = vl(command, "--help")
    assert done.code == 0
    assert f"Example: vl {command} " in done.out


def test_help_lists_the_exit_codes() -> None:
    """The exit codes are documented where a person looks first."""
    text = " ".join(vl("--help").out.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{int(code)} {meaning}" in text


def test_no_command_is_a_usage_error() -> None:
    """An unknown command and a missing argument end with 2."""
    assert vl("frobnicate").code == ExitCode.USAGE
    assert vl("ls").code == ExitCode.USAGE


def test_vl_alone_says_what_to_do_next(tmp_path: Path) -> None:
    """Where nothing was started: how to start; beside a run: how to look at it. No list of all commands."""
    found = vl(cwd=tmp_path)
    assert found.code == 0
    assert "vl run train.py" in found.out
    assert "vl status" not in found.out
    assert not found.err
    a_run(tmp_path)
    assert f"vl ls file://{tmp_path}/vault" in vl(cwd=tmp_path).out


def test_the_help_is_in_groups_the_most_used_first() -> None:
    """Run, look, keep, set up; every command is in one of them, and a terminal of 80 columns holds the lines."""
    text = vl("--help", COLUMNS="80").out
    places = [text.index(f"─ {group} ─") for group in ("Run", "Look", "Keep", "Set up")]
    assert places == sorted(places)
    assert "─ Commands ─" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("columns", [40, pytest.param(80, marks=pytest.mark.slow)])
def test_no_name_of_an_option_is_cut_short(columns: int) -> None:
    """However narrow the terminal, an option stands in its command's help as it has to be typed."""
    root: Any = typer.main.get_command(app)
    for command, *parameters in [
        ("", *root.params),
        *((name, *one.params) for name, one in root.commands.items()),
    ]:
        text = vl(*command.split(), "--help", COLUMNS=str(columns)).out
        assert all(len(line) <= columns for line in text.splitlines()), command
        names = {name for one in parameters for name in one.opts if name.startswith("--")}
        assert not {name for name in names if name not in text.split() and f"{name}," not in text}, command


def test_a_usage_line_shows_arguments_as_they_are_written() -> None:
    """Brackets mean that something may be left out, and nothing else stands around an argument."""
    for command, usage in {
        "ls": "vl ls [OPTIONS] [VAULT]",
        "status": "vl status [OPTIONS] [RUN_OR_VAULT]",
        "report": "vl report [OPTIONS] [RUN_OR_VAULT]...",
        "pull": "vl pull [OPTIONS] VAULT[@STEP] [FOLDER]",
        "run": "vl run [OPTIONS] -- COMMAND...",
    }.items():
        line = next(line for line in vl(command, "--help").out.splitlines() if "Usage: " in line)
        assert line.rstrip().endswith(usage)


def test_no_colour_where_it_is_not_wanted(tmp_path: Path) -> None:
    """NO_COLOR, and an output that nobody watches, get plain text."""
    assert "\x1b[" not in vl("--help", NO_COLOR="1", FORCE_COLOR="", TERM="xterm").out
    assert "\x1b[" not in vl("ls", str(tmp_path / "x")).err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_on(shell) -> None:
    """The shell gets the commands offered."""
    done = vl("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.code == 0, done.err
    assert "complete" in done.out.lower()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.VaultUriError("x"), 2),
        (errors.SettingsError("x"), 2),
        (errors.MissingExtraError("x"), 2),
        (errors.StoreUnavailableError("read", "k", "r"), 3),
        (errors.StoreDeniedError("read", "k", "r"), 3),
        (errors.StoreFullError("write", "k", "r"), 3),
        (errors.VaultUnreachableError("x"), 3),
        (errors.VaultDeniedError("x"), 3),
        (errors.NoUsableCheckpointError("x"), 1),
        (errors.CorruptError("x"), 1),
        (errors.FencedError("x"), 4),
        (PermissionError("x"), 1),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 70),
    ],
)
def test_exit_code_by_kind(error, code) -> None:
    """Scripts can tell by the exit code whether to fix, to wait, to look or to stop."""
    assert exit_code(error) == code
