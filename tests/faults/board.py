"""The scoreboard: each fault around a real training, then a start, and what was lost, torn, stopped or slowed by it."""

from __future__ import annotations

import json
import shutil
import signal
import statistics
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.kinds import NOTHING, clear_up, small_disk, unmount_disk
from tests.faults.training import BEGIN, END, STEPS
from tests.forks import ForkServer
from tests.servers import SeaweedServer
from vaultlayer_hf import ObjectNotFoundError, open_vault

PROGRAM = "tests.faults.training:train"
_DISK = "24m"
"""Size of the disks that fill: a checkpoint has 4 MB."""
WAYS = ("ends", "killed", "start")
"""``ends``: the fault is over before the training is, and a start on another disk goes on. ``killed``: SIGKILL while it
lasts, and a start on the same disk. ``start``: the fault is there while a start on another disk restores.
"""


@dataclass
class Row:
    """What a fault came to, over all ways and rounds.

    Attributes:
        fault: its name.
        runs: how many trainings it happened to.
        acknowledged: commits that the training was told of.
        lost: of these, how many the vault doesn't have, or not whole.
        wrong: starts that went on from another step than the newest whole commit's, or from other bytes than its.
        stopped: trainings that ended before their last step, though nobody killed them.
        slowed: seconds of training over those of an undisturbed one right before it, which had the same proxy or disk,
            less 1; of each training that came to its end.
        back: seconds from the fault's end to the next commit; of each training that had one.
        said: what went wrong, in words.
    """

    fault: str
    runs: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    stopped: int = 0
    slowed: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was lost, torn or stopped."""
        return not (self.lost or self.wrong or self.stopped)


class Board:
    """Makes the runs.

    Args:
        forks: starts them.
        server: an S3 server, which may be killed; None: only faults that need none.
        scratch: a folder for everything.
    """

    def __init__(self, forks: ForkServer, server: SeaweedServer | None, scratch: Path) -> None:
        self.forks, self.server, self.scratch = forks, server, scratch
        self._undisturbed = 0.0  # seconds of the last training that nothing disturbed

    def measure(self, fault: str) -> None:
        """Run once without a fault where one of its layer is tried, to compare with."""
        with self._place(_nothing(fault)) as (vault, place):
            self._undisturbed = _seconds(self._run(vault, place, "first", _nothing(fault)))

    def attempt(self, row: Row, way: str) -> None:
        """One training with a fault, the start after it, and what they show; added to ``row``."""
        with self._place(row.fault) as (vault, place):
            self._attempt(row, way, vault, place)

    def _attempt(self, row: Row, way: str, vault: str, place: Path) -> None:
        row.runs += 1
        first = "" if way == "start" else row.fault
        kill_at = (BEGIN + END) // 2 if way == "killed" else None
        lines = self._run(vault, place, "first", first, kill_at=kill_at)
        self._judge_training(row, way, lines)
        if way == "killed":
            clear_up(row.fault, place)
        newest = self.judge_vault(row, vault, lines)
        same_disk = way == "killed"
        again = self._run(
            vault, place, "second", row.fault if way == "start" else "", same_disk=same_disk, steps=STEPS + 3
        )
        self._judge_start(row, way, newest, lines, again)

    def _judge_training(self, row: Row, way: str, lines: list[dict[str, Any]]) -> None:
        row.acknowledged += sum("commit" in line for line in lines)
        if way == "killed":
            return
        if not any(line.get("ended") == STEPS for line in lines):
            row.stopped += 1
            row.said.append(f"{way}: it stopped: {_end_of(lines)}")
        elif way == "ends":
            row.slowed += [_seconds(lines) / self._undisturbed - 1] if self._undisturbed else []
            over = next((line["time"] for line in lines if "end" in line), None)
            commits = [line["time"] for line in lines if "commit" in line and over and line["time"] > over]
            row.back += [commits[0] - over] if over is not None and commits else []

    def judge_vault(self, row: Row, vault: str, lines: list[dict[str, Any]]) -> int:
        """Count what was acknowledged and isn't there, and return the step of the newest commit that is whole."""
        acknowledged = {line["commit"]: line["of"] for line in lines if "commit" in line}
        try:
            with open_vault(vault) as opened:
                whole = {one.number: one for one in opened.checkpoints() if opened.verify(one).ok}
        except ObjectNotFoundError:
            whole = {}
        lost = {number: step for number, step in acknowledged.items() if number not in whole}
        if lost:
            row.lost += len(lost)
            row.said.append(f"acknowledged and not there: {lost}")
        return max((one.step for one in whole.values()), default=0)

    def _judge_start(
        self, row: Row, way: str, newest: int, lines: list[dict[str, Any]], again: list[dict[str, Any]]
    ) -> None:
        saved = {line["saved"]: line["digests"] for line in lines if "saved" in line}
        start = next((line for line in again if "start" in line), None)
        if start is None:
            if way == "start" and any("refused" in line for line in again):
                return  # it said why, and nothing was trained
            row.stopped += 1
            row.said.append(f"{way}: the next start failed: {_end_of(again)}")
            return
        step = start["start"]
        right = step >= newest if way == "killed" else step == newest  # a snapshot on the disk may be newer
        walked = way == "start" and any(line.get("event") == "walk-back" for line in again)
        if not (right or walked) or (step and start["digests"] != saved.get(step)):
            row.wrong += 1
            row.said.append(f"{way}: it went on from step {step}, and {newest} was due")

    def _remote(self, fault: str) -> bool:
        return fault.partition("/")[0] in ("proxy", "name", "server", "machine")

    @contextmanager
    def _place(self, fault: str) -> Iterator[tuple[str, Path]]:
        """Give a vault and a folder for one attempt."""
        place = self.scratch / uuid.uuid4().hex[:8]
        place.mkdir()
        vault = str(place / "vault")
        if self._remote(fault):
            assert self.server is not None
            vault = f"s3://{self.server.bucket}/{place.name}"
        disk = place / "disk"
        on_disk = fault.startswith("disk/")
        if on_disk:
            small_disk(disk, _DISK if fault == "disk/full output folder" else "256m")
            if fault.endswith("vault"):
                vault = str(disk / "vault")
        try:
            yield vault, place
        finally:
            if on_disk:
                unmount_disk(disk)
            shutil.rmtree(place, ignore_errors=True)

    def _run(
        self,
        vault: str,
        place: Path,
        name: str,
        fault: str,
        *,
        same_disk: bool = False,
        steps: int = STEPS,
        kill_at: int | None = None,
    ) -> list[dict[str, Any]]:
        """Run the program to its end and return its journal."""
        journal = place / f"{name}.journal"
        output = place / ("output" if name == "first" or same_disk else "other")
        if fault.startswith("disk/") and not fault.endswith("vault"):
            output = place / "disk" / "output"
        run = self.forks.start(
            PROGRAM,
            {
                "vault": vault,
                "output": str(output),
                "journal": str(journal),
                "place": str(place),
                "fault": fault,
                "resuming": bool(fault) and name == "second",
                "steps": steps,
                "kill_at": kill_at,
            },
            place / name,
            env=self.server.env() if self.server is not None else {},
        )
        over = threading.Event()
        watching = fault.startswith("server/")
        watch = threading.Thread(target=self._serve, args=(journal, place, over), daemon=True)
        if watching:
            watch.start()
        try:
            outcome = run.wait(120)
        finally:
            over.set()
            if watching:
                watch.join()
        if self.server is not None:
            self.server.resume() if fault == "server/frozen" else self.server.start()
        lines = read(journal)
        lines.append({"code": outcome.code, "errors": outcome.errors[-2000:]})
        expected = -signal.SIGKILL if kill_at else 0
        if outcome.code != expected:
            lines.append({"died": outcome.code})
        return lines

    def _serve(self, journal: Path, place: Path, over: threading.Event) -> None:
        """Do to the server what the journal of a run asks for."""
        assert self.server is not None
        done = 0
        while not over.is_set():
            asked = [line["server"] for line in read(journal) if "server" in line]
            for what in asked[done:]:
                if what == "killed":
                    self.server.stop()
                elif what == "frozen":
                    self.server.pause()
                elif asked[0] == "frozen":
                    self.server.resume()
                else:
                    self.server.start()
                (place / ("up" if what == "up" else "down")).touch()
            done = len(asked)
            over.wait(0.02)


