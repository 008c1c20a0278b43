"""A script that `vl init` has edited, killed twice and resumed, beside itself unedited and unbroken."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.forks import ForkServer
from tests.run.insert.kit import BY_HAND, SCRIPTS, TURNS, UNEVEN, VARIANTS, VAULT
from tests.run.insert.run_script import STEPS, newest_commits
from vaultlayer_hf.run.insert.apply import apply
from vaultlayer_hf.run.insert.propose import Proposal, propose

MODEL = "model.pt"
"""What each script leaves at its end."""


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


def kill_steps(total: int) -> tuple[int, int]:
    """Return the steps at which a training of so many is killed."""
    return max(3, total * 2 // 3), total - 2


def empty_disk(script: Path) -> None:
    """Delete all that a script has left beside itself and its vaults."""
    for path in script.parent.iterdir():
        if path.name not in ("train.py", "vaults"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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

    def held(self) -> int:
        """How many steps the vaults hold together, as their checkpoints count."""
        return sum(newest_commits(self.vault))

    def kill(self, at: int) -> int:
        """Kill the edited script at a step of the whole training, and empty its disk; return what the vaults hold."""
        turns = TURNS.get(self.name, 1)
        before = round(self.held() * turns)
        code = self.run(self.edited, die_at=at, vault=str(self.vault), turns=turns, before=before)
        assert code == -9, f"it ended before step {at}"
        empty_disk(self.edited)
        return self.held()

    def end(self) -> object:
        """Run the edited script to its end, and return what it leaves: it ends as the unedited one, bit by bit."""
        assert self.run(self.edited) == 0
        left, expected = (
            torch.load(one.parent / MODEL, weights_only=False) for one in (self.edited, self.plain)
        )
        assert same(left, expected), "another end"
        return left

    def play(self, kills: Sequence[int] = ()) -> tuple[list[int], int]:
        """Kill the edited script again and again, each time on an emptied disk, and let it end.

        ``kills``: the steps; by default behind two thirds of all, and two steps before the end. What training does only
        in a later epoch, or behind a resume, has then been done before a kill, and is done behind one, too.

        Returns:
            what the vaults held at each kill, and how many steps there are, as checkpoints count.
        """
        assert self.run(self.plain) == 0
        total = steps_of(self.plain.parent)
        held = [self.kill(at) for at in kills or kill_steps(total)]
        self.end()
        turns = TURNS.get(self.name, 1)
        done = steps_of(self.edited.parent)
        assert done < total if self.name in UNEVEN else done == total - held[-1] * turns
        return held, round(total / turns)
