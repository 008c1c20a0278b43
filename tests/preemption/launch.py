"""Starts the program's ranks, tells them to stop in each way there is, and reads what they have left."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from tests.forks import ForkServer, Outcome, Run
from tests.servers import free_ports
from tests.session.stop.metadata import MetadataServer
from tests.trainer.kit import steps_of

SLOW = {"bandwidth": "40kB", "grace": 3.0}
"""An upload takes 2 s or more: with the margin no second one fits into the grace."""


class Told:
    """A training of ``world`` ranks on one vault; each rank is on a host of its own, with its own metadata server.

    Attributes:
        vault: its URI.
        runs: the processes, by rank.
        hosts: metadata servers, by rank.
    """

    def __init__(
        self, forks: ForkServer, folder: Path, world: int = 1, program: str = "train", **spec: Any
    ) -> None:
        self.folder, self.world = folder, world
        self.vault = f"{folder}/vault"
        self.hosts = [MetadataServer().__enter__() for _ in range(world)]
        self.runs: list[Run] = []
        port = free_ports(1)[0]
        for rank in range(world):
            env = {**self.hosts[rank].env, "VAULTLAYER_FLUSH_TIMEOUT": "45", "VAULTLAYER_PART_TIMEOUT": "20"}
            if world > 1:
                env |= {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(world),
                    "LOCAL_RANK": "0",
                    "LOCAL_WORLD_SIZE": "1",
                }
                env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            arguments = {
                "output": f"{folder}/output",
                "journal": str(self.journal(rank)),
                "vault": self.vault,
                **spec,
            }
            self.runs.append(
                forks.start(
                    f"tests.preemption.preempted_training:{program}", arguments, folder / str(rank), env=env
                )
            )

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: Any) -> None:
        for run in self.runs:
            run.kill()
        for host in self.hosts:
            host.__exit__()

    def journal(self, rank: int) -> Path:
        """Where a rank writes its journal."""
        return self.folder / f"journal-{rank}"

    def notes(self, rank: int = 0) -> list[dict[str, Any]]:
        """A rank's journal so far."""
        path = self.journal(rank)
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def find(self, name: str, rank: int = 0) -> Any:
        """Return the last value of a name in a rank's journal; None where there is none."""
        return next((note[name] for note in reversed(self.notes(rank)) if name in note), None)

    def events(self, kind: str, rank: int = 0) -> list[str]:
        """Messages of a kind of event on a rank."""
        return [note["message"] for note in self.notes(rank) if note.get("event") == kind]

    def ending(self) -> str:
        """What rank 0 has said of how the training ends."""
        return next(text for text in self.events("preempt") if text.startswith("training "))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; fails where a rank ends before."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.errors()
            time.sleep(0.01)

    def wait_for_event(self, kind: str, rank: int = 0) -> None:
        """Wait until a rank has told of an event."""
        self.wait_for(lambda: bool(self.events(kind, rank)))

    def end(self, timeout: float = 60.0) -> list[Outcome]:
        """Wait until all ranks have ended."""
        return [run.wait(timeout) for run in self.runs]

    def codes(self) -> list[int]:
        """Wait until all ranks have ended, and return their exit codes."""
        return [outcome.code for outcome in self.end()]

    def errors(self) -> str:
        """What the ranks wrote to stderr."""
        return "\n".join((run.folder / "stderr").read_text()[-2000:] for run in self.runs)

    def tell(self, how: str, rank: int, seconds: int) -> None:
        """Announce the end of a rank's process, ``seconds`` from now where the way of telling names a time."""
        host, when = self.hosts[rank], datetime.fromtimestamp(int(time.time()) + seconds, UTC)
        if how == "aws":
            host.action = {"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")}
        elif how == "gcp":
            host.preempted = "TRUE"
        elif how == "azure":
            start = format_datetime(when, usegmt=True)
            host.events = [{"EventType": "Preempt", "Resources": [host.vm], "NotBefore": start}]
        else:
            self.runs[rank].signal(signal.Signals[how])

    def committed(self) -> list[int]:
        """Steps of the committed checkpoints."""
        return steps_of(self.vault)

    def folders(self) -> list[str]:
        """Names of all checkpoint folders in the vault, committed or not."""
        return sorted(path.name for path in Path(self.vault).glob("data/*/checkpoint-*"))
