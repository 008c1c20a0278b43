"""A kill campaign over several ranks: ``python -m tests.ranks.campaign --kills 100``.

Trainings are killed at random instants, one rank or all at once, on one or two nodes, with the disks kept, emptied,
or emptied on one node, some with a late rank so that kills fall between rank 0's on_save and the last rank's
files. Each is resumed until it ends, and must end with the weights and samples of an unbroken run, from no
checkpoint older than the newest that was acknowledged. Prints the seed, what was seen, and what the kills cost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.forks import ForkServer
from tests.ranks.checks import live, resumed_from_newest, same_run
from tests.ranks.launch import Group, Ranks, end_all, random_kill

LONGEST = {"ddp": 2.0, "fsdp-full": 3.0, "fsdp-sharded": 3.0}
MOST_KILLS = 6
"""Of one training."""


@dataclass
class Tally:
    """What a campaign has seen.

    Attributes:
        kills: of them, ``single`` hit one rank, and ``torn`` left a checkpoint folder without every rank's files.
        lost: steps that were trained again, one number a kill.
        failures: what went wrong, in words.
    """

    kills: int = 0
    single: int = 0
    torn: int = 0
    trainings: int = 0
    lost: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def words(self) -> str:
        """Return the summary."""
        middle, worst = (statistics.median(self.lost), max(self.lost)) if self.lost else (0, 0)
        return (
            f"{self.kills} kills ({self.single} of a single rank, {self.torn} left a torn checkpoint) of "
            f"{self.trainings} trainings: {len(self.failures)} failed. Steps trained again: median {middle:g}, "
            f"worst {worst} (a save every 2 steps)"
        )


def one_training(
    forks: ForkServer,
    folder: Path,
    reference: Group,
    kind: str,
    chance: random.Random,
    tally: Tally,
    most: int,
) -> None:
    """Kill one training up to ``most`` times, let it end, and check it; what is wrong raises AssertionError."""
    world = reference.world
    shared = chance.random() < 0.5
    outputs = [folder / ("shared" if shared else f"node-{rank}") for rank in range(world)]
    spec: dict[str, Any] = {"save_on_each_node": chance.random() < 0.5} if not shared else {}
    if chance.random() < 0.5:
        spec["save_total_limit"] = 1
    late = {1: {"slow_rng": 0.2}} if chance.random() < 0.5 else {}
    ranks = Ranks(forks, folder, outputs, kind=kind, vault=str(folder / "vault"), pace=0.03, **spec)
    print(f"{kind}, {world} ranks, {'shared' if shared else 'own'} folders, {spec}, late: {bool(late)}")
    for _ in range(chance.randint(1, most)):
        group = ranks.start(per_rank=late)
        done = random_kill(group, chance, LONGEST[kind] + (1.0 if late else 0.0))
        if not any(outcome.code for outcome in group.outcomes.values()):
            break
        tally.kills += 1
        tally.single += not done.startswith("all")
        tally.torn += any(_torn(output, world) for output in set(outputs)) if shared else 0
        wiped = chance.choice([[], list(set(outputs)), [chance.choice(outputs)]])
        print(f"  {done}; emptied: {', '.join(path.name for path in wiped) or 'none'}")
        for output in wiped:
            shutil.rmtree(output, ignore_errors=True)
    ranks.start().succeed()
    same_run(reference, ranks.attempts)
    tally.lost += resumed_from_newest(ranks.attempts)
    assert live(folder / "vault")[-1].step == reference.results()[0]["step"]
    tally.trainings += 1


def _torn(output: Path, world: int) -> bool:
    """Whether a checkpoint folder looks whole to stock, and lacks the state of a rank."""
    return any(
        (path / "trainer_state.json").exists()
        and not all((path / f"rng_state_{rank}.pth").exists() for rank in range(world))
        for path in output.glob("checkpoint-*")
    )


def run(kills: int, seed: int, world: int, kinds: list[str], scratch: Path) -> Tally:
    """Run a campaign of at least ``kills`` kills; stops at the first failure, whose files stay in ``scratch``."""
    chance = random.Random(seed)
    tally = Tally()
    with ForkServer("tests.ranks.program") as forks:
        references = {}
        for kind in kinds:
            folder = scratch / f"reference-{kind}"
            references[kind] = Ranks(forks, folder, [folder / "output"] * world, kind=kind).start()
            references[kind].succeed()
        while tally.kills < kills:
            folder = scratch / f"training-{tally.trainings}"
            kind = chance.choice(kinds)
            try:
                one_training(
                    forks, folder, references[kind], kind, chance, tally, min(MOST_KILLS, kills - tally.kills)
                )
            except AssertionError as error:
                tally.failures.append(f"{folder} (seed {seed}): {error}")
                break
            finally:
                end_all()
            shutil.rmtree(folder)
    return tally


def main() -> int:
    """Run what the command line asks for; 1 where something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=sorted(LONGEST), default=["ddp"])
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"--seed {seed}", flush=True)
    begin = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="vl-ranks-"))
    tally = run(options.kills, seed, options.world, options.kinds, scratch)
    for failure in tally.failures:
        print(failure)
    print(f"{tally.words()}; {time.monotonic() - begin:.0f} s")
    if not tally.failures:
        shutil.rmtree(scratch)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
