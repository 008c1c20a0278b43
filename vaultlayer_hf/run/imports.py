"""The record of what an attempt's processes import, and the variables by which a spare interpreter is started.

inside/startup/sitecustomize.py writes it, into a file in memory that `vl run` holds open: values of environment
variables, which may be secrets, never come to a disk. One line for each thing noted: the process's pid, a kind and a
Python literal, separated by tabs, in ASCII.

    e    (name, value): an environment variable was changed since the line before; value None: it was deleted
    p    sys.path as it is now
    d    the working directory as it is now
    l    what else an import may ask of its process, as it is now (vaultlayer_looks.py)
    i    the name of a module whose import begins: parents before children, a module before what it imports itself
    x    the same of one that is never imported beforehand, since torch's default type or device was another then
    t    (of `vl run`, not of a process) a spare is to rest for two thirds of the time
    r    how a launcher has started this process as a rank: command, environment, cwd, surroundings
    !    why nothing more is noted: what is imported from here on can't be imported beforehand
"""

from __future__ import annotations

import ast
from typing import Any

SPARE_VARIABLE = "VAULTLAYER_RUN_SPARE"
"""Makes a Python process a spare: two descriptors, of the socket to `vl run` and of its instructions."""
IMPORTS_VARIABLE = "VAULTLAYER_RUN_IMPORTS"
"""Names the file that imports are noted in."""
RANKS_VARIABLE = "VAULTLAYER_RUN_RANKS"
"""Names the folder by which a launcher starts ranks warm (inside/startup/vaultlayer_rank.py)."""
TRIES = 4
"""Spares that may end by themselves while they import, each coming to wait before what ended the one before it."""
_OWN = "VAULTLAYER_RUN_"
_TIGHT = "VAULTLAYER_LOCAL_KEEP_LAST"
"""Set by `vl run` for attempts after a full disk; read by no module while it is imported."""

Item = tuple[str, Any]
"""A kind and what it is about."""


def is_own_variable(name: str) -> bool:
    """Tell whether `vl run` sets this variable anew for each attempt, so that it may differ."""
    return name.startswith(_OWN) or name == _TIGHT


def read_record(data: bytes, pid: int) -> list[Item]:
    """Return what a process has noted, in order, up to the first line that can't be gone beyond."""
    found: list[Item] = []
    start = f"{pid}\t"
    for line in data.decode("ascii", errors="replace").splitlines():
        if not line.startswith(start):
            continue
        try:
            _, kind, text = line.split("\t", 2)
            what = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            break
        if kind == "!":
            break
        found.append((kind, what))
    return found


def why_stopped(data: bytes, pid: int) -> str:
    """Return why a process has stopped noting what it imports; empty where it hasn't."""
    for line in data.decode("ascii", errors="replace").splitlines():
        if line.startswith(f"{pid}\t!\t"):
            try:
                return str(ast.literal_eval(line.split("\t", 2)[2]))
            except (ValueError, SyntaxError):
                return ""
    return ""


def read_rank_start(data: bytes) -> tuple[int, dict[str, Any]] | None:
    """Return the pid of the last process that a launcher has started as the first rank here, and how; None: of none."""
    for line in reversed(data.decode("ascii", errors="replace").splitlines()):
        pid, _, rest = line.partition("\t")
        if rest.startswith("r\t"):
            try:
                return int(pid), ast.literal_eval(rest[2:])
            except (ValueError, SyntaxError):
                return None
    return None
