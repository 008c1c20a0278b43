"""Processes that can die at any operation of their store; for the state machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.vault.tools import Run
from vaultlayer_hf.errors import StoreUnavailableError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.testing.model import Saved
from vaultlayer_hf.vault.keys import LOG
from vaultlayer_hf.vault.snapshot import Snapshot
from vaultlayer_hf.vault.upload.sending import Transfer


class Died(BaseException):
    """What a killed process raises here: nothing catches it, and its store answers nothing any more."""


@dataclass(frozen=True)
class Mishap:
    """What goes wrong in a step.

    Attributes:
        kind: ``none``; ``die``: the process is killed; ``intrude``: another process starts in between; ``pin``:
            somebody pins the oldest checkpoint in between, or lets it go; or what happens to the creation of the
            next log entry: ``lost`` is its answer, ``refused`` is the request,
            ``held`` is the request, until much later, ``echo``: the client repeats it.
        countdown: at which operation of the store, from 1; for the first three.
        moment: ``before`` or ``after`` that operation.
        host: where the other process starts.
    """

    kind: str = "none"
    countdown: int = 1
    moment: str = "before"
    host: str = ""


@dataclass
class Draft:
    """A save that is carried by hand, step by step."""

    snapshot: Snapshot
    transfer: Transfer


class ProcessStore(FaultStore):
    """The vault as one process sees it; ``guard`` looks at every operation before it is made."""

    def __init__(self, inner: Store, guard: Callable[[str, str], None]) -> None:
        super().__init__(inner, self._at)
        self.dead = False
        self.held: list[tuple[str, bytes]] = []
        self._guard = guard
        self._countdown: int | None = None
        self._moment = "before"
        self._action: Callable[[], None] = self.die
        self._trouble: str | None = None
        self._counting = threading.Lock()

    def die(self) -> None:
        """Kill the process."""
        self.dead = True
        raise Died

    def arm(self, mishap: Mishap, intrude: Callable[[Mishap], None]) -> None:
        """Let a mishap happen."""
        self.disarm()
        if mishap.kind in ("die", "intrude", "pin"):
            self._countdown, self._moment = mishap.countdown, mishap.moment
            self._action = self.die if mishap.kind == "die" else lambda: intrude(mishap)
        elif mishap.kind != "none":
            self._trouble = mishap.kind

    def disarm(self) -> None:
        """Let nothing more go wrong."""
        self._countdown = self._trouble = None

    def create(self, key: str, data: bytes) -> None:
        if not key.startswith(LOG) or self._trouble is None:
            super().create(key, data)
            return
        trouble, self._trouble = self._trouble, None
        if trouble in ("lost", "echo"):
            super().create(key, data)
        if trouble == "echo":
            super().create(key, data)
            return
        if trouble == "held":
            self.held.append((key, data))
        raise StoreUnavailableError("create", key, trouble)

    def _at(self, operation: Operation) -> Fault | None:
        if self.dead:
            raise Died
        self._guard(operation.name, operation.key)
        with self._counting:
            if self._countdown is None:
                return None
            self._countdown -= 1
            if self._countdown > 0:
                return None
            self._countdown = None
        act = self._action
        return Fault(before=lambda _: act()) if self._moment == "before" else Fault(after=lambda _: act())


@dataclass
class Process:
    """A process that trains on the vault.

    Attributes:
        number: which one, from 1.
        host: whose disk it has.
        run: its session.
        store: the vault as it sees it.
        asked: the step that it was asked to go on from.
        token: its claim; None before.
        origin: number of the commit that it goes on from.
        step: of its last save.
        before, restored, snapshot: the newest checkpoint before its claim, and what it must go on from.
        drafts: saves that are carried by hand.
    """

    number: int
    host: str
    run: Run
    store: ProcessStore
    asked: int | None = None
    token: int | None = None
    origin: int | None = None
    step: int = 0
    before: Saved | None = None
    restored: Saved | None = None
    snapshot: dict[str, bytes] | None = None
    drafts: list[Draft] = field(default_factory=list)

    @property
    def writer(self) -> Any:
        """Its claim; None before it has one."""
        return self.run.session.writer

    @property
    def claim(self) -> int:
        """Its token. Only after its claim."""
        assert self.token is not None
        return self.token
