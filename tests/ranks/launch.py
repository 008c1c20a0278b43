"""Starts the ranks of a training as processes of the fork server, and kills them as a launcher or a crash would.

    with ForkServer() as forks:
        group = Ranks(forks, folder, world=2, vault=vault).start()
        group.kill(1)            # SIGKILL of one rank; the others are ended as torchrun's agent does it
        ...

Where each rank writes is told by ``outputs``: one path for each rank; the same path means a shared folder.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.forks import ForkServer, Outcome, Run
from tests.servers import free_ports

GRACE = 5.0
"""Seconds that ranks get to end by themselves after another was killed, before SIGKILL."""

PATIENCE = {"part_timeout": 5.0, "resume_timeout": 10.0, "flush_timeout": 30.0}
"""Settings of all trainings here: nobody should wait ten minutes for a rank that was killed."""
_started: list[Group] = []


class Attempt:
    """What the ranks of one attempt have left: journals and results in ``folder``.

    Attributes:
        folder: gets each rank's journal and result.
        world: how many ranks there are.
    """

    def __init__(self, folder: Path, world: int) -> None:
        self.folder, self.world = folder, world

    def notes(self, rank: int) -> list[dict[str, Any]]:
        """A rank's journal so far."""
        path = self.folder / f"journal-{rank}"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def events(self, rank: int, kind: str) -> list[str]:
        """Messages of a kind of event of the vault on one rank."""
        return [note["message"] for note in self.notes(rank) if note.get("event") == kind]

    def started(self, rank: int = 0) -> int | None:
        """The step at which a rank started to train; None where it didn't get there."""
        return next((note["start"] for note in self.notes(rank) if "start" in note), None)

    def results(self) -> list[dict[str, Any]]:
        """What each rank ended with."""
        return [json.loads((self.folder / f"result-{rank}").read_text()) for rank in range(self.world)]

    def losses(self) -> dict[int, float]:
        """The loss of each step that this attempt trained."""
        return {note["of"]: note["loss"] for note in self.notes(0) if "loss" in note}

    def errors(self) -> str:
        """What the ranks wrote to stderr."""
        raise NotImplementedError

    def runs_still(self, rank: int) -> bool:
        """Whether a rank hasn't ended."""
        raise NotImplementedError

    def await_note(self, rank: int = 0, timeout: float = 60.0, **fields: Any) -> None:
        """Wait until a rank has noted these fields."""
        deadline = time.monotonic() + timeout
        while not any(fields.items() <= note.items() for note in self.notes(rank)):
            assert time.monotonic() < deadline, f"rank {rank} never noted {fields}:\n{self.errors()}"
            assert self.runs_still(rank), f"rank {rank} ended before {fields}:\n{self.errors()}"
            time.sleep(0.01)


class Group(Attempt):
    """An attempt on the fork server: all its ranks.

    Attributes:
        runs: by rank.
        nodes: the ranks that one agent looks after, node by node.
        output: output_dir of rank 0.
    """

    def __init__(self, folder: Path, runs: list[Run], nodes: list[list[int]], output: Path) -> None:
        super().__init__(folder, len(runs))
        self.runs, self.nodes, self.output = runs, nodes, output
        self.outcomes: dict[int, Outcome] = {}

    def runs_still(self, rank: int) -> bool:
        """Whether a rank hasn't ended."""
        return _alive(self.runs[rank].pid)

    def wait(self, timeout: float = 120.0, *, agents: bool = True) -> list[int]:
        """Wait until all ranks have ended and return their exit codes; a hang fails the test.

        As torchrun's agents do it: where a rank fails, the others of its node are ended, SIGTERM first; without
        ``agents`` each ends by itself.
        """
        deadline = time.monotonic() + timeout
        ending: dict[int, float] = {}
        while len(self.outcomes) < len(self.runs):
            for node, ranks in enumerate(self.nodes):
                for rank in ranks:
                    if rank not in self.outcomes and not _alive(self.runs[rank].pid):
                        self.outcomes[rank] = self.runs[rank].wait(10)
                failed = agents and any(self.outcomes[rank].code for rank in ranks if rank in self.outcomes)
                left = [rank for rank in ranks if rank not in self.outcomes]
                if failed and left and node not in ending:
                    ending[node] = time.monotonic() + GRACE
                    self._signal(left, signal.SIGTERM)
                elif failed and time.monotonic() > ending.get(node, deadline):
                    self._signal(left, signal.SIGKILL)
            if time.monotonic() > deadline:
                self._fail_hanging(timeout)
            time.sleep(0.01)
        return [self.outcomes[rank].code for rank in range(len(self.runs))]

    def _signal(self, ranks: Sequence[int], number: signal.Signals) -> None:
        for rank in ranks:
            self.runs[rank].signal(number)

    def _fail_hanging(self, timeout: float) -> None:
        left = [rank for rank in range(len(self.runs)) if rank not in self.outcomes]
        self._signal(left, signal.SIGCONT)
        self._signal(left, signal.SIGUSR1)  # faulthandler writes every thread's stack to stderr
        time.sleep(0.5)
        self.kill_all()
        raise AssertionError(f"ranks {left} hang after {timeout:.0f} s:\n{self.errors()}")

    def succeed(self, timeout: float = 120.0) -> None:
        """Wait until all ranks have ended well."""
        codes = self.wait(timeout)
        assert not any(codes), f"exit codes {codes}:\n{self.errors()}"

    def kill_all(self) -> None:
        """SIGKILL every rank at once: the whole tree, or the machine."""
        for run in self.runs:
            run.kill()

    def kill(self, *ranks: int) -> None:
        """SIGKILL these ranks at once; ``wait`` ends the others of their nodes as an agent does."""
        for rank in ranks:
            self.runs[rank].kill()

    def errors(self) -> str:
        """What the ranks wrote to stderr."""
        return "\n".join(
            f"--- rank {rank}\n{(run.folder / 'stderr').read_text(errors='replace')[-1500:]}"
            for rank, run in enumerate(self.runs)
        )


