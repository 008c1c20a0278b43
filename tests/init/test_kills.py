"""Scripts that `vl init` has edited are killed and resumed, and end as the scripts that nobody has edited."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

import vaultlayer_hf
from tests.forks import ForkServer
from tests.init.kit import EDITED, SCRIPTS, VAULT
from tests.init.program import STEPS, commits
from vaultlayer_hf.insert.apply import apply
from vaultlayer_hf.insert.propose import Proposal, propose

QUICK = ("step_loop", "functions", "accumulation", "accelerate_loop", "trainer")
"""Edited and killed in each run of the tests; the others are slow tests."""


def same(one: object, other: object) -> bool:
    """Whether two states are equal bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def steps_of(folder: Path) -> int:
    """How many steps the last run that ended in this folder has done."""
    return json.loads((folder / STEPS).read_text())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EDITED],
)
def test_edited_script_survives_a_kill(name, forks: ForkServer, tmp_path) -> None:
    """Unedited and unbroken, or edited, killed and started again on an emptied disk: the same weights, bit by bit."""
    if name == "sft" and importlib.util.find_spec("trl") is None:
        pytest.skip("needs trl, which wants a newer transformers: pip install trl")
    plain, edited = tmp_path / "plain" / "train.py", tmp_path / "edited" / "train.py"
    for path in (plain, edited):
        path.parent.mkdir()
        shutil.copy(SCRIPTS / f"{name}.py", path)
    found = propose(edited, VAULT)
    assert isinstance(found, Proposal)
    if found.kind != "trainer" and "Checkpointer" not in vaultlayer_hf.__all__:
        pytest.skip("loops need a Checkpointer")
    apply(found)
    env = {"VAULTLAYER_SAVE_EVERY": "2 steps"} if found.kind != "trainer" else {}

    done = forks.run("tests.init.program:run", {"script": str(plain)}, tmp_path / "1")
    assert done.code == 0, done.errors
    total = steps_of(plain.parent)
    expected = torch.load(plain.parent / "model.pt")

    vault = edited.parent / VAULT
    arguments = {"script": str(edited), "die_at": total - 2, "vault": str(vault)}
    done = forks.run("tests.init.program:run", arguments, tmp_path / "2", env=env)
    assert done.code == -9, done.errors
    newest = commits(vault)[-1]
    assert 0 < newest < total - 1
    for path in edited.parent.iterdir():
        if path.name not in ("train.py", "vaults"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    done = forks.run("tests.init.program:run", {"script": str(edited)}, tmp_path / "3", env=env)
    assert done.code == 0, done.errors
    assert steps_of(edited.parent) == total - newest
    assert same(torch.load(edited.parent / "model.pt"), expected)
