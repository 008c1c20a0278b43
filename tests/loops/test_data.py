"""What a loop gets of its data behind a kill is what it would have got, whoever draws, loads or keeps the position."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.harness import Campaign
from tests.forks import ForkServer

PLAIN, ACCELERATE, PASSES = {"form": "steps"}, {"form": "accelerate"}, {"form": "passes"}
DRAWS = {"augment": True}
WORKERS = {"workers": 2}
PERSISTENT = {**WORKERS, "persistent": True}
STREAM, TELLING = {"data": "stream"}, {"data": "telling"}
STATEFUL = {"stateful": True}

ALWAYS: list[dict[str, Any]] = [
    {**PLAIN, **DRAWS, **WORKERS},
    {**PLAIN, **DRAWS, **PERSISTENT},
    {**ACCELERATE, **DRAWS},
    {**ACCELERATE, **DRAWS, **PERSISTENT},
    {**PASSES, **DRAWS, **PERSISTENT},
    {**PLAIN, **DRAWS, **STREAM},
    {**ACCELERATE, **DRAWS, **TELLING},
    {**PLAIN, **DRAWS, **STATEFUL},
    {**ACCELERATE, **DRAWS, **STATEFUL},
]
SLOW: list[dict[str, Any]] = [
    {**PLAIN, **DRAWS},
    {**ACCELERATE, **DRAWS, **WORKERS},
    {**PASSES, **DRAWS, **WORKERS},
    {**PASSES, **DRAWS, **STATEFUL},
    {**PLAIN, **DRAWS, **STREAM, **PERSISTENT},
    {**PLAIN, **DRAWS, **TELLING, **WORKERS},
    {**PLAIN, **DRAWS, **TELLING},
    {**ACCELERATE, **DRAWS, **STREAM},
    {**ACCELERATE, **DRAWS, **STREAM, **WORKERS},
    {**ACCELERATE, **DRAWS, **TELLING, **PERSISTENT},
    {**PLAIN, **STATEFUL, **WORKERS},
    {**PLAIN, **DRAWS, **STATEFUL, **TELLING},
]


def _name(options: dict[str, Any]) -> str:
    return "-".join(key if value is True else str(value) for key, value in options.items())


@pytest.fixture
def on_folders(forks: ForkServer, scratch: Path) -> Campaign:
    """Loops on vaults in folders."""
    return Campaign(
        forks, scratch, lambda folder: str(folder / "vault"), program="tests.loops.killed_loop:train"
    )


@pytest.mark.parametrize(
    "options", [*ALWAYS, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)], ids=_name
)
def test_the_same_run(on_folders: Campaign, options: dict[str, Any]) -> None:
    """Unbroken it ends as without a Checkpointer; killed within, behind and between passes of a lost disk, as well."""
    on_folders.options = {**options, "steps": 8, "every": "1 step"}
    on_folders.record()
    deaths = [["stepped", 1], ["learnt", 3], ["stepped", 6]]  # a pass has three batches
    place = on_folders.place()
    for number, death in enumerate(deaths):
        outcome, _ = on_folders.run(place, f"life-{number}", die_at=death)
        assert outcome.code == -9, outcome.errors
        shutil.rmtree(place.output)
    outcome, journal = on_folders.run(place, "last")
    assert outcome.code == 0, outcome.errors
    assert [line["start"] for line in journal if "start" in line] == [7]
    doubted = bool(options.get("stateful") and options.get("workers"))
    assert any(line.get("event") == "inexact" for line in journal) == doubted, journal
    assert (place.folder / "last.result").read_text() == on_folders.reference


@pytest.mark.slow
def test_what_may_differ_is_said(on_folders: Campaign) -> None:
    """Stateful loaders of accelerate with workers draw their order early: unbroken it is the same, else it is said."""
    on_folders.options = {**ACCELERATE, **STATEFUL, **WORKERS, "steps": 8, "every": "1 step"}
    on_folders.record()
    place = on_folders.place()
    outcome, _ = on_folders.run(place, "life", die_at=["stepped", 1])
    assert outcome.code == -9, outcome.errors
    outcome, journal = on_folders.run(place, "last")
    assert outcome.code == 0, outcome.errors
    said = [line["message"] for line in journal if line.get("event") == "inexact"]
    assert len(said) == 1
    assert "a StatefulDataLoader doesn't keep what is drawn" in said[0]
