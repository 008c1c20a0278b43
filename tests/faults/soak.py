"""A soak, one command: ``python -m tests.faults.soak [--saves 1000] [--kills 8] [--seed 1] [--json FILE]``.

A small model saves at every step while its store fails at random, and is killed at random; then it is started again,
now and then on another disk. At each save memory, open files and the local disk are measured. Ends with 1
where a commit was lost, a start went on from anything else than was due, a training stopped, or one of the three grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from tests.campaign.killed_training import Samples, Tiny
from tests.faults.board import read
from tests.faults.kinds import WrapperFault
from tests.faults.training import Journal, digests
from tests.forks import ForkServer
from tests.kit.inside import listen, use_store
from vaultlayer_hf import ObjectNotFoundError, Settings, Trainer, open_vault
from vaultlayer_hf.base.events import Event

PROGRAM = "tests.faults.soak:train"
_WARM = 15
"""Saves of an attempt after which what is measured counts: pools and caches are full by then."""
_BEGINS, _ENDS = 0.15, 0.3
"""How likely it is at a step that a fault begins, and that one which lasts is over."""
MOST_MEMORY, MOST_FILES, MOST_DISK, MOST_VAULT = 16e6, 3, 8.0, 4.0
"""What may come on top within an attempt in bytes and open files, and how many checkpoints the disk may hold; the vault
one more for each attempt, whose kill leaves what it was sending.
"""


@dataclass
class Soak:
    """What a soak came to.

    Attributes:
        attempts: trainings, all but the last one killed.
        saves: how many the training has made.
        faults: how often the store began to fail.
        acknowledged: commits that the training was told of.
        lost: attempts behind which the newest of these, or a newer one, wasn't there and whole.
        wrong: starts that went on from another step than was due, or from other bytes.
        stopped: attempts that ended before they were told to.
        memory: bytes of resident memory that came on top within an attempt, of each long enough to tell.
        files: the same of open files.
        disk: the most that an output folder held, in checkpoints.
        vault: what the vault held in the end, in checkpoints.
        seconds: of all of it.
        said: what went wrong, in words.
    """

    attempts: int = 0
    saves: int = 0
    faults: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    stopped: int = 0
    memory: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)
    disk: float = 0.0
    vault: float = 0.0
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was lost, wrong or stopped, and nothing grew."""
        flat = max(self.memory, default=0.0) <= MOST_MEMORY and max(self.files, default=0.0) <= MOST_FILES
        kept = self.disk <= MOST_DISK and self.vault <= MOST_VAULT + self.attempts
        return not (self.lost or self.wrong or self.stopped) and flat and kept

    def __str__(self) -> str:
        lines = [
            f"attempts {self.attempts}, saves {self.saves}, faults {self.faults}, acknowledged {self.acknowledged}",
            f"lost {self.lost}, wrong {self.wrong}, stopped {self.stopped}",
            f"memory {max(self.memory, default=0.0) / 1e6:+.1f} MB, open files {max(self.files, default=0.0):+.0f} at"
            f" most within an attempt ({len(self.memory)} long enough to tell)",
            f"disk {self.disk:.1f} checkpoints at most, the vault {self.vault:.1f} in the end",
            f"{self.seconds:.0f} s",
            *self.said,
        ]
        return "\n".join(lines)


