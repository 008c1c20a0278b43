"""The kill campaign: a run is killed at a point, started again, and must end as if nothing had happened.

What the next start has to go on from is worked out here, from the log and the disk that the kill left, by
code of its own: the newest commit in the log, or a newer sealed or whole snapshot of the newest claim, or of the one
before it where that one died while it was adopting.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.points import SAVE_STEPS, STEPS
from tests.forks import ForkServer, Outcome, Run
from vaultlayer_hf import ObjectNotFoundError, open_vault
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.keys import LOG, entry_number
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.snapshot import LOCAL
from vaultlayer_hf.vault.workspace import workspace

PROGRAM = "tests.campaign.killed_training:train"


@dataclass(frozen=True)
class Point:
    """A numbered operation of a run, what it is, and its sides: one that fails is never left as done."""

    number: int
    label: str
    sides: tuple[str, ...] = ("before", "after")

    @property
    def phase(self) -> str:
        """``start``, ``train``, ``save N`` or ``finish``."""
        return self.label.partition(":")[0]


@dataclass(frozen=True)
class Try:
    """Where to kill: a point, a side of it, how, and whether the disk is lost too."""

    point: Point
    side: str
    act: str = "die"
    empty_disk: bool = False

    def __str__(self) -> str:
        how = {"overtaken": " once overtaken", "lose mover": ", the mover"}.get(self.act, "")
        return f"{self.side} {self.point.number} ({self.point.label}){how}" + (
            ", disk emptied" if self.empty_disk else ""
        )


@dataclass(frozen=True)
class Place:
    """One vault and one disk."""

    vault: str
    folder: Path

    @property
    def output(self) -> Path:
        """The run's output_dir."""
        return self.folder / "output"


@dataclass(frozen=True)
class Expected:
    """What the next start goes on from: its first step, and the event that says how."""

    step: int
    event: str


