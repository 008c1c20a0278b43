"""Whether the hook reaches the processes of a program: known from the command line, and seen while it runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from vaultlayer_hf.run.report import ATTEMPT_VARIABLE

_PYTHON = re.compile(r"(python|pypy)[\d.]*(\.exe)?")
_VALUED = ("-W", "-X", "-Q", "--check-hash-based-pycs")


def why_unreached(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Return why a Python process started so doesn't run the hook; empty where it does, or isn't Python.

    ``environment`` is its own; None where it isn't known.
    """
    if not command or not _PYTHON.fullmatch(Path(command[0]).name):
        return ""
    flag = _isolating(command[1:])
    if flag:
        return f"Python's option -{flag} keeps PYTHONPATH's sitecustomize out: leave it away"
    if environment is not None and ATTEMPT_VARIABLE not in environment:
        return (
            "it was started with an environment of its own: pass the VAULTLAYER_* variables and PYTHONPATH on"
        )
    if environment is not None and str(STARTUP) not in environment.get("PYTHONPATH", "").split(":"):
        return f"its PYTHONPATH has lost {STARTUP}: put what is added before it, not in its place"
    return ""


def is_python(program: str) -> bool:
    """Tell whether a program is Python, or a script whose first line names it."""
    found = shutil.which(program)
    if found is None:
        return False
    if _PYTHON.fullmatch(Path(program).name):
        return True
    try:
        with open(found, "rb") as file:
            first = file.readline(200).decode(errors="replace").split()
    except OSError:
        return False
    names = (
        [Path(word.lstrip("#!")).name for word in first[:2]] if first and first[0].startswith("#!") else []
    )
    return any(_PYTHON.fullmatch(name) for name in names)


STARTUP = Path(__file__).parents[1] / "inside" / "startup"
"""The folder that holds the hook."""


def _isolating(arguments: Sequence[str]) -> str:
    """Return the first of Python's own options I, E and S among these arguments."""
    skip = False
    for argument in arguments:
        if skip:
            skip = False
            continue
        if not argument.startswith("-") or argument in ("-", "-c", "-m") or argument.startswith("--"):
            return ""
        if argument in _VALUED:
            skip = True
            continue
        for letter in argument[1:]:
            if letter in "IES":
                return letter
            if letter in "cmWX":
                return ""
    return ""


class Lookout:
    """Looks through a program's processes for those that train and that the hook doesn't reach."""

    def __init__(self) -> None:
        # How often, by pid: at the first time it may not have become its program yet.
        self._sighted: dict[int, int] = {}
        self._suspects: dict[int, str] = {}

    def look(self, processes: Sequence[psutil.Process]) -> list[str]:
        """Return a sentence for each newly found process that has torch loaded and runs without the hook."""
        found = []
        for one in processes:
            sighted = self._sighted[one.pid] = self._sighted.get(one.pid, 0) + 1
            if sighted == 2:
                try:
                    reason = why_unreached(one.cmdline(), one.environ())
                except (psutil.Error, OSError):
                    continue
                if reason:
                    self._suspects[one.pid] = reason
            if one.pid in self._suspects and _has_torch(one.pid):
                reason = self._suspects.pop(one.pid)
                found.append(
                    f"process {one.pid} uses torch and can't be reached, so nothing of it is kept: {reason}"
                )
        return found


def _has_torch(pid: int) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
