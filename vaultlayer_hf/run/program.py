"""What a command line runs: its script or module, and how it is started."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from vaultlayer_hf.errors import MissingExtraError

SCRIPTS = (".py", ".ipynb", ".sh")
"""Suffixes by which a script is known."""
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "ash", "fish")


def script_of(command: Sequence[str]) -> Path | None:
    """Return the script or notebook that a command runs, whatever launcher stands before it; None: a module."""
    for word in command:
        if word.endswith(SCRIPTS) and os.path.isfile(word):
            return Path(word)
    return None


def program_of(command: Sequence[str]) -> str:
    """Return what a command runs, without its arguments: the script's path, the module of ``-m``, else the command."""
    script = script_of(command)
    if script is not None:
        return str(script.absolute())
    if "-m" in command[:-1]:
        return command[list(command).index("-m") + 1]
    return shlex.join(command)


def runs_in_shell(command: Sequence[str]) -> bool:
    """Tell whether a shell stands between a command and the Python that it starts, whose exit code may get lost there.

    Such as `bash -c 'python train.py | tee log'`, or a script of commands without `set -e`.
    """
    for word in command:
        name = os.path.basename(word)
        if name in _SHELLS or name.endswith(".sh"):
            return True
        if name.startswith("python") or name.endswith((".py", ".ipynb")):
            return False
    try:
        with open(shutil.which(command[0]) or command[0], "rb") as file:
            first = file.read(128).partition(b"\n")[0]
    except OSError:
        return False
    return first.startswith(b"#!") and any(
        os.path.basename(word) in _SHELLS for word in os.fsdecode(first[2:]).split()
    )


def other_python(command: Sequence[str]) -> str | None:
    """Return the Python that a command starts, where it is of another environment than this one; None otherwise."""
    named = command[0]
    found = shutil.which(named) if os.path.basename(named).startswith("python") else None
    if found is None or os.path.realpath(os.path.dirname(found)) == os.path.realpath(
        os.path.dirname(sys.executable)
    ):
        return None
    return found


def as_program(command: Sequence[str]) -> list[str]:
    """Return a command as it can be started: a notebook by what runs it, a bare Python script by this Python.

    A script that is executable and named by a path is left as it is: it may ask for a Python of its own. Raises
    MissingExtraError where a notebook is named and nbclient isn't there.
    """
    named = command[0]
    if len(command) == 1 and named.endswith(".ipynb"):
        try:
            import ipykernel  # noqa: F401
            import nbclient  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(
                "a notebook needs nbclient and ipykernel: pip install 'vaultlayer-hf[notebook]'"
            ) from error
        return [sys.executable, "-m", "vaultlayer_hf.run.notebook", named]
    starts_itself = os.sep in named and os.access(named, os.X_OK)
    if named.endswith(".py") and os.path.isfile(named) and not starts_itself:
        return [sys.executable, *command]
    return list(command)
