"""State outside the model that is carried with each checkpoint: what a script adds, and what is known of its Trainer.

checkpoint-500/vaultlayer_added/<name>.pt         by rank 0, for all ranks: an EMA, a loss with weights of its own
checkpoint-500/vaultlayer_added/<name>.<rank>.pt  by each rank, for itself: a buffer of what it has seen
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.data.placed import in_doubt, keeps_place, load_place
from vaultlayer_hf.state.object_files import check_stateful, load_plain, peeled, read_state, write_state

FOLDER = "vaultlayer_added"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Added:
    """One object whose state is carried.

    Attributes:
        name: of its file.
        thing: has ``state_dict`` and ``load_state_dict``.
        each_rank: whether each rank has a state of its own, and not that of rank 0.
    """

    name: str
    thing: Any
    each_rank: bool = False

    def path(self, rank: int) -> str:
        """Return the path of its file in a checkpoint folder."""
        return f"{FOLDER}/{self.name}.{rank}.pt" if self.each_rank else f"{FOLDER}/{self.name}.pt"

    def write(self, folder: Path, rank: int, world_size: int) -> None:
        """Write its state, where this rank does. Raises what the object raises, and OSError."""
        if rank and not self.each_rank:
            return
        file = folder / self.path(rank)
        file.parent.mkdir(parents=True, exist_ok=True)
        state = _inner(self.thing).state_dict()
        write_state(file, {"world_size": world_size, "state": state} if self.each_rank else state)

    def read(self, folder: Path, rank: int, world_size: int, doubts: list[str]) -> bool:
        """Load its state; return whether there is one for this rank of so many. Raises ResumeError.

        ``doubts`` gets what speaks against the numbers of an unbroken run all the same, in words.
        """
        if not (folder / self.path(rank)).is_file():
            return False
        state = read_state(folder / self.path(rank))
        if self.each_rank:
            if state["world_size"] != world_size:
                return False
            state = state["state"]
        inner = _inner(self.thing)
        try:
            if isinstance(inner, torch.nn.Module):
                load_plain(inner, state)
            elif keeps_place(inner):
                doubts += [f"{self.name}: {words}" for words in load_place(inner, state)]
            else:
                inner.load_state_dict(state)
        except Exception as error:  # the object is the script's own: it raises what it likes
            what = f"{type(error).__name__}: {error}"
            raise ResumeError(f"{self.path(rank)} of {folder.name} can't be loaded: {what}") from error
        return True


class AddedObjects:
    """What a script has added, by name.

    added = AddedObjects()
    added.add("ema", ema)
    save_added(folder, session, added)
    """

    def __init__(self) -> None:
        self._things: dict[str, Added] = {}

    def __iter__(self) -> Iterator[Added]:
        return iter(self._things.values())

    def add(self, name: str, thing: Any, *, each_rank: bool = False) -> None:
        """Take one more object in; None is nothing. Raises SettingsError."""
        if thing is None:
            return
        if not _NAME.fullmatch(name):
            raise SettingsError(f"add({name!r}): use letters, digits, '-' and '_'")
        if name in self._things:
            raise SettingsError(f"add({name!r}): there is something of this name already")
        check_stateful(name, thing)
        self._things[name] = Added(name, thing, each_rank)


class WithoutVault:
    """What ``trainer.vault`` is of a Trainer without a vault: whatever is added goes nowhere."""

    def __bool__(self) -> bool:
        return False

    def add(self, name: str, thing: Any, *, each_rank: bool = False) -> None:
        """Do nothing."""


def paths_of(added: Iterable[Added], world_size: int) -> list[str]:
    """Return the files of a checkpoint that hold these objects' state."""
    return [one.path(rank) for one in added for rank in range(world_size if one.each_rank else 1)]


def save_added(folder: Path, session: Session, added: Iterable[Added]) -> None:
    """Write this rank's files. All ranks. Never raises: a checkpoint that lacks one isn't committed."""
    for one in added:
        try:
            one.write(folder, session.ranks.rank, session.ranks.world_size)
        except Exception as error:  # whatever the object of a script raises, or a full disk
            session.events.warn_once(
                f"added {one.name}",
                EventKind.TROUBLE,
                f"{folder.name}: the state of {one.name!r}, which was added, can't be written: "
                f"{type(error).__name__}: {error}",
            )


def load_added(folder: Path, session: Session, added: Iterable[Added]) -> None:
    """Load what a checkpoint folder holds of these objects, and say what it holds nothing of. All ranks.

    Raises, on all ranks, ResumeError and RanksError.
    """
    ranks, here = session.ranks, list(added)
    lacking: list[str] = []
    doubts: list[str] = []

    def load() -> None:
        lacking.extend(one.name for one in here if not one.read(folder, ranks.rank, ranks.world_size, doubts))

    ranks.on_every_rank(load)
    if doubts:
        session.warn_all(EventKind.INEXACT, in_doubt(doubts))
    names = {one.name for one in here}
    held = {path.name.split(".")[0] for path in (folder / FOLDER).glob("*.pt")}
    if lacking:
        with_vault = any(folder.glob("vaultlayer_*"))
        why = "it was added later, or another number of ranks has saved it"
        session.warn_all(
            EventKind.INEXACT,
            f"{folder.name} holds nothing of {', '.join(lacking)} for this rank, so that begins as it is now, and the "
            f"numbers may differ: {why if with_vault else 'the checkpoint was saved without a vault'}",
        )
    if held - names:
        session.warn_all(
            EventKind.INEXACT,
            f"{folder.name} holds the state of {', '.join(sorted(held - names))}, which nothing takes now: add it "
            "ahead of train(), as when it was saved",
        )


def _inner(thing: Any) -> Any:
    return peeled(thing) if isinstance(thing, torch.nn.Module) else thing
