"""One line in a script that calls save_state and load_state already."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.harness import Campaign, tries
from tests.campaign.points import STEPS
from tests.forks import ForkServer
from vaultlayer_hf import open_vault
from vaultlayer_hf.loops.hooks import step_of


@pytest.fixture
def scripts(forks: ForkServer, scratch: Path) -> Campaign:
    """Attached scripts on vaults in folders."""
    return Campaign(
        forks, scratch, lambda folder: str(folder / "vault"), program="tests.loops.killed_script:train"
    )


def _run(scripts: Campaign, place: Any, name: str, **more: Any) -> dict[str, Any]:
    outcome, journal = scripts.run(place, name, **more)
    assert outcome.code == (-9 if "die_at" in more else 0), outcome.errors
    notes = {key: value for line in journal for key, value in line.items()}
    return {**notes, "messages": [line["message"] for line in journal if "event" in line]}


@pytest.mark.parametrize("naming", ["automatic", "steps", "one"])
def test_killed_on_an_empty_disk(scripts: Campaign, naming: str) -> None:
    """Killed between saves, its disk lost: the script finds its folder where it had it, and ends bit-identical."""
    scripts.options = {"naming": naming, "steps": 8}
    place = scripts.place()
    for step in (3, 5, 7):
        _run(scripts, place, f"life-{step}", die_at=["learnt", step])
        shutil.rmtree(place.output)
    found = _run(scripts, place, "last")
    name = {"automatic": "checkpoints/checkpoint_2", "steps": "step_6", "one": "last"}[naming]
    assert found["folder"] == str(place.output / name)
    assert (place.folder / "last.result").read_text() == scripts.reference
    with open_vault(place.vault) as vault:
        assert vault.state is not None
        assert vault.state.finished is not None
        assert all(vault.verify(commit).ok for commit in vault.checkpoints())


def test_killed_inside_saves(scripts: Campaign, chance: random.Random) -> None:
    """Killed at random operations of its saves and starts: it goes on from what was acknowledged, bit-identical."""
    scripts.options = {"naming": "steps"}
    # Not of the last save: nothing is committed behind it, which would clear its snapshot away.
    points = [point for point in scripts.record() if point.phase != f"save {STEPS}"]
    scripts.attempt_all(chance.sample(tries(points, empty_disk=True), 3))
    assert not scripts.failures, "\n".join(scripts.failures)


def test_killed_on_s3(forks: ForkServer, scratch: Path, s3_uri: str, s3_env: dict[str, str]) -> None:
    """The same on a real S3 server."""
    on_s3 = Campaign(forks, scratch, lambda folder: s3_uri, s3_env, program="tests.loops.killed_script:train")
    on_s3.options = {"naming": "automatic", "steps": 8}
    place = on_s3.place()
    for step in (3, 6):
        _run(on_s3, place, f"life-{step}", die_at=["learnt", step])
        shutil.rmtree(place.output)
    found = _run(on_s3, place, "last")
    assert found["folder"] == str(place.output / "checkpoints" / "checkpoint_1")
    assert (place.folder / "last.result").read_text() == on_s3.reference


def test_killed_on_the_same_disk(scripts: Campaign) -> None:
    """What a killed save left behind the checkpoint that it goes on from is out of the way of accelerate's naming."""
    scripts.options = {"naming": "automatic", "steps": 8}
    place = scripts.place()
    _run(scripts, place, "first", die_at=["learnt", 5])
    torn = place.output / "checkpoints" / "checkpoint_2"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"torn")
    found = _run(scripts, place, "last")
    assert found["folder"] == str(place.output / "checkpoints" / "checkpoint_1")
    assert (place.folder / "last.result").read_text() == scripts.reference
    kept = sorted(path.name for path in (place.output / "checkpoints").iterdir())
    assert kept == ["checkpoint_2", "checkpoint_3"], "total_limit=2 is accelerate's still"


def test_the_log_says_what_was_loaded(scripts: Campaign) -> None:
    """A folder that the script names and that is there wins; one that isn't gives way to the vault's; both are said."""
    scripts.options = {"naming": "steps", "steps": 6}
    place = scripts.place()
    _run(scripts, place, "first", die_at=["learnt", 5])
    named = _run(scripts, place, "named", die_at=["learnt", 3], load=str(place.output / "step_2"))
    assert any("step_2') wins over" in message for message in named["messages"])
    gone = _run(scripts, place, "gone", load=str(place.output / "step_99"))
    assert any("step_99 isn't here" in message for message in gone["messages"])
    assert (place.folder / "gone.result").read_text() == scripts.reference


def test_a_script_that_loads_nothing_is_told(scripts: Campaign) -> None:
    """Never at step 0 in silence: the log says that the vault holds a checkpoint, and how to come back to it."""
    scripts.options = {"naming": "steps", "steps": 6}
    place = scripts.place()
    _run(scripts, place, "first", die_at=["learnt", 5])
    again = _run(scripts, place, "again", load=None)
    assert any("started without load_state()" in message for message in again["messages"])


def test_steps_of_folders() -> None:
    """The step of a folder is the number in its name, and never falls: the log's order is the run's."""
    assert step_of("step_100", 0) == 100
    assert step_of("checkpoint_0", 0) == 1
    assert step_of("epoch_1", 100) == 101
    assert step_of("last", 7) == 8
