"""The parts of the campaign: which points, killed how."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tests.campaign.harness import Campaign, Point, Try, copy_place, tries
from tests.forks import ForkServer
from tests.servers import SeaweedServer

_T = TypeVar("_T")
MIDDLE = "save 4"


def spread(items: Sequence[_T], limit: int | None) -> list[_T]:
    """Return at most ``limit`` items, evenly spread, the first and the last among them."""
    if limit is None or len(items) <= limit:
        return list(items)
    if limit < 2:
        return list(items[:limit])
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


def save(campaign: Campaign, limit: int | None, jobs: int) -> None:
    """Kill at every point of the start, of the save in the middle and of the end."""
    points = [point for point in campaign.record() if point.phase in ("start", MIDDLE, "finish")]
    campaign.attempt_all(spread(tries(points), limit), jobs=jobs)


def disk(campaign: Campaign, limit: int | None, jobs: int) -> None:
    """Kill at every fifth point, and lose the disk."""
    points = campaign.record()[2::5]
    campaign.attempt_all(spread(tries(points, empty_disk=True), limit), jobs=jobs)


def overtaken(campaign: Campaign, limit: int | None, jobs: int) -> None:
    """Kill at every other point of the upload thread, when training has queued the next checkpoint."""
    points = [point for point in campaign.record() if point.label.startswith(f"{MIDDLE}: vaultlayer ")][::2]
    campaign.attempt_all(spread(tries(points, act="overtaken"), limit), jobs=jobs)


def moved(campaign: Campaign, limit: int | None, jobs: int) -> None:
    """Have a process move every file; kill the run at every point of a save and of the end, or only that process."""
    before, campaign.options = campaign.options, {**campaign.options, "moved": True}
    points = [point for point in campaign.record() if point.phase in (MIDDLE, "finish")]
    said = [point for point in points if " mover." in point.label]
    half = None if limit is None else limit // 2
    campaign.attempt_all(spread(tries(points), half), jobs=jobs)
    campaign.attempt_all(spread(tries(said, act="lose mover"), half), jobs=jobs)
    campaign.options = before


def resume(campaign: Campaign, limit: int | None, jobs: int) -> None:
    """Kill the second start at every point until it trains: from a commit, and from a sealed snapshot.

    Not from one that is only whole: it doesn't count on a copy of the disk, which each of these kills gets.
    """
    for base in bases(campaign):
        first = campaign.place()
        campaign.kill(first, base)
        copy = campaign.place()
        copy_place(first, copy)
        points = [point for point in campaign.record(copy) if point.phase == "start"]
        campaign.attempt_all(spread(tries(points), limit), first, jobs=jobs)
        campaign.drop(first)


def bases(campaign: Campaign) -> list[Try]:
    """Return two kills of a first run: before the middle save counts, and when it is sealed."""
    points = campaign.record()
    note = point_of(points, f"{MIDDLE}: MainThread write written.json")
    seal = point_of(points, f"{MIDDLE}: vaultlayer rename manifest.json")
    return [Try(note, "before"), Try(seal, "after")]


def point_of(points: Sequence[Point], label: str) -> Point:
    """Return the first point whose label begins so."""
    return next(point for point in points if point.label.startswith(label))


PARTS: dict[str, Callable[[Campaign, int | None, int], None]] = {
    "save": save,
    "disk": disk,
    "overtaken": overtaken,
    "moved": moved,
    "resume": resume,
}


def shared_memory() -> str | None:
    """Return a folder in memory, which is enough where no power is cut; None where there is none."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


@contextlib.contextmanager
def campaign_on(store: str, scratch: Path) -> Iterator[Campaign]:
    """Give a campaign on folders, or on a real S3 server of its own."""
    with ForkServer() as forks:
        if store == "folder":
            yield Campaign(forks, scratch, lambda folder: str(folder / "vault"))
            return
        server = SeaweedServer()
        server.start()
        os.environ.update(server.env())
        try:
            yield Campaign(
                forks,
                scratch,
                lambda folder: f"s3://{server.bucket}/campaign-{uuid.uuid4().hex[:12]}",
                server.env(),
            )
        finally:
            server.close()