@dataclass
class Campaign:
    """Runs the program on vaults of one kind.

    Attributes:
        forks: starts the runs.
        scratch: folder for everything.
        new_vault: gives the URI of a vault that nobody has used, for a folder of its own.
        env: variables for the runs, such as credentials.
        program: what is run, ``module:function``, with the arguments of ``tests.campaign.killed_training:train``.
        options: more arguments for it.
        failures: what went wrong, one text each.
        tried: how many kills there were.
    """

    forks: ForkServer
    scratch: Path
    new_vault: Callable[[Path], str]
    env: dict[str, str] = field(default_factory=dict)
    program: str = PROGRAM
    options: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    tried: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reference: str | None = None

    def place(self, name: str = "") -> Place:
        """Return a new vault and a new disk."""
        folder = self.scratch / (name or uuid.uuid4().hex)
        folder.mkdir(parents=True)
        return Place(self.new_vault(folder), folder)

    def run(self, place: Place, name: str, **arguments: Any) -> tuple[Outcome, list[dict[str, Any]]]:
        """Run the program at a place and return how it ended and its journal."""
        outcome = self.begin(place, name, **arguments).wait()
        return outcome, read_journal(place.folder / f"{name}.journal")

    def begin(self, place: Place, name: str, **arguments: Any) -> Run:
        """Start the program at a place."""
        request = {
            "vault": place.vault,
            "output": str(place.output),
            "journal": str(place.folder / f"{name}.journal"),
            "result": str(place.folder / f"{name}.result"),
            **self.options,
            **arguments,
        }
        return self.forks.start(self.program, request, place.folder / name, env=self.env)

    @property
    def reference(self) -> str:
        """The result of an uninterrupted stock run: what every run has to end with."""
        with self._lock:
            if self._reference is None:
                place = self.place("reference")
                outcome, _ = self.run(place, "stock", vault=None)
                assert outcome.code == 0, outcome.errors
                self._reference = (place.folder / "stock.result").read_text()
        return self._reference

    def record(self, place: Place | None = None) -> list[Point]:
        """Run to the end, undisturbed, at a new place or an old one; return its points."""
        place = place or self.place()
        outcome, journal = self.run(place, "recording")
        assert outcome.code == 0, outcome.errors
        assert (place.folder / "recording.result").read_text() == self.reference
        self.drop(place)
        sides: dict[int, list[str]] = {}
        for line in journal:
            if "of" in line:
                sides.setdefault(line["of"], []).append(line["side"])
        return [
            Point(number := line["point"], line["label"], ("before", *sides.get(number, ())))
            for line in journal
            if "point" in line
        ]

    def _run_into(self, place: Place, attempt: Try, name: str) -> tuple[Outcome, list[dict[str, Any]]]:
        point = attempt.point
        return self.run(place, name, kill=point.number, side=attempt.side, label=point.label, act=attempt.act)

    def kill(self, place: Place, attempt: Try, name: str = "first") -> int:
        """Run until the kill, and check that it happened just there, and that what it was told is in the log.

        Return the step of the newest save that had returned to the training; 0: none had.
        """
        outcome, journal = self._run_into(place, attempt, name)
        reached = [line for line in journal if "reached" in line]
        how = f"it wasn't killed there: exit {outcome.code}, {journal[-1:]}\n{outcome.errors}"
        assert outcome.code == -9, how
        assert reached, how
        landed = {line["landed"] for line in journal if "landed" in line}
        there = entries(place.vault)
        assert landed <= there, f"entries {sorted(landed - there)} were acknowledged, and aren't in the log"
        if there:
            assert_whole(place.vault)
        # A step ends before its save.
        ended = max((line["step"] for line in journal if "step" in line), default=1)
        saved = (ended - 1) // SAVE_STEPS * SAVE_STEPS
        # Beside the training the newest may still be on its way: a kill costs that one.
        return saved - SAVE_STEPS * bool(self.options.get("beside"))

    def finish(self, place: Place, expected: Expected, name: str = "last") -> None:
        """Start again, to the end; check where it went on, what it ended with, and what it left."""
        outcome, journal = self.run(place, name)
        assert outcome.code == 0, outcome.errors
        starts = [line["start"] for line in journal if "start" in line]
        assert starts == [expected.step], f"it started at {starts}, {expected} was due\n{outcome.errors}"
        events = [line["event"] for line in journal if "event" in line]
        assert expected.event in events, f"{expected} isn't among the events {events}"
        assert "walk-back" not in events, outcome.errors
        result = (place.folder / f"{name}.result").read_text()
        assert result == self.reference, (
            f"the end differs from an uninterrupted run's\n{result}\n{self.reference}"
        )
        with open_vault(place.vault) as vault:
            newest = vault.state.newest if vault.state else None
            assert newest is not None
            assert newest.step == STEPS
        assert_whole(place.vault)
        left = leftovers(place.output)
        assert not left, f"left on the disk: {left}"

    def outlive(self, place: Place, attempt: Try) -> None:
        """Lose the mover there, and check that the run ends as if nothing had happened, with every checkpoint."""
        outcome, journal = self._run_into(place, attempt, "first")
        assert outcome.code == 0, f"exit {outcome.code}, {journal[-1:]}\n{outcome.errors}"
        assert any("reached" in line for line in journal), outcome.errors
        commits = [line["about"] for line in journal if line.get("event") == "commit"]
        assert commits == list(range(SAVE_STEPS, STEPS + 1, SAVE_STEPS)), outcome.errors
        assert (place.folder / "first.result").read_text() == self.reference
        assert_whole(place.vault)

    def attempt(self, attempt: Try, start: Place | None = None) -> None:
        """One kill (at a copy of ``start``, if given) and the next start; note a failure."""
        with self._lock:
            self.tried += 1
        place = self.place()
        try:
            if start is not None:
                copy_place(start, place)
            if attempt.act == "lose mover":
                self.outlive(place, attempt)
            else:
                saved = self.kill(place, attempt)
                due = expected(place)
                assert due.step >= saved, f"step {saved} had been saved, and only {due} can be gone on from"
                if attempt.empty_disk:
                    shutil.rmtree(place.output, ignore_errors=True)
                    due = expected(place)
                self.finish(place, due)
        except AssertionError as error:
            with self._lock:
                self.failures.append(f"{attempt} in {place.folder}: {error}")
        else:
            self.drop(place)

    def attempt_all(
        self, attempts: Sequence[Try], start: Place | None = None, *, jobs: int = 2, tell: Any = None
    ) -> None:
        """Carry out attempts, ``jobs`` at a time; ``tell`` is called with the number done."""
        with ThreadPoolExecutor(jobs) as pool:
            for done, _ in enumerate(pool.map(lambda each: self.attempt(each, start), attempts), 1):
                if tell is not None:
                    tell(done)

    def drop(self, place: Place) -> None:
        """Delete a place."""
        if "://" in place.vault:
            store = open_store(place.vault)
            store.delete([item.key for item in store.list("")])
        shutil.rmtree(place.folder)


