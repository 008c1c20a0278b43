"""Loops of one's own that are killed go on at the right step and end as if nothing had happened."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.harness import Campaign, tries
from tests.campaign.points import STEPS
from tests.forks import ForkServer

PROGRAM = "tests.loops.killed_loop:train"
FORMS: dict[str, dict[str, Any]] = {
    "guide": {"form": "guide"},
    "steps": {"form": "steps", "augment": True},
    "epochs": {"form": "epochs"},
    "accelerate": {"form": "accelerate"},
}


@pytest.fixture
def on_folders(forks: ForkServer, scratch: Path) -> Campaign:
    """Loops on vaults in folders."""
    return Campaign(forks, scratch, lambda folder: str(folder / "vault"), program=PROGRAM)


@pytest.mark.parametrize(
    "form", [pytest.param("guide", marks=pytest.mark.slow), "steps", "epochs", "accelerate"]
)
def test_killed_at_every_step(on_folders: Campaign, form: str) -> None:
    """Over several epochs, a kill before and after each step() and an empty disk: never off by one, bit-identical."""
    on_folders.options = {**FORMS[form], "steps": 7, "every": "1 step"}
    place = on_folders.place()
    due = 0
    for step in range(7):
        for moment in ("learnt", "stepped"):
            outcome, journal = on_folders.run(place, f"{moment}-{step}", die_at=[moment, step])
            assert outcome.code == -9, outcome.errors
            assert [line["start"] for line in journal if "start" in line] == [due]
            due = step + (moment == "stepped")
            shutil.rmtree(place.output, ignore_errors=True)
    outcome, journal = on_folders.run(place, "last")
    assert outcome.code == 0, outcome.errors
    assert [line["start"] for line in journal if "start" in line] == [7]
    assert (place.folder / "last.result").read_text() == on_folders.reference


@pytest.mark.parametrize(
    "form",
    ["guide", "accelerate", *(pytest.param(form, marks=pytest.mark.slow) for form in ("steps", "epochs"))],
)
def test_killed_inside_saves(on_folders: Campaign, form: str, chance: random.Random) -> None:
    """Killed at random operations of starts, saves and ends: it goes on from what was acknowledged, bit-identical."""
    on_folders.options = FORMS[form]
    # Not of the last save: nothing is committed behind it, which would clear its snapshot away.
    points = [point for point in on_folders.record() if point.phase != f"save {STEPS}"]
    attempts = tries(points) + tries(points, empty_disk=True)
    on_folders.attempt_all(chance.sample(attempts, 4))
    assert not on_folders.failures, "\n".join(on_folders.failures)


def test_killed_inside_saves_on_s3(
    forks: ForkServer, scratch: Path, s3_uri: str, s3_env: dict[str, str], chance: random.Random
) -> None:
    """The same on a real S3 server, the disk lost at each kill."""
    for form in ("guide", "accelerate"):
        on_s3 = Campaign(
            forks,
            scratch / form,
            lambda folder: f"{s3_uri}/{folder.name}",
            s3_env,
            program=PROGRAM,
            options=FORMS[form],
        )
        points = [point for point in on_s3.record() if point.phase != f"save {STEPS}"]
        on_s3.attempt_all(chance.sample(tries(points, empty_disk=True), 2))
        assert not on_s3.failures, "\n".join(on_s3.failures)


@pytest.mark.parametrize("form", ["guide", "accelerate"])
def test_told_to_end(on_folders: Campaign, form: str) -> None:
    """A SIGTERM: the step is ended, saved and uploaded, the exit code says so, and the next start goes on from it."""
    on_folders.options = {**FORMS[form], "steps": 5, "every": "100 steps"}
    place = on_folders.place()
    outcome, _ = on_folders.run(place, "told", die_at=["told", 2])
    assert outcome.code == 75, outcome.errors
    shutil.rmtree(place.output)
    outcome, journal = on_folders.run(place, "last")
    assert outcome.code == 0, outcome.errors
    assert [line["start"] for line in journal if "start" in line] == [3]
    assert (place.folder / "last.result").read_text() == on_folders.reference


@pytest.mark.parametrize(
    ("form", "count"),
    [
        ("guide", 2),
        pytest.param("guide", 8, marks=pytest.mark.slow),
        pytest.param("accelerate", 4, marks=pytest.mark.slow),
    ],
)
def test_killed_inside_saves_beside(
    on_folders: Campaign, form: str, count: int, chance: random.Random
) -> None:
    """The same with saves beside the training: captured, written, renamed and frozen, each a place to be killed at."""
    on_folders.options = {**FORMS[form], "beside": True}
    points = [point for point in on_folders.record() if point.phase == "save 4"]
    kinds = {
        kind: [point for point in points if re.search(kind, point.label)]
        for kind in ("pending-", "-save", "MainThread rename checkpoint-4", "MainThread")
    }
    assert all(kinds.values()), [point.label for point in points]
    attempts = [one for found in kinds.values() for one in chance.sample(tries(found), 1)]
    attempts += chance.sample(tries(points, empty_disk=True), count)
    on_folders.attempt_all(attempts[:count] if count < 4 else attempts)
    assert not on_folders.failures, "\n".join(on_folders.failures)
