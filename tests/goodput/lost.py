"""Steps that a kill costs, by how a training is kept and where.

    python -m tests.goodput.lost [--last 40] [--jobs 2] [--only TEXT]

Each training saves every 4 steps, is killed (SIGKILL) behind step k for k = 1, 2, ..., and started again on the same
disk: lost is k minus the step that it goes on from. Steps are fast (some hundred a second), so uploads are under way or
haven't begun. A second table has the Trainer killed within its save, as soon as it has written the last of its files.
The first row of each is what can't be had back by any means: the steps behind the newest save.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.forks import ForkServer
from tests.ranks.launch import Ranks
from tests.servers import SeaweedServer
from tests.trainer.killed_behind_save import SAVE_EVERY

_PROGRAMS = "tests.trainer.killed_behind_save"


@dataclass(frozen=True)
class Way:
    """How a training is kept, and where.

    Attributes:
        program: a function of tests/trainer/killed_behind_save.py.
        store: ``folder`` or ``s3``; None: stock, with get_last_checkpoint.
        options: of that function.
        ranks: how many there are.
        nodes: whether each rank has a disk of its own.
    """

    program: str
    store: str | None
    options: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1
    nodes: bool = False

    @property
    def stock(self) -> bool:
        """Whether there is no vault."""
        return self.store is None


_THROTTLED, _DOWN = {"bandwidth": "100KB", "width": 40}, {"outage": True}
WAYS = {
    "stock Trainer with get_last_checkpoint": Way("trainer", None),
    "Trainer, folder": Way("trainer", "folder"),
    "Trainer, folder, 100 KB/s": Way("trainer", "folder", _THROTTLED),
    "Trainer, folder, down": Way("trainer", "folder", _DOWN),
    "Trainer, S3": Way("trainer", "s3"),
    "Trainer, S3, 100 KB/s": Way("trainer", "s3", _THROTTLED),
    "Trainer, S3, down": Way("trainer", "s3", _DOWN),
    "Checkpointer, folder": Way("loop", "folder"),
    "Checkpointer, folder, 100 KB/s": Way("loop", "folder", _THROTTLED),
    "Checkpointer, S3, down": Way("loop", "s3", _DOWN),
    "attached Accelerator, folder": Way("attached", "folder"),
    "attached Accelerator, S3, down": Way("attached", "s3", _DOWN),
    "stock Trainer, 2 ranks": Way("trainer", None, ranks=2),
    "Trainer, 2 ranks, folder": Way("trainer", "folder", ranks=2),
    "Trainer, 2 ranks, S3, down": Way("trainer", "s3", _DOWN, ranks=2),
    "Trainer, 2 nodes, folder, down": Way("trainer", "folder", _DOWN, ranks=2, nodes=True),
}
WITHIN_A_SAVE = {
    name: Way(way.program, way.store, {**way.options, "moment": "written"}, way.ranks, way.nodes)
    for name, way in WAYS.items()
    if way.program == "trainer"
}


class Losses:
    """Kills trainings and starts them again.

    Args:
        forks: starts them.
        scratch: folder for everything.
        bucket: URI of a folder in a bucket; None: ways on S3 can't be played.
    """

    def __init__(self, forks: ForkServer, scratch: Path, bucket: str | None) -> None:
        self._forks, self._scratch, self._bucket = forks, scratch, bucket

    def lost(self, way: Way, step: int) -> int:
        """Kill a training behind ``step`` and return how many steps the next start has lost."""
        folder = self._scratch / uuid.uuid4().hex
        folder.mkdir()
        vault = None
        if not way.stock:
            vault = f"{self._bucket}/{folder.name}" if way.store == "s3" else str(folder / "vault")
        killed, _ = self._run(way, folder, vault, step, way.options)
        assert killed == -signal.SIGKILL, f"{way}: the kill behind step {step} was none: exit {killed}"
        options = {name: value for name, value in way.options.items() if name not in ("outage", "moment")}
        code, start = self._run(way, folder, vault, 0, options)
        assert code == 0, f"{way}: behind step {step} the next start ended with {code}"
        return step - start

    def _run(
        self, way: Way, folder: Path, vault: str | None, kill_at: int, options: dict[str, Any]
    ) -> tuple[int, int]:
        """Return the exit code and the first step of a training."""
        call = f"{_PROGRAMS}:{way.program}"
        words = {"vault": vault, "kill_at": kill_at, **options}
        name = f"{'killed' if kill_at else 'again'}"
        if way.ranks == 1:
            outcome = self._forks.run(call, {"output": str(folder / "out"), **words}, folder / name)
            code, output = outcome.code, outcome.output
        else:
            outputs = [folder / (f"out-{rank}" if way.nodes else "out") for rank in range(way.ranks)]
            group = Ranks(self._forks, folder / name, outputs, program=call, **words).start()
            codes = group.wait(agents=False)
            code, output = codes[0], group.outcomes[0].output
        starts = [int(line.split()[1]) for line in output.splitlines() if line.startswith("START")]
        return code, starts[0] if starts else -1


def play(losses: Losses, ways: dict[str, Way], steps: Sequence[int], jobs: int) -> dict[str, list[int]]:
    """Return the lost steps of each way, in the order of ``steps``."""
    asked = [(way, step) for way in ways.values() for step in steps]
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(lambda one: losses.lost(*one), asked)
        lost = list(tqdm(found, total=len(asked), desc="kills", disable=not sys.stderr.isatty()))
    return {name: lost[at * len(steps) : (at + 1) * len(steps)] for at, name in enumerate(ways)}


@contextlib.contextmanager
def losses_on(scratch: Path, *, s3: bool) -> Iterator[Losses]:
    """Give what plays ways, with an S3 server of its own where that is asked for."""
    with contextlib.ExitStack() as stack:
        bucket = None
        if s3:
            server = SeaweedServer()
            stack.callback(server.close)
            server.start()
            before = dict(os.environ)
            stack.callback(lambda: (os.environ.clear(), os.environ.update(before)))
            os.environ.update(server.env())
            bucket = f"s3://{server.bucket}"
        forks = stack.enter_context(ForkServer(_PROGRAMS, "accelerate"))
        yield Losses(forks, scratch, bucket)


def main() -> None:
    """Play each way and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.goodput.lost")
    parser.add_argument("--last", type=int, default=40, help="the last step that is killed behind")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--only", default="", help="ways whose name holds this text")
    asked = parser.parse_args()
    behind = range(1, asked.last + 1)
    within = range(SAVE_EVERY, asked.last + 1, SAVE_EVERY)
    with (
        tempfile.TemporaryDirectory(prefix="vl-lost-") as scratch,
        losses_on(Path(scratch), s3=True) as losses,
    ):
        for title, ways, steps, least in (
            (f"killed behind step 1 to {asked.last}", WAYS, behind, [step % SAVE_EVERY for step in behind]),
            ("killed within each save, all files written", WITHIN_A_SAVE, within, [0] * len(within)),
        ):
            print(f"\n| {title} | kills | steps lost | most | mean |\n|---|---|---|---|---|", flush=True)
            _print_row("the steps behind the newest save", least)
            for name, way in ways.items():
                if asked.only in name:
                    _print_row(name, play(losses, {name: way}, steps, asked.jobs)[name])


def _print_row(name: str, lost: Sequence[int]) -> None:
    print(f"| {name} | {len(lost)} | {sum(lost)} | {max(lost)} | {sum(lost) / len(lost):.2f} |", flush=True)


if __name__ == "__main__":
    main()
