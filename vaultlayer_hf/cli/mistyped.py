"""What was mistyped in the command of `vl run` is refused, before anything is made for it."""

from __future__ import annotations

import difflib
import os
import shutil

from vaultlayer_hf.cli.common import ExitCode, fail

_PROGRAMS = (
    "python",
    "python3",
    "torchrun",
    "accelerate",
    "deepspeed",
    "bash",
    "axolotl",
    "llamafactory-cli",
)
"""What people mean when they mistype the first word of a command."""


def check_named(command: list[str]) -> None:
    """Refuse a script or notebook that isn't there, before anything is made for it. Raises typer.Exit."""
    from vaultlayer_hf.run.program import SCRIPTS, script_of

    named = command[1] if os.path.basename(command[0]).startswith("python") and command[1:] else command[0]
    if not named.endswith(SCRIPTS) or os.path.exists(named) or script_of(command) is not None:
        return _check_program(command[0])
    folder, name = os.path.split(named)
    there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    near = difflib.get_close_matches(name, [one for one in there if one.endswith(SCRIPTS)], n=1)
    meant = f": did you mean {os.path.join(folder, near[0])}?" if near else f" (here: {os.getcwd()})"
    raise fail(ExitCode.USAGE, f"there is no file {named}{meant}")


def _check_program(program: str) -> None:
    """Refuse a folder, and a mistyped name of a program that starts trainings. Raises typer.Exit."""
    if os.path.isdir(program):
        raise fail(ExitCode.USAGE, f"{program} is a folder: name the script in it, as in vl run train.py")
    near = difflib.get_close_matches(program, _PROGRAMS, n=1)
    if near and program not in _PROGRAMS and shutil.which(program) is None:
        raise fail(ExitCode.USAGE, f"there is no program {program}: did you mean {near[0]}?")
