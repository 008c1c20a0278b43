"""Trouble while a loop saves or resumes: of the disk, and of the script's own objects."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.inside import listen, settle
from vaultlayer_hf import Checkpointer, ResumeError, Settings, open_vault
from vaultlayer_hf.base.events import Event

MEGABYTE = 1_000_000


class Weights:
    """An object with a state of some megabytes, and with whatever trouble a test gives it."""

    def __init__(self, megabytes: int = 0, save: Any = None, load: Any = None) -> None:
        self.values = torch.randn(megabytes * MEGABYTE // 4 + 1)
        self.save, self.load = save, load

    def state_dict(self) -> dict[str, torch.Tensor]:
        if self.save is not None:
            raise self.save
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        if self.load is not None:
            raise self.load
        self.values = state["values"]


class Large(torch.nn.Module):
    """A model of some megabytes."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.randn(megabytes * MEGABYTE // 4))


def given(vault: Path, output_dir: Path, *, model: Any = None, optimizer: Any = None) -> Checkpointer:
    """A Checkpointer that saves at each step, and keeps all checkpoints."""
    settings = Settings(vault=str(vault), keep_last=None, resume_timeout=2.0)
    return Checkpointer(
        settings,
        model=model or torch.nn.Linear(2, 2),
        optimizer=optimizer,
        save_every=1,
        output_dir=output_dir,
    )


def steps(vault: Path) -> list[int]:
    """The steps that a vault holds, oldest first; each is whole."""
    with open_vault(str(vault)) as opened:
        assert all(opened.verify(commit).ok for commit in opened.checkpoints())
        return [commit.step for commit in opened.checkpoints()]


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk up to ``leave`` bytes, with a file that is returned."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return filler


@pytest.mark.parametrize("by", ["torch", "safetensors"])
def test_a_full_disk_costs_a_checkpoint_only(tmp_path: Path, small_disk: Path, by: str) -> None:
    """Whatever the library that writes makes of it: said with what fills the disk, nothing torn left, and gone on."""
    made: dict[str, Any] = {"optimizer": Weights(4)} if by == "torch" else {"model": Large(4)}
    ckpt = given(tmp_path / "vault", small_disk / "output", **made)
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.resume()
    filler = fill(small_disk, 2 * MEGABYTE)
    ckpt.step()
    (said,) = [event.message for event in heard if event.kind == "abandon"]
    assert "checkpoint-1 isn't committed, training goes on: it can't be written" in said
    assert "of 12.6 MB" in said
    assert "2.0 MB free" in said
    assert not (small_disk / "output" / "checkpoint-1").exists()
    filler.unlink()
    ckpt.step()
    ckpt.finish()
    assert steps(tmp_path / "vault") == [2]


def test_what_the_vault_holds_makes_room(tmp_path: Path, small_disk: Path) -> None:
    """Local copies of committed checkpoints go, oldest first, where the next one doesn't fit: none is lost."""
    ckpt = given(tmp_path / "vault", small_disk / "output", optimizer=Weights(3))
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.resume()
    for _ in range(6):
        ckpt.step()
        settle(ckpt)
    ckpt.finish()
    assert steps(tmp_path / "vault") == [1, 2, 3, 4, 5, 6]
    assert any("were removed, and this one is written again" in event.message for event in heard)
    left = sorted(path.name for path in (small_disk / "output").glob("checkpoint-*"))
    assert left == ["checkpoint-3", "checkpoint-4", "checkpoint-5", "checkpoint-6"], "as many as fit"


def test_what_waits_for_upload_is_never_given_up(tmp_path: Path, small_disk: Path) -> None:
    """On a full disk only what the vault holds goes: a checkpoint that isn't there yet stays, and is committed."""
    vault = tmp_path / "vault"
    ckpt = given(vault, small_disk / "output", optimizer=Weights(5))
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.resume()
    vault.rename(tmp_path / "away")
    for _ in range(3):  # two fit
        ckpt.step()
    assert any("checkpoint-3 isn't committed" in event.message for event in heard if event.kind == "abandon")
    (tmp_path / "away").rename(vault)
    settle(ckpt)
    assert steps(vault)[-1] == 2
    ckpt.finish()
    assert steps(vault)[-2:] == [2, 3], "the end is saved again, once there is room"


def test_a_run_whose_end_is_not_saved_is_not_done(tmp_path: Path, small_disk: Path) -> None:
    """Where the last checkpoint finds no room the vault doesn't say that the run is done, and the log says why."""
    ckpt = given(tmp_path / "vault", small_disk / "output", optimizer=Weights(4))
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.resume()
    fill(small_disk, MEGABYTE)
    ckpt.step()
    ckpt.finish()
    assert any("the run isn't noted as done" in event.message for event in heard)
    with open_vault(str(tmp_path / "vault")) as vault:
        assert vault.state is not None
        assert vault.state.finished is None


def test_trouble_of_the_disk_costs_a_checkpoint_only(tmp_path: Path) -> None:
    """Where a checkpoint can't be written, training goes on, the log says so, and the next one is committed."""
    ckpt = given(tmp_path / "vault", tmp_path / "output")
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.resume()
    (tmp_path / "output").mkdir(exist_ok=True)
    (tmp_path / "output" / "checkpoint-1").touch()
    ckpt.step()
    (said,) = [event.message for event in heard if event.kind == "abandon"]
    assert "checkpoint-1 isn't committed, training goes on: it can't be written" in said
    ckpt.step()
    ckpt.finish()
    assert steps(tmp_path / "vault") == [2]


def test_an_object_that_cannot_be_saved_costs_a_checkpoint_only(tmp_path: Path) -> None:
    """What a script's object raises while it is saved is said with its kind, and no training ends by it."""
    optimizer = Weights(save=AttributeError("no such thing"))
    ckpt = given(tmp_path / "vault", tmp_path / "output", optimizer=optimizer)
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.resume()
    ckpt.step()
    (said,) = [event.message for event in heard if event.kind == "abandon"]
    assert "AttributeError: no such thing" in said
    optimizer.save = None
    ckpt.step()
    ckpt.finish()
    assert steps(tmp_path / "vault") == [2]


def test_an_object_that_cannot_be_loaded_is_a_resume_error(tmp_path: Path) -> None:
    """Whatever a script's object raises while it is loaded: named with its file, and nothing is trained."""
    ckpt = given(tmp_path / "vault", tmp_path / "output", optimizer=Weights())
    ckpt.resume()
    ckpt.step()
    ckpt.finish()
    broken = given(tmp_path / "vault", tmp_path / "output", optimizer=Weights(load=AttributeError("other")))
    with pytest.raises(
        ResumeError, match=r"optimizer\.pt of checkpoint-1 can't be loaded: AttributeError: other"
    ):
        broken.resume()


def test_a_loss_that_is_no_number_costs_only_itself(tmp_path: Path) -> None:
    """A loss that can't be made a number is left out of the checkpoint, and the log says so."""
    ckpt = given(tmp_path / "vault", tmp_path / "output")
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.resume()
    ckpt.step(loss="low")
    ckpt.finish()
    assert steps(tmp_path / "vault") == [1]
    assert any("the loss isn't kept" in event.message for event in heard)
