"""A case: something that real scripts do around a resume, what is right then, and how it is tried."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.forks import ForkServer

Side = Literal["stock", "ours"]
_LIMIT = 240.0
"""Seconds that one process of a case has."""


@dataclass(frozen=True)
class Played:
    """How a process of a case ended.

    Attributes:
        code: its exit status; minus the signal's number where a signal ended it.
        found: what it told last by ``tell``; None: nothing.
        log: what it wrote to stderr.
    """

    code: int
    found: Any
    log: str

    def said(self, *words: str) -> list[str]:
        """Return the lines of this package's log that hold one of these words."""
        lines = [line for line in self.log.splitlines() if "[vaultlayer]" in line]
        return [line for line in lines if any(word in line for word in words)]

    @property
    def last(self) -> str:
        """The last line of the log: of a failure, its error."""
        return (self.log.strip().splitlines() or ["nothing was logged"])[-1]


@dataclass(frozen=True)
class Verdict:
    """What became of a case on one side.

    Attributes:
        right: whether it is what the case calls right; None where the side has nothing like it.
        figures: what was found, in one line.
    """

    right: bool | None
    figures: str


NOTHING = Verdict(None, "has nothing like it")


class Bench:
    """Where one side of a case is tried: a folder of its own, and processes of their own.

    Args:
        side: ``ours``, or ``stock``, which goes on from what ``get_last_checkpoint`` finds on the same disk.
        folder: an empty one.
        forks: starts the processes.
    """

    def __init__(self, side: Side, folder: Path, forks: ForkServer) -> None:
        self.side, self.folder, self._forks = side, folder, forks
        self._count = 0

    @property
    def ours(self) -> bool:
        """Whether this package is tried, and not stock."""
        return self.side == "ours"

    @property
    def vault(self) -> str:
        """The vault of the case's run."""
        return str(self.folder / "vault")

    def play(
        self,
        program: Callable[..., None],
        out: str = "a",
        *,
        vault_at: str = "vault",
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Played:
        """Call a program of a case in a process of its own, and wait for its end.

        It is called with ``side``, ``out``, ``vault`` and the options. ``out``: ``"b"`` is another, empty disk for
        ours, and the same for stock, which has nothing elsewhere; ``"unbroken"`` has no vault. ``vault_at``: where the
        vault is, in this folder.
        """
        self._count += 1
        place = "a" if out == "b" and not self.ours else out
        given = {
            "side": self.side,
            "out": str(self.folder / place),
            "vault": None if out == "unbroken" or not self.ours else str(self.folder / vault_at),
            **options,
        }
        name = f"{program.__module__}:{program.__name__}"
        log = self.folder / f"log-{self._count}"
        environment = {"VAULTLAYER_NOTICES": "none", **(env or {})}
        done = self._forks.start(name, given, log, env=environment).wait(_LIMIT)
        told = [line[5:] for line in done.output.splitlines() if line.startswith("TOLD ")]
        return Played(done.code, json.loads(told[-1]) if told else None, done.errors)


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: short, with dashes.
        what: what happens, in one sentence.
        right: what is right then.
        run: tries it on a bench.
        quick: whether it takes few seconds, and needs nothing but what the tests need anyhow.
        needs: modules that must be installed.
        open: why ours isn't expected to pass; empty where it is.
    """

    name: str
    what: str
    right: str
    run: Callable[[Bench], Verdict]
    quick: bool = True
    needs: tuple[str, ...] = ()
    open: str = ""


CASES: dict[str, Case] = {}
"""Every case, by name; the modules of this folder add theirs."""


def case(
    name: str, what: str, right: str, **more: Any
) -> Callable[[Callable[[Bench], Verdict]], Callable[[Bench], Verdict]]:
    """Register a function as a case."""

    def add(run: Callable[[Bench], Verdict]) -> Callable[[Bench], Verdict]:
        CASES[name] = Case(name, what, right, run, **more)
        return run

    return add


def tell(found: Any) -> None:
    """Tell the bench what a program has found; the last word counts."""
    print(f"TOLD {json.dumps(found)}", flush=True)
