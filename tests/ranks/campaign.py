"""A kill campaign over several ranks: ``python -m tests.ranks.campaign --kills 100``.

Trainings are killed at random instants, one rank or all at once, on one or two nodes, with the disks kept, emptied,
or emptied on one node. In half of them one rank is late at each save, and half of their kills are aimed between
rank 0's on_save and that rank's files, where ``save_total_limit=1`` has deleted the older checkpoint already. Each
is resumed until it ends, and must end with the weights and samples of an unbroken run, from no checkpoint older
than the newest that was acknowledged. Prints the seed, what was seen, and what the kills cost.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.forks import ForkServer
from tests.ranks.checks import live, resumed_from_newest, same_run
from tests.ranks.launch import Group, Ranks, end_all, random_kill

LONGEST = {"ddp": 2.0, "fsdp-full": 3.0, "fsdp-sharded": 3.0}
"""Seconds within which a kill comes: about as long as a whole run takes."""
LATE = 0.2
"""Seconds that the last rank writes its files after the others."""
MOST_KILLS = 6
"""Of one training."""


@dataclass
class Tally:
    """What a campaign has seen.

    Attributes:
        kills: of them, ``single`` hit one rank, and ``torn`` left a checkpoint folder that looks whole to stock,
            without every rank's files; ``only_torn`` of these left no other on the disk.
        lost: steps that were trained again, one number a kill.
        failures: what went wrong, by what it was.
    """

    kills: int = 0
    single: int = 0
    torn: int = 0
    only_torn: int = 0
    trainings: int = 0
    lost: list[int] = field(default_factory=list)
    failures: dict[str, list[str]] = field(
        default_factory=lambda: {"lost commits": [], "wrong resumes": [], "other failures": []}
    )

    @property
    def failed(self) -> list[str]:
        """All failures, in words."""
        return [f"{what}: {text}" for what, found in self.failures.items() for text in found]

    @contextlib.contextmanager
    def counting(self, what: str, folder: Path) -> Iterator[None]:
        """Count an AssertionError in the block as ``what``, once, and raise it on."""
        try:
            yield
        except AssertionError as error:
            if not any(str(folder) in text for text in self.failed):
                self.failures[what].append(f"{folder}: {error}")
            raise

    def words(self) -> str:
        """Return the summary."""
        middle, worst = (statistics.median(self.lost), max(self.lost)) if self.lost else (0, 0)
        failed = ", ".join(f"{len(found)} {what}" for what, found in self.failures.items())
        return (
            f"{self.kills} kills ({self.single} of a single rank; {self.torn} left a checkpoint that looks whole and "
            f"lacks a rank's files, {self.only_torn} of them no other) of {self.trainings} trainings: {failed}. Steps "
            f"trained again: median {middle:g}, worst {worst} (a save every 2 steps)"
        )


def one_training(
    forks: ForkServer,
    folder: Path,
    reference: Group,
    kind: str,
    chance: random.Random,
    tally: Tally,
    most: int,
    beside: str,
) -> None:
    """Kill one training up to ``most`` times, let it end, and check it; what is wrong raises AssertionError."""
    world = reference.world
    shared, late = chance.random() < 0.5, chance.random() < 0.5
    outputs = [folder / ("shared" if shared else f"node-{rank}") for rank in range(world)]
    spec: dict[str, Any] = {"save_on_each_node": chance.random() < 0.5} if not shared else {}
    if late or chance.random() < 0.5:
        spec["save_total_limit"] = 1
    ranks = Ranks(
        forks, folder, outputs, kind=kind, vault=str(folder / "vault"), pace=0.03, beside=beside, **spec
    )
    print(f"{kind}, {world} ranks, {'shared' if shared else 'own'} folders, {spec}, late: {late}", flush=True)
    for _ in range(chance.randint(1, most)):
        before = torn_folders(outputs)
        group = ranks.start(per_rank={world - 1: {"slow_rng": LATE}} if late else {})
        if late and chance.random() < 0.5:
            done = kill_in_window(group, chance, outputs, before)
        else:
            done = random_kill(group, chance, LONGEST[kind] + (5 * LATE if late else 0.0))
        if not any(outcome.code for outcome in group.outcomes.values()):
            break
        tally.kills += 1
        tally.single += not done.startswith("all")
        if torn := torn_folders(outputs) - before:
            tally.torn += 1
            tally.only_torn += len(list(outputs[0].glob("checkpoint-*"))) == len(torn)
        wiped = chance.choice([[], list(dict.fromkeys(outputs)), [chance.choice(outputs)]])
        print(f"  {done}; emptied: {', '.join(path.name for path in wiped) or 'none'}", flush=True)
        for output in wiped:
            shutil.rmtree(output, ignore_errors=True)
    ranks.start().succeed()
    with tally.counting("wrong resumes", folder):
        same_run(reference, ranks.attempts)
    with tally.counting("lost commits", folder):
        tally.lost += resumed_from_newest(ranks.attempts)
        assert live(folder / "vault")[-1].step == reference.results()[0]["step"]
    tally.trainings += 1


def kill_in_window(
    group: Group, chance: random.Random, outputs: Sequence[Path], before: set[tuple[str, int]]
) -> str:
    """Kill all or one rank while a checkpoint (the first to the fourth) lacks a rank's files; say what was done."""
    nth = chance.randint(1, 4)
    seen: set[tuple[str, int]] = set()
    deadline = time.monotonic() + 30
    while len(seen) < nth and group.runs_still(0) and time.monotonic() < deadline:
        seen |= torn_folders(outputs) - before
        time.sleep(0.001)
    done = random_kill(group, chance, LATE / 2)
    return f"{done} in save {nth} while the last rank's files are missing"


def torn_folders(outputs: Sequence[Path]) -> set[tuple[str, int]]:
    """The checkpoints that look whole to stock on rank 0's disk and lack the state of a rank, each with its age."""
    found = set()
    for path in outputs[0].glob("checkpoint-*"):
        with contextlib.suppress(FileNotFoundError):
            written = (path / "trainer_state.json").stat().st_mtime_ns
            names = [output / path.name / f"rng_state_{rank}.pth" for rank, output in enumerate(outputs)]
            if not all(name.exists() for name in names):
                found.add((path.name, written))
    return found


def run(kills: int, seed: int, world: int, kinds: list[str], scratch: Path, *, beside: str = "") -> Tally:
    """Run a campaign of at least ``kills`` kills; stops at the first failure, whose files stay in ``scratch``.

    ``beside``: how saves run beside the training; see ``train_ranks.save_beside``.
    """
    chance = random.Random(seed)
    tally = Tally()
    with ForkServer("tests.ranks.train_ranks") as forks:
        references = {}
        for kind in kinds:
            folder = scratch / f"reference-{kind}"
            references[kind] = Ranks(forks, folder, [folder / "output"] * world, kind=kind).start()
            references[kind].succeed()
        while tally.kills < kills:
            folder = scratch / f"training-{tally.trainings}"
            kind = chance.choice(kinds)
            most = min(MOST_KILLS, kills - tally.kills)
            try:
                with tally.counting("other failures", folder):
                    one_training(forks, folder, references[kind], kind, chance, tally, most, beside)
            except AssertionError:
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
    parser.add_argument("--async", dest="beside", action="store_const", const="well", default="")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"--seed {seed}", flush=True)
    begin = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="vl-ranks-"))
    tally = run(options.kills, seed, options.world, options.kinds, scratch, beside=options.beside)
    for failure in tally.failed:
        print(failure)
    print(f"{tally.words()}; {time.monotonic() - begin:.0f} s")
    if not tally.failed:
        shutil.rmtree(scratch)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
