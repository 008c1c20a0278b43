"""A vault that went bad, seen by a whole training: it goes on from the checkpoint before, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.harness import Campaign, Place
from tests.campaign.parts import MIDDLE, point_of
from tests.campaign.points import STEPS
from tests.forks import ForkServer
from vaultlayer_hf import open_vault
from vaultlayer_hf.stores import open_store

FILES = ["model.safetensors", "optimizer.pt", "rng_state.pth"]
KEEP = {"keep_last": 3}


@pytest.fixture(params=["folder", "s3"])
def campaign(request: pytest.FixtureRequest, forks: ForkServer, tmp_path: Path) -> Campaign:
    """Runs on vaults of each kind."""
    if request.param == "folder":
        return Campaign(forks, tmp_path, lambda folder: str(folder / "vault"))
    uri = request.getfixturevalue("s3_uri")
    return Campaign(forks, tmp_path, lambda folder: f"{uri}/{folder.name}", request.getfixturevalue("s3_env"))


def two_checkpoints(campaign: Campaign) -> Place:
    """Return a vault with the checkpoints of steps 2 and 4, whose run was killed, and an empty disk."""
    committed = point_of(campaign.record(), f"{MIDDLE}: vaultlayer remove_tree")
    place = campaign.place()
    outcome, _ = campaign.run(
        place, "first", kill=committed.number, side="after", label=committed.label, settings=KEEP
    )
    assert outcome.code == -9, outcome.errors
    host = Place(place.vault, place.folder / "new-host")
    host.folder.mkdir()
    return host


def flip(vault: str, key: str) -> None:
    """Flip a bit in the middle of an object."""
    store = open_store(vault)
    data = bytearray(store.read(key, limit=2**30))
    data[len(data) // 2] ^= 1
    store.write(key, bytes(data))


@pytest.mark.parametrize("name", FILES)
def test_a_training_walks_back(campaign: Campaign, name: str) -> None:
    """With one bit wrong in a file of the newest checkpoint, a run goes on from the one before, to the same end."""
    place = two_checkpoints(campaign)
    flip(place.vault, f"data/1/checkpoint-4/{name}")
    outcome, journal = campaign.run(place, "second", settings=KEEP)
    assert outcome.code == 0, outcome.errors
    assert [line["start"] for line in journal if "start" in line] == [2]
    said = [line["message"] for line in journal if line.get("event") == "walk-back"]
    assert len(said) == 1
    assert f"data/1/checkpoint-4/{name}" in said[0]
    assert (place.folder / "second.result").read_text() == campaign.reference
    with open_vault(place.vault) as vault:
        found = [(commit.step, commit.left_behind, vault.verify(commit).ok) for commit in vault.checkpoints()]
    assert found[-2:] == [(4, False, True), (STEPS, False, True)]


def test_a_training_does_not_start_over(campaign: Campaign) -> None:
    """With every checkpoint damaged train() ends with NoUsableCheckpointError, and not one step is trained."""
    place = two_checkpoints(campaign)
    flip(place.vault, "data/1/checkpoint-4/scheduler.pt")
    flip(place.vault, "data/1/checkpoint-2/rng_state.pth")
    outcome, journal = campaign.run(place, "second", settings=KEEP)
    assert outcome.code == 1
    last = outcome.errors.strip().splitlines()[-1]
    assert last.startswith("vaultlayer_hf.errors.NoUsableCheckpointError")
    assert "checkpoint-4/scheduler.pt" in last
    assert "checkpoint-2/rng_state.pth" in last
    assert not [line for line in journal if "start" in line or "step" in line]
    assert not list(place.output.glob("checkpoint-*"))
