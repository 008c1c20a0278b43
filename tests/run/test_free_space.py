"""What `vl run` deletes on a full disk: only what the vault has or what was torn, whichever seam wrote it."""

from __future__ import annotations

import shutil
import time

import pytest
import torch

from tests.trainer import kit
from vaultlayer_hf import Checkpointer, open_vault
from vaultlayer_hf.run.decide.clean import decide_deletions
from vaultlayer_hf.run.free_space import free_space, free_space_of_attempt
from vaultlayer_hf.run.journal import append
from vaultlayer_hf.run.report import LOOP, TRAINER
from vaultlayer_hf.session.output_dir import checkpoints

pytestmark = pytest.mark.filterwarnings("ignore")


def train_loop(folder, steps: int = 6) -> None:
    """A loop that saves every two steps, and leaves its checkpoints of all steps on the disk."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = Checkpointer(
        str(folder / "vault"), model=model, optimizer=optimizer, save_every="none", output_dir=folder / "out"
    )
    loop.resume()
    for step in range(1, steps + 1):
        loop.step()
        if step % 2 == 0:
            loop.save()
            while step not in committed(folder):  # else the next save would take this one's place
                time.sleep(0.01)
    loop.finish()


def committed(folder) -> list[int]:
    """The steps of the vault's checkpoints."""
    with open_vault(str(folder / "vault")) as vault:
        return [commit.step for commit in vault.checkpoints()]


def steps_of(folder) -> list[int]:
    """The steps of the checkpoint folders that are left."""
    return list(checkpoints(folder / "out"))


def test_a_loops_newest_checkpoint_stays(tmp_path) -> None:
    """A loop's folders have no trainer_state.json and are whole: the newest stays, those behind it are in the vault."""
    train_loop(tmp_path)
    assert steps_of(tmp_path) == [2, 4, 6]
    _, removed = free_space(tmp_path / "out", str(tmp_path / "vault"), 1, LOOP)
    assert [one.step for one in removed] == [2, 4]
    assert steps_of(tmp_path) == [6]


def test_a_loops_torn_checkpoint_goes(tmp_path) -> None:
    """Without the file that a loop writes last a folder is torn; with it and without another, nobody can tell."""
    train_loop(tmp_path)
    shutil.copytree(tmp_path / "out" / "checkpoint-6", tmp_path / "out" / "checkpoint-8")
    (tmp_path / "out" / "checkpoint-8" / "vaultlayer.json").unlink()
    shutil.copytree(tmp_path / "out" / "checkpoint-6", tmp_path / "out" / "checkpoint-9")
    (tmp_path / "out" / "checkpoint-9" / "data_0.pt").unlink()
    _, removed = free_space(tmp_path / "out", str(tmp_path / "vault"), 1, LOOP)
    assert {one.step: one.reason for one in removed}[8] == "it lacks vaultlayer.json"
    assert steps_of(tmp_path) == [6, 9]


def test_a_trainers_torn_checkpoint_goes_and_whole_ones_that_only_the_disk_has_stay(tmp_path) -> None:
    """The newest whole one stays though it was never committed, and so does one of weights alone."""
    kit.trainer(tmp_path / "out", kit.Trainer, resume=str(tmp_path / "vault")).train()
    newest = max(checkpoints(tmp_path / "out"))
    for step in (newest + 2, newest + 4, newest + 6):
        shutil.copytree(tmp_path / "out" / f"checkpoint-{newest}", tmp_path / "out" / f"checkpoint-{step}")
    (tmp_path / "out" / f"checkpoint-{newest + 4}" / "optimizer.pt").unlink()
    (tmp_path / "out" / f"checkpoint-{newest + 6}" / "trainer_state.json").unlink()
    free_space(tmp_path / "out", str(tmp_path / "vault"), 1, TRAINER)
    left = [step for step in steps_of(tmp_path) if step >= newest]
    assert left == [newest, newest + 2, newest + 4]


def test_an_output_folder_that_is_gone_is_passed_over(tmp_path) -> None:
    """A temporary folder has gone with its process, and what filled the disk with it: nothing is to be freed there."""
    for name in ("gone", "out"):
        line = {"time": 0.0, "kind": "train", "output_dir": str(tmp_path / name)}
        append(tmp_path / "rank-0.jsonl", line)
    (tmp_path / "out").mkdir()
    said: list[str] = []
    assert free_space_of_attempt(tmp_path, "", lambda topic, text: said.append(text)) == 0
    assert len(said) == 1
    assert f"freed in {tmp_path / 'out'}" in said[0]


@pytest.mark.parametrize("seam", [TRAINER, LOOP, "somebody's own"])
def test_folders_of_somebody_else_stay(tmp_path, seam) -> None:
    """Where no vault and no folder here shows what a whole checkpoint holds, none is taken for torn."""
    for step in (2, 4):
        folder = tmp_path / "out" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    assert free_space(tmp_path / "out", None, 1, seam)[1] == []
    assert steps_of(tmp_path) == [2, 4]


def test_what_every_folder_lacks_is_no_sign_of_a_torn_one() -> None:
    """One that lacks more than the others is torn; what nobody can tell is kept."""
    found = decide_deletions({2: ["a"], 4: ["a", "b"], 6: None}, None)
    assert [(one.step, one.reason) for one in found] == [(4, "it lacks b")]
