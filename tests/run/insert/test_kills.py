"""Scripts that `vl init` has edited are killed and resumed, and end as the scripts that nobody has edited."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.forks import ForkServer
from tests.run.insert.kit import BY_HAND, EDITED, SCRIPTS, VARIANTS, VAULT
from tests.run.insert.run_script import STEPS, commits, vaults_in
from vaultlayer_hf.run.insert.apply import apply
from vaultlayer_hf.run.insert.propose import Proposal, propose

QUICK = (
    "step_loop",
    "functions",
    "accumulation",
    "accelerate_loop",
    "trainer",
    "data_iterator",
    "moving_average",
)
"""Edited and killed in each run of the tests; an even share of the others are slow tests, the command takes all."""
SHARE = [*EDITED[::2], *sorted(path.stem for path in VARIANTS.glob("*.py"))]


TURNS = {
    "two_optimizers": 2,
    "bare_tensor": 2,
    "cleared_behind": 2,
    "adversaries": 2,
    "encoder_decoder": 2,
    "penalty": 3,
}
"""How many optimizers step in one step of a script, where it is more than one."""
UNEVEN = ("critic_turns", "left_out_rounds", "states_by_epoch")
"""Scripts whose checkpoints aren't numbered by how often their optimizers have stepped."""


def same(one: object, other: object) -> bool:
    """Whether two states are equal bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def steps_of(folder: Path) -> int:
    """How many steps the last run that ended in this folder has done."""
    return json.loads((folder / STEPS).read_text())


class Story:
    """A script in two folders: unedited and unbroken, and edited, killed and started again on an emptied disk."""

    def __init__(self, name: str, forks: ForkServer, folder: Path, every: str = "2 steps") -> None:
        if name == "sft" and importlib.util.find_spec("trl") is None:
            pytest.skip("needs trl, which wants a newer transformers: pip install trl")
        self.forks, self.folder, self.name = forks, folder, name
        self.plain, self.edited = folder / "plain" / "train.py", folder / "edited" / "train.py"
        for path in (self.plain, self.edited):
            path.parent.mkdir()
            source = SCRIPTS / f"{name}.py"
            shutil.copy(source if source.exists() else VARIANTS / f"{name}.py", path)
        found = propose(self.edited, VAULT)
        assert isinstance(found, Proposal)
        apply(found)
        self.env = {"VAULTLAYER_SAVE_EVERY": every} if found.kind != "trainer" else {}
        self.vault = self.edited.parent / VAULT

    def run(self, script: Path, **more: object) -> int:
        """Run a script; return its exit code."""
        folder = self.folder / f"run-{len(list(self.folder.iterdir()))}"
        env = self.env if script is self.edited else {}
        done = self.forks.run(
            "tests.run.insert.run_script:run",
            {"script": str(script), "by_hand": self.name in BY_HAND, **more},
            folder,
            env=env,
        )
        assert done.code in (0, -9), done.errors
        return done.code

    def play(self, before_end: int, least: int = 0) -> tuple[int, int]:
        """Kill the edited script so many steps before its end; return how many steps are in vaults, and of how many.

        ``least``: the step that the newest commit has to be behind.
        """
        assert self.run(self.plain) == 0
        turns = TURNS.get(self.name, 1)
        total = steps_of(self.plain.parent)
        assert self.run(self.edited, die_at=total - before_end, vault=str(self.vault), least=least) == -9
        newest = sum(commits(vault)[-1] for vault in vaults_in(self.vault))
        for path in self.edited.parent.iterdir():
            if path.name not in ("train.py", "vaults"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert self.run(self.edited) == 0
        done = steps_of(self.edited.parent)
        assert done < total if self.name in UNEVEN else done == total - newest * turns
        expected = torch.load(self.plain.parent / "model.pt")
        assert same(torch.load(self.edited.parent / "model.pt"), expected)
        return newest, total // turns


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SHARE if name not in QUICK)],
)
def test_edited_script_survives_a_kill(name, forks: ForkServer, tmp_path) -> None:
    """Unedited and unbroken, or edited, killed and started again on an emptied disk: the same weights, bit by bit."""
    newest, total = Story(name, forks, tmp_path).play(before_end=2)
    assert 0 < newest < total - 1


@pytest.mark.parametrize(
    ("name", "epoch"), [("epochs", 5), pytest.param("accelerate_loop", 8, marks=pytest.mark.slow)]
)
def test_saved_at_the_end_of_an_epoch(name, epoch, forks: ForkServer, tmp_path) -> None:
    """A checkpoint that falls due at an epoch's last batch resumes with the next epoch, in its own order."""
    newest, _ = Story(name, forks, tmp_path, every=f"{epoch} steps").play(before_end=2)
    assert newest % epoch == 0


@pytest.mark.parametrize("name", ["moves_ahead", "left_out_rounds"])
def test_goes_on_within_a_later_epoch(name, forks: ForkServer, tmp_path) -> None:
    """What an epoch or a left out round has moved on before the kill is neither done twice nor left out."""
    newest, _ = Story(name, forks, tmp_path).play(before_end=2, least=13)
    assert newest > 13


@pytest.mark.parametrize("name", ["step_loop", "epochs"])
def test_started_again_after_its_end_it_trains_nothing(name, forks: ForkServer, tmp_path) -> None:
    """An edited script whose run is finished ends at once, with the weights that it had."""
    story = Story(name, forks, tmp_path)
    assert story.run(story.edited) == 0
    first = torch.load(story.edited.parent / "model.pt")
    assert story.run(story.edited) == 0
    assert steps_of(story.edited.parent) == 0
    assert same(torch.load(story.edited.parent / "model.pt"), first)