def read(journal: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal."""
    text = journal.read_text() if journal.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _nothing(fault: str) -> str:
    """Return the name of what happens to nothing where a fault would happen: the same proxy, the same disks."""
    return f"{fault.partition('/')[0]}/{NOTHING}{' to the vault' if fault.endswith(' vault') else ''}"


def _seconds(lines: list[dict[str, Any]]) -> float:
    """Return the seconds from the first step's end to the last one's, without what makes and ends the fault."""
    steps = [line["time"] for line in lines if "step" in line]
    return float(steps[-1] - steps[0] - sum(line.get("aside", 0.0) for line in lines))


def _end_of(lines: list[dict[str, Any]]) -> str:
    told = next((line["message"] for line in lines if "refused" in line), "")
    errors = next((line["errors"] for line in lines if "errors" in line), "")
    return told or (errors.strip().splitlines() or ["it said nothing"])[-1]


def table(rows: Sequence[Row]) -> str:
    """Return the scoreboard as text."""
    lines = [
        f"{'fault':38} {'runs':>4} {'acked':>6} {'lost':>4} {'wrong':>5} {'stopped':>7} {'slowed':>7} {'back':>7}"
    ]
    for row in rows:
        slowed = f"{100 * statistics.median(row.slowed):.1f} %" if row.slowed else ""
        back = f"{statistics.median(row.back):.1f} s" if row.back else ""
        lines.append(
            f"{row.fault:38} {row.runs:4} {row.acknowledged:6} {row.lost:4} {row.wrong:5} {row.stopped:7} "
            f"{slowed:>7} {back:>7}"
        )
        lines += [f"    {said}" for said in row.said]
    slowed = [one for row in rows for one in row.slowed]
    total = [
        sum(getattr(row, name) for row in rows)
        for name in ("runs", "acknowledged", "lost", "wrong", "stopped")
    ]
    middle = f"{100 * statistics.median(slowed):.1f} %" if slowed else ""
    lines.append(f"{'all':38} {total[0]:4} {total[1]:6} {total[2]:4} {total[3]:5} {total[4]:7} {middle:>7}")
    return "\n".join(lines)