class Ranks:
    """A training of several ranks, started as often as wanted.

    Args:
        forks: the server.
        folder: scratch of this training; each attempt gets a folder in it.
        outputs: output_dir of each rank.
        spec: arguments of the program.
        program: what each rank runs, ``module:function``.
        env: more variables, by rank; those of ``None`` go to all.
    """

    def __init__(
        self,
        forks: ForkServer,
        folder: Path,
        outputs: list[Path],
        *,
        env: dict[int | None, dict[str, str]] | None = None,
        per_rank: dict[int, dict[str, Any]] | None = None,
        program: str = "tests.ranks.train_ranks:train",
        **spec: Any,
    ) -> None:
        self.program = program
        self.forks, self.folder, self.outputs = forks, folder, outputs
        self.spec, self.env, self.per_rank = spec, env or {}, per_rank or {}
        self.attempts: list[Group] = []

    def start(self, *, per_rank: dict[int, dict[str, Any]] | None = None, **more: Any) -> Group:
        """Start an attempt; ``more`` and ``per_rank`` change its spec only."""
        folder = self.folder / f"attempt-{len(self.attempts)}"
        port = free_ports(1)[0]
        world = len(self.outputs)
        runs = []
        for rank, output in enumerate(self.outputs):
            mine = {**self.spec, **self.per_rank.get(rank, {}), **more, **(per_rank or {}).get(rank, {})}
            mine.setdefault("kind", "ddp")
            mine["settings"] = {**PATIENCE, **mine.get("settings", {})}
            local = [other for other in range(world) if self.outputs[other] == output]
            env = {
                "RANK": str(rank),
                "LOCAL_RANK": str(local.index(rank)),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(len(local)),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                **self.env.get(None, {}),
                **self.env.get(rank, {}),
            }
            mine["output"], mine["journal"] = str(output), str(folder / f"journal-{rank}")
            mine["result"] = str(folder / f"result-{rank}")
            folder.mkdir(parents=True, exist_ok=True)
            runs.append(self.forks.start(self.program, mine, folder / str(rank), env=env))
        nodes = [
            [rank for rank in range(world) if self.outputs[rank] == output]
            for output in dict.fromkeys(self.outputs)
        ]
        group = Group(folder, runs, nodes, self.outputs[0])
        self.attempts.append(group)
        _started.append(group)
        return group


def end_all() -> None:
    """End whatever a failed test has left running."""
    while _started:
        group = _started.pop()
        if len(group.outcomes) < len(group.runs):
            group.kill_all()
            group.wait()


def samples(attempts: Sequence[Attempt], rank: int) -> dict[int, list[list[int]]]:
    """The ids of the samples that a rank trained on, by step; steps that were trained again must be the same.

    What a killed attempt noted of a step that it didn't end counts as far as it goes.
    """
    found: dict[int, list[list[int]]] = {}
    for group in attempts:
        mine: dict[int, list[list[int]]] = {}
        for note in group.notes(rank):
            if "ids" in note:
                mine.setdefault(note["at"], []).append(note["ids"])
        for step, ids in mine.items():
            known = found.setdefault(step, [])
            shared = min(len(known), len(ids))
            assert ids[:shared] == known[:shared], f"step {step} of rank {rank} was trained on other samples"
            if len(ids) > len(known):
                found[step] = ids
    return found


def random_kill(group: Group, chance: random.Random, longest: float) -> str:
    """Kill the group at a random instant within ``longest`` seconds, all of it or one rank; say what was done."""
    rank = chance.choice([None, *range(len(group.runs))])
    after = chance.uniform(0.0, longest)
    time.sleep(after)
    if rank is None:
        group.kill_all()
    else:
        group.kill(rank)
        if not all(any("joined" in note for note in group.notes(one)) for one in range(len(group.runs))):
            # Who hasn't joined waits for the others in torch's own rendezvous, for minutes: a scheduler would end it.
            group.kill_all()
    group.wait()
    return f"{'all' if rank is None else f'rank {rank}'} after {after:.3f} s"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
