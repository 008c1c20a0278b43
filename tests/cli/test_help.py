"""The command line's manners: help, completion, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vaultlayer_hf import errors
from vaultlayer_hf.cli import app
from vaultlayer_hf.cli.common import EXIT_CODES, ExitCode, exit_code

from .conftest import vl


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
    """`vl` alone, an unknown command and a missing argument end with 2."""
    assert vl("frobnicate").code == ExitCode.USAGE
    assert vl("ls").code == ExitCode.USAGE
    assert "Usage" in vl().out + vl().err


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
