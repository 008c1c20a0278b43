"""What `vl init` would change in a script, as data: nothing is written here."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vaultlayer_hf.errors import SettingsError, VaultLayerError
from vaultlayer_hf.run.insert import loop_edits, saved_states, trainers
from vaultlayer_hf.run.insert.source import Edit, Script, split_lines
from vaultlayer_hf.run.insert.trainers import TrainerEdit
from vaultlayer_hf.stores.uri import parse_vault

Kind = Literal["trainer", "accelerate", "loop", "integrated"]
_CONTEXT = 2
"""Lines shown around a change."""


@dataclass(frozen=True)
class Hunk:
    """Neighbouring changes.

    Attributes:
        line: the first line of the script that the hunk shows, from 1.
        why: one line for each change, for the user.
        diff: the lines, each with ``-``, ``+`` or a blank before it.
    """

    line: int
    why: tuple[str, ...]
    diff: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """An edit of a script.

    Attributes:
        path: the script.
        kind: ``trainer``, ``accelerate`` or ``loop``; ``integrated`` where it uses vaultlayer_hf already.
        before, after: its bytes; the same where there is nothing to do.
        hunks: the changes, explained; none where there is nothing to do.
        remarks: what to know beside them.
        vault: the vault that is written into it; ``""``: the one that ``VAULTLAYER_VAULT`` names.
    """

    path: Path
    kind: Kind
    before: bytes
    after: bytes
    hunks: tuple[Hunk, ...] = ()
    remarks: tuple[str, ...] = ()
    vault: str = ""


@dataclass(frozen=True)
class Unrecognised:
    """A script in which nothing is changed.

    Attributes:
        path: the script.
        reason: why, as half a sentence.
        lines: what to add by hand.
        trains: whether anything in it looks like a training.
    """

    path: Path
    reason: str
    lines: tuple[str, ...]
    trains: bool = True


def propose(path: str | os.PathLike[str], vault: str | None = None) -> Proposal | Unrecognised:
    """Return what would be changed in a script, or why nothing.

    Args:
        path: the script; nothing in it is run.
        vault: URI to write into it. None: ``VAULTLAYER_VAULT`` where that is set, which is then read at each start;
            else the folder ``vaults/<name of the script>`` where it is started.

    Raises SettingsError for a file that can't be read or isn't Python, VaultUriError, MissingExtraError.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror or error}") from error
    if vault is not None:
        parse_vault(vault)
    elif not os.environ.get("VAULTLAYER_VAULT", "").strip():
        vault = f"vaults/{path.stem}"
    literal = f'"{vault}"'.replace("\\", "\\\\") if vault else ""
    if path.suffix == ".ipynb":
        lines = tuple(line.format(vault=literal or "True") for line in trainers.LINES)
        return Unrecognised(path, "it is a notebook", lines)
    script = Script(data, str(path))
    if _integrated(script):
        return Proposal(path, "integrated", data, data)
    kind, plan, lines, literal = _plan(script, literal)
    if plan.reason:
        shown = tuple(line.format(vault=literal or "None") for line in lines)
        return Unrecognised(path, plan.reason, shown, plan.trains)
    after = script.apply(plan.edits)
    try:
        compile(after, str(path), "exec", dont_inherit=True)  # a mistake: better here than in the user's run
    except (SyntaxError, ValueError) as error:
        _compile_own(data, path)
        shown = tuple(line.format(vault=literal or "None") for line in lines)
        return Unrecognised(path, f"its edit wouldn't be Python ({error})", shown)
    hunks = tuple(_hunks(script, plan.edits, after))
    return Proposal(path, kind, data, after, hunks, tuple(plan.remarks), vault or "")


def _plan(script: Script, literal: str) -> tuple[Kind, TrainerEdit, tuple[str, ...], str]:
    """Return the kind of a script, its edits, the lines for a person, and the code that names the vault in them.

    ``literal``: that code, ``""`` for the vault of the variable.
    """
    if trainers.uses_trainer(script):
        literal = literal or "True"
        return "trainer", _understood(trainers.plan_trainer, script, literal), trainers.LINES, literal
    plan = _understood(loop_edits.plan_loop, script, literal)
    if saved_states.saves_states(script):
        if plan.reason:  # its own way of resuming then, where that is exact
            own = _understood(saved_states.plan_states, script, literal)
            if not own.reason:
                return "accelerate", own, saved_states.LINES, literal
        return "accelerate", plan, loop_edits.LINES, literal
    accelerate = any(path.startswith("accelerate.") for path in script.imports.values())
    kind: Kind = "accelerate" if accelerate else "loop"
    unknown = trainers.unknown_trainer(script) if plan.reason else ""
    if unknown:
        return kind, TrainerEdit(reason=unknown), trainers.LINES, literal or "True"
    return kind, plan, loop_edits.LINES, literal


def _understood(plan: Callable[[Script, str], TrainerEdit], script: Script, literal: str) -> TrainerEdit:
    """Return a plan; of a shape of code that nobody has thought of, that it isn't understood.

    Such a script is left alone, and a run whose start has asked in passing goes on.
    """
    try:
        return plan(script, literal)
    except VaultLayerError:  # of the vault's name, or of what isn't installed: said by itself
        raise
    except Exception as error:
        logging.getLogger("vaultlayer_hf").debug("%s isn't understood", script.name, exc_info=True)
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
        return TrainerEdit(reason=f"it is written in a way that isn't understood ({where})")


def _compile_own(data: bytes, path: Path) -> None:
    """Raise SettingsError for a script that Python itself refuses, though it can be parsed."""
    try:
        compile(data, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise SettingsError(f"{path} can't be read as Python: {error}") from error


def _integrated(script: Script) -> bool:
    return any(path.split(".")[0] == "vaultlayer_hf" for path in script.imports.values())


def _hunks(script: Script, edits: list[Edit], after: bytes) -> list[Hunk]:
    old = split_lines(script.text)
    new = split_lines(after.decode(script.encoding))
    found = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(_CONTEXT):
        first, last = group[0][1], group[-1][2]
        lines = []
        for tag, old_start, old_end, new_start, new_end in group:
            if tag == "equal":
                lines += [f" {line}" for line in old[old_start:old_end]]
            else:
                lines += [f"-{line}" for line in old[old_start:old_end]]
                lines += [f"+{line}" for line in new[new_start:new_end]]
        changed = sorted(edits, key=lambda edit: edit.start)
        why = [edit.why for edit in changed if first <= script.text.count("\n", 0, edit.start) <= last]
        found.append(Hunk(first + 1, tuple(dict.fromkeys(why)), tuple(lines)))
    return found


def digest(data: bytes) -> str:
    """Return the name under which a version of a script is known."""
    return hashlib.sha256(data).hexdigest()[:12]