def tries(points: Iterable[Point], *, act: str = "die", empty_disk: bool = False) -> list[Try]:
    """Return the attempts on each side of each point."""
    return [Try(point, side, act, empty_disk) for point in points for side in point.sides]


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal; a kill never leaves half a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def entries(vault: str) -> set[int]:
    """Return the numbers of the entries in a vault's log."""
    try:
        store = open_store(vault, create=False)
    except ObjectNotFoundError:
        return set()
    return {number for item in store.list(LOG) if (number := entry_number(item.key)) is not None}


def assert_whole(vault: str) -> None:
    """Check that every live checkpoint of a vault is whole: at every instant, a deletion under way or not."""
    try:
        opened = open_vault(vault)
    except ObjectNotFoundError:
        return  # killed before its claim
    for commit in opened.checkpoints():
        report = opened.verify(commit)
        assert report.ok, f"a live checkpoint isn't whole: {report.problems}"


def expected(place: Place) -> Expected:
    """Work out what the next start at a place has to go on from."""
    try:
        state = open_vault(place.vault).state
    except ObjectNotFoundError:
        state = None
    if state is None:
        return Expected(0, "fresh")
    live = [commit for commit in state.commits if not commit.left_behind]
    newest = live[-1] if live else None
    sealed, token = None, state.token
    while sealed is None:
        folder = place.output / LOCAL / state.vault_id / str(token)
        best = committed = newest.seq if newest is not None and newest.token == token else 0
        for path in [*folder.glob("*/written.json"), *folder.glob("*/manifest.json")]:
            manifest = json.loads(path.read_text())
            # The note: on the boot on which the campaign runs it counts.
            manifest = manifest.get("manifest", manifest)
            named = re.match(r"\d+", path.parent.name)
            if named and int(named[0]) == manifest["seq"] > best:
                best, sealed = manifest["seq"], manifest["step"]
        ahead = unfrozen(place, folder)
        if ahead is not None and ahead["seq"] > best:
            best, sealed = ahead["seq"], ahead["step"]
        if committed:
            break
        if (folder / "adopting").is_file():  # it was about to go on from that one's
            token = int((folder / "adopting").read_text())
            continue
        earlier = [writer for writer in died_behind_its_claim(place, state) if writer < token]
        if not earlier:
            break
        token = max(earlier)
    if sealed is not None:
        return Expected(sealed, "adopt")
    return Expected(newest.step, "restore") if newest else Expected(0, "fresh")


def died_behind_its_claim(place: Place, state: VaultState) -> list[int]:
    """Return whose snapshots count beside the newest claim's, where a start died before it had looked for any."""
    note = place.output / LOCAL / state.vault_id / "claiming"
    if not note.is_file():
        return []
    found = json.loads(note.read_bytes())
    claim = Log(open_store(place.vault)).read(state.token)
    return list(found["writers"]) if claim.detail.get("start") == found["start"] else []


def unfrozen(place: Place, writer: Path) -> dict[str, Any] | None:
    """Return the manifest of the folder that a writer was saving, where its last file is there and it is no copy."""
    note = writer / "unfrozen.json"
    if not note.is_file():
        return None
    found = json.loads(note.read_text())
    folder = place.output / f"checkpoint-{found['manifest']['step']}"
    if not folder.is_dir():
        return None  # written beside the training, and killed before it had its name
    last = [folder / "trainer_state.json", folder / "vaultlayer.json"]
    same = all((folder / name).stat().st_ino == look[2] for name, look in found["files"].items())
    manifest: dict[str, Any] = found["manifest"]
    return manifest if same and any(path.is_file() for path in last) else None


def leftovers(output: Path) -> list[str]:
    """Return what lies in ``output_dir`` and beside it after a run's end and is of no use any more."""
    beside = workspace(output)
    found = [path for path in (output / LOCAL).rglob("*") if not path.is_dir()]
    return sorted(map(str, [*found, *beside.rglob("*"), *([beside] if beside.exists() else [])]))


def copy_place(source: Place, target: Place) -> None:
    """Copy a vault and a disk."""
    if source.output.exists():
        shutil.copytree(source.output, target.output, copy_function=shutil.copy2)
    if "://" not in source.vault:
        shutil.copytree(source.vault, target.vault)
        return
    origin, goal = open_store(source.vault), open_store(target.vault)
    for item in origin.list(""):
        goal.write(item.key, origin.read(item.key, limit=2**30))
