"""Where a loop's checkpoints lie when no folder is named: no two vaults share one, and an upgrade loses none."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer, Settings, open_vault
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.vault.snapshot import COPY_BELOW, LOCAL


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a script lies in."""
    monkeypatch.setattr("__main__.__file__", str(tmp_path / "train.py"), raising=False)
    return tmp_path


def checkpointer(vault: Path, value: float, output_dir: Path | None = None) -> Checkpointer:
    """A Checkpointer of a model that is filled with one value, and large enough that its file is linked."""
    model = torch.nn.Linear(600, 600, bias=False)
    assert model.weight.nbytes > COPY_BELOW
    torch.nn.init.constant_(model.weight, value)
    settings = Settings(vault=str(vault), resume_timeout=2.0, flush_timeout=0.5)
    return Checkpointer(settings, model=model, save_every="none", output_dir=output_dir)


def folders(beside: Path) -> list[Path]:
    """The folders of checkpoints beside the script."""
    return sorted(beside.glob("checkpoints-*"))


def test_vaults_that_end_alike_have_folders_of_their_own(beside: Path) -> None:
    """Two runs of a sweep, lr1/run and lr2/run, side by side: each commits the weights that it has trained."""
    from safetensors.torch import load

    runs = {value: checkpointer(beside / f"lr{value}" / "run", value) for value in (1, 2)}
    for ckpt in runs.values():
        ckpt.resume()
    for ckpt in runs.values():
        ckpt.step()
        ckpt.save()
    for ckpt in runs.values():
        ckpt.finish()
    assert [path.name.rpartition("-")[0] for path in folders(beside)] == ["checkpoints-run"] * 2
    for value in runs:
        with open_vault(str(beside / f"lr{value}" / "run")) as vault:
            weights = load(vault.read(vault.checkpoint(), "model.safetensors"))["weight"]
            assert weights.unique().tolist() == [value]


def test_one_vault_has_one_folder(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the vault is written, with a step too, its folder is the same; its name says the vault's."""
    monkeypatch.chdir(beside)
    for vault in ("my run", str(beside / "my run"), "file://" + str(beside / "my run"), "my run@1"):
        ckpt = Checkpointer(vault, model=torch.nn.Linear(1, 1), save_every="none")
        ckpt.resume()
        ckpt.step()
        ckpt.finish()
    (folder,) = folders(beside)
    assert folder.name.rpartition("-")[0] == "checkpoints-my-run"


def _leave_unsent(vault: Path, folder: Path) -> None:
    """Train on a vault up to step 1, which is committed, then to step 2, which stays sealed on the disk."""
    ckpt = checkpointer(vault, 1, output_dir=folder)
    ckpt.resume()
    ckpt.step()
    ckpt.save()
    deadline = time.monotonic() + 30
    while len(list((vault / "log").glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.rename(vault, vault.with_name("away"))
    ckpt.step()
    ckpt.save()
    while not list(folder.glob(f"{LOCAL}/*/*/2-checkpoint-2/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    ckpt.close()
    os.rename(vault.with_name("away"), vault)


def test_a_folder_named_by_an_earlier_version_is_gone_on_with(beside: Path) -> None:
    """What an earlier version left there unsent is adopted, and committed; further checkpoints lie there, too."""
    _leave_unsent(beside / "a" / "run", beside / "checkpoints-run")
    ckpt = checkpointer(beside / "a" / "run", 0)
    assert ckpt.resume() == 2
    ckpt.step()
    ckpt.finish()
    assert folders(beside) == [beside / "checkpoints-run"]
    with open_vault(str(beside / "a" / "run")) as vault:
        assert [commit.step for commit in vault.checkpoints()] == [1, 2, 3]


def test_a_folder_that_another_vault_has_used_is_left_alone(beside: Path) -> None:
    """Where earlier versions let two vaults share a folder, or the other one has it, a new one is begun."""
    _leave_unsent(beside / "b" / "run", beside / "checkpoints-run")
    ckpt = checkpointer(beside / "a" / "run", 0)
    assert ckpt.resume() == 0
    ckpt.step()
    ckpt.finish()
    _leave_unsent(beside / "c" / "run", beside / "checkpoints-run")  # now it holds what b and c have left
    again = checkpointer(beside / "b" / "run", 0)
    assert again.resume() == 1
    again.close()
    assert len(folders(beside)) == 3


def test_files_that_an_empty_disk_lacks_are_said(tmp_path: Path) -> None:
    """What the loop had written beside its checkpoints is named behind the first step; on the same disk nothing is."""

    def play(steps: int, *, write: bool) -> list[str]:
        out = tmp_path / "o"
        said: list[Event] = []
        ckpt = Checkpointer(tmp_path / "v", model=torch.nn.Linear(2, 1), save_every="none", output_dir=out)
        listen(ckpt, said.append)
        ckpt.resume()
        for _ in range(steps):
            ckpt.step()
        if write:
            out.mkdir(exist_ok=True)
            (out / "table.csv").write_text("1")
        ckpt.save()
        ckpt.close()
        return [one.message for one in said if "the script had written" in one.message]

    assert play(1, write=True) == []
    assert play(1, write=False) == []
    shutil.rmtree(tmp_path / "o")
    (words,) = play(2, write=False)
    assert words.startswith("table.csv: the script had written these into its output folder by checkpoint-2")
