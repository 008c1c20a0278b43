"""Write a proposal into the script and keep what it was; put that back.

    train.py.before-vl-<digest of what was written>     the script as it was, byte by byte

The backup is durable before the script changes, and the script changes at once, by a rename: whatever happens, one of
the two is whole. Its name tells what was written, so an undo knows whether somebody has edited the script since.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.insert.propose import Proposal, digest

_MARK = ".before-vl-"


def apply(proposal: Proposal) -> Path:
    """Write a proposal and return the backup.

    Raises SettingsError where the script has changed since it was read, or can't be written.
    """
    path = Path(os.path.realpath(proposal.path))
    backup = path.with_name(f"{path.name}{_MARK}{digest(proposal.after)}")
    try:
        if path.read_bytes() != proposal.before:
            raise SettingsError(f"{proposal.path} has changed since it was read: start again")
        files.write_file(backup, proposal.before, like=path)
        files.write_file(path, proposal.after, like=path)
    except OSError as error:
        raise SettingsError(f"{proposal.path} can't be edited: {error.strerror or error}") from error
    return backup


def undo(path: str | os.PathLike[str]) -> None:
    """Put a script back as it was before ``apply``, to the byte, and remove the backup.

    Raises SettingsError where there is no backup, or the script was edited since.
    """
    path = Path(path)
    real = Path(os.path.realpath(path))
    try:
        backup = real.with_name(f"{real.name}{_MARK}{digest(real.read_bytes())}")
        if backup.exists():
            files.rename(backup, real)
            return
        others = sorted(
            real.parent.glob(f"{_escaped(real.name)}{_MARK}*"), key=lambda one: one.stat().st_mtime
        )
    except OSError as error:
        raise SettingsError(f"{path} can't be put back: {error.strerror or error}") from error
    if others:
        # The newest is the script as it was ahead of the last vl init.
        newest = others[-1] if path.is_symlink() else path.with_name(others[-1].name)
        named = " and ".join(one.name for one in others)
        raise SettingsError(
            f"{path} was edited after vl init, which undo would lose: compare it with {named} beside it; to give that "
            f"edit up all the same: {shlex.join(['cp', str(newest), str(path)])}"
        )
    raise SettingsError(f"{path} can't be put back: vl init has left no backup of it")


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
