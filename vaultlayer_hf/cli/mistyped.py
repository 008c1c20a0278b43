"""A script or program whose name was mistyped is refused, before anything is made for it."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil

import typer

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

_FLAGS = ("--no-insert", "--no-spare", "--dry-run")
_OPTIONS = ("--vault", "--on", "--hang-after", "--give-up-after", "--walk-back", "--engine-option", *_FLAGS)
"""Options of `vl run` that scripts seldom have: written after the script, they were most likely meant for `vl run`."""


def check_named(command: list[str], *, elsewhere: bool = False) -> None:
    """Refuse a script, notebook or program that isn't there, before anything is made for it. Raises typer.Exit.

    ``elsewhere``: the command runs on other machines, which may have programs that this one lacks.
    """
    from vaultlayer_hf.run.program import SCRIPTS, script_of

    named = command[1] if os.path.basename(command[0]).startswith("python") and command[1:] else command[0]
    if not named.endswith(SCRIPTS) or os.path.exists(named) or script_of(command) is not None:
        return _check_program(command[0], elsewhere)
    raise no_file(named, SCRIPTS)


def misplaced(command: list[str]) -> str:
    """Return what to say of an option of `vl run` after the script, which gets it; empty where there is none.

    A script that has an option of that name itself is left alone.
    """
    from vaultlayer_hf.run.program import script_of

    script = script_of(command)
    if script is None:
        return ""
    at = command.index(str(script)) + 1 if str(script) in command else len(command)
    for place, word in enumerate(command[at:], at):
        option, _, value = word.partition("=")
        if option not in _OPTIONS or _has_option(script, option):
            continue
        words = [word] if value or option in _FLAGS else command[place : place + 2]
        rest = [*command[:place], *command[place + len(words) :]]
        return (
            f"{shlex.join(words)} comes after {script}, so {script} gets it, and vl run doesn't read it. If it was "
            f"meant for vl run, stop this, and write it first: vl run {shlex.join(words)} -- {shlex.join(rest)}"
        )
    return ""


def _has_option(script: os.PathLike[str], option: str) -> bool:
    name = option.removeprefix("--").replace("-", "[-_]")
    try:
        with open(script, encoding="utf-8", errors="replace") as file:
            return re.search(rf"--{name}\b|\b{name}\b\s*[:=]", file.read()) is not None
    except OSError:
        return True


def no_file(named: str, endings: str | tuple[str, ...]) -> typer.Exit:
    """Say that a file isn't there, with one beside it that may have been meant; return what to raise.

    ``endings``: how the names of such files end.
    """
    folder, name = os.path.split(named)
    there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    stems = {os.path.splitext(one)[0]: one for one in there if one.endswith(endings)}
    # Without their endings, which would make any two short names alike.
    near = difflib.get_close_matches(os.path.splitext(name)[0], list(stems), n=1)
    meant = f": did you mean {os.path.join(folder, stems[near[0]])}?" if near else f" (here: {os.getcwd()})"
    return fail(ExitCode.USAGE, f"there is no file {named}{meant}")


def _check_program(program: str, elsewhere: bool) -> None:
    """Refuse a folder, and a program that isn't there. Raises typer.Exit."""
    from vaultlayer_hf.run.program import SCRIPTS

    if os.path.isdir(program):
        raise fail(ExitCode.USAGE, f"{program} is a folder: name the script in it, as in vl run train.py")
    if shutil.which(program) is not None or os.path.exists(program):
        return
    scripts = [f"{program}{ending}" for ending in SCRIPTS if os.path.isfile(f"{program}{ending}")]
    near = scripts or difflib.get_close_matches(program, _PROGRAMS, n=1)
    near = [one for one in near if one != program]
    if elsewhere and not near:
        return
    raise fail(
        ExitCode.USAGE, f"there is no program {program}" + (f": did you mean {near[0]}?" if near else "")
    )