def soak(forks: ForkServer, scratch: Path, *, saves: int, kills: int, seed: int) -> Soak:
    """Train until ``saves`` steps are saved, killed ``kills`` times on the way, and return what came of it."""
    chance, found, began = random.Random(seed), Soak(), time.monotonic()
    vault, saved = str(scratch / "vault"), dict[int, Any]()
    acknowledged, reached, output = 0, 0, scratch / "output-0"
    share = saves // (kills + 1)
    for attempt in range(kills + 1):
        last = attempt == kills
        end = saves if last else reached + max(3, share + chance.randint(-share // 3, share // 3))
        journal = scratch / f"{attempt}.journal"
        asked = {
            "vault": vault,
            "output": str(output),
            "journal": str(journal),
            "place": str(scratch),
            "steps": saves if last else saves + 1,
            "kill_at": None if last else end,
            "seed": chance.randrange(2**31),
        }
        newest, same_disk = _newest(vault), output.exists()
        outcome = forks.run(PROGRAM, asked, scratch / f"run-{attempt}", timeout=60 + 3.0 * (end - reached))
        lines = read(journal)
        found.attempts += 1
        found.faults += sum("begin" in line for line in lines)
        if outcome.code != (0 if last else -signal.SIGKILL):
            found.stopped += 1
            found.said.append(f"attempt {attempt} ended with {outcome.code}: {outcome.errors.strip()[-300:]}")
            break
        _judge_start(found, attempt, lines, newest, saved, same_disk=same_disk)
        mine = [line for line in lines if "saved" in line]
        saved |= {line["saved"]: line["digests"] for line in mine}
        found.saves += len(mine)
        commits = [line["commit"] for line in lines if "commit" in line]
        found.acknowledged += len(commits)
        acknowledged = max([acknowledged, *commits])
        if _newest(vault)[0] < acknowledged:
            found.lost += 1
            found.said.append(f"behind attempt {attempt} commit {acknowledged} isn't there, or isn't whole")
        _measure(found, mine)
        reached = end
        if chance.random() < 0.3:
            output = scratch / f"output-{attempt + 1}"
    checkpoint = max((_bytes(one) for one in Path(output).glob("checkpoint-*")), default=0)
    found.vault = _bytes(Path(vault) / "data") / checkpoint if checkpoint else 0.0
    found.seconds = time.monotonic() - began
    return found


def _judge_start(
    found: Soak,
    attempt: int,
    lines: list[dict[str, Any]],
    newest: tuple[int, int],
    saved: dict[int, Any],
    *,
    same_disk: bool,
) -> None:
    start = next(line for line in lines if "start" in line)
    step = start["start"]
    right = step >= newest[1] if same_disk else step == newest[1]  # a snapshot on the disk may be newer
    if not right or (step and start["digests"] != saved.get(step)):
        found.wrong += 1
        found.said.append(f"attempt {attempt} went on from step {step}, and {newest[1]} was due")


def _measure(found: Soak, mine: list[dict[str, Any]]) -> None:
    """Compare the first with the last third of an attempt's saves behind those that warm up."""
    found.disk = max([found.disk, *(line["disk"] / line["size"] for line in mine)])
    counted = mine[_WARM:]
    third = len(counted) // 3
    if third < 5:
        return
    for name, into in (("memory", found.memory), ("files", found.files)):
        early, late = ([line[name] for line in part] for part in (counted[:third], counted[-third:]))
        into.append(statistics.median(late) - statistics.median(early))


def _newest(vault: str) -> tuple[int, int]:
    """Return number and step of the newest commit that is whole; zeros where there is none."""
    try:
        with open_vault(vault) as opened:
            whole = [one for one in opened.checkpoints() if opened.verify(one).ok]
    except ObjectNotFoundError:
        return 0, 0
    return max(((one.number, one.step) for one in whole), default=(0, 0))


def _bytes(folder: Path) -> int:
    """Return the bytes that a folder's files take, each once, however many names it has."""
    there: dict[int, int] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(root, name))
            except FileNotFoundError:  # deleted meanwhile
                continue
            there[status.st_ino] = status.st_size
    return sum(there.values())


class Script(TrainerCallback):
    """Has the store fail now and then, measures at each save, and dies where it is told to."""

    def __init__(self, journal: Journal, fault: WrapperFault, *, kill_at: int | None, seed: int) -> None:
        self._journal, self._fault, self._kill_at = journal, fault, kill_at
        self._chance = random.Random(seed)
        self._process = psutil.Process()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._journal.note(start=state.global_step, digests=digests(folder) if state.global_step else {})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._fault.active and self._chance.random() < _BEGINS:
            self._fault.begin()
            self._journal.note(begin=state.global_step)
        elif self._fault.active and self._chance.random() < _ENDS:
            self._fault.end()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._journal.note(
            saved=state.global_step,
            digests=digests(folder),
            memory=self._process.memory_info().rss,
            files=self._process.num_fds(),
            disk=_bytes(Path(args.output_dir)),
            size=_bytes(folder),
        )
        if state.global_step == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._fault.end()


def train(
    vault: str, output: str, journal: str, place: str, *, steps: int, kill_at: int | None, seed: int
) -> None:
    """Train, with a save at every step, in a process of its own."""
    torch.set_num_threads(1)
    set_seed(3)
    told = Journal(journal)
    fault = WrapperFault("wrapper/mixture", Path(place), told.note)
    trainer = Trainer(
        model=Tiny(),
        args=TrainingArguments(
            output_dir=output,
            max_steps=steps,
            save_steps=1,
            save_total_limit=2,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            logging_steps=100_000,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Samples(),
        callbacks=[Script(told, fault, kill_at=kill_at, seed=seed)],
        resume=Settings(vault=vault, keep_last=2, resume_timeout=30.0, flush_timeout=60.0),
    )

    def note(event: Event) -> None:
        if event.kind == "commit":
            told.note(commit=event.fields["number"])

    listen(trainer, note)
    use_store(trainer, fault.store(vault))
    trainer.train()


def main() -> int:
    """Soak, and show what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    for name, usual in (("--saves", 1000), ("--kills", 8), ("--seed", 1)):
        parser.add_argument(name, type=int, default=usual)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    with ForkServer() as forks, tempfile.TemporaryDirectory(prefix="vl-soak-") as scratch:
        found = soak(forks, Path(scratch), saves=options.saves, kills=options.kills, seed=options.seed)
    print(found)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.exit(main())
