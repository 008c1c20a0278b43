"""What stands in place of an Accelerator's methods while a script is attached, seen from the script."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration
from torch.utils.data import DataLoader

from tests.kit.inside import listen, settle
from vaultlayer_hf import Checkpointer, Settings, open_vault
from vaultlayer_hf.base.events import Event

METHODS = ("save_state", "load_state", "skip_first_batches", "end_training")


class Values:
    """A registered object of some bytes, whose saving can be made to fail."""

    def __init__(self, count: int = 1) -> None:
        self.values, self.error = torch.randn(count), None

    def state_dict(self) -> dict[str, torch.Tensor]:
        if self.error is not None:
            raise self.error
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.values = state["values"]


@pytest.fixture
def accelerator() -> Iterator[Any]:
    """Makes an Accelerator with a project folder, that has prepared a model; its state is forgotten behind the test."""

    def make(folder: Path, values: Values | None = None, automatic: bool = True) -> Any:
        options = ProjectConfiguration(project_dir=str(folder), automatic_checkpoint_naming=automatic)
        made = Accelerator(cpu=True, project_config=options)
        model = torch.nn.Linear(2, 2)
        made.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        if values is not None:
            made.register_for_checkpointing(values)
        return made

    yield make
    Accelerator(cpu=True).free_memory()


def committed(vault: Path) -> list[int]:
    """The steps that a vault holds."""
    with open_vault(str(vault)) as opened:
        return [commit.step for commit in opened.checkpoints()]


@pytest.mark.parametrize("end", ["close", "finish", "end_training"])
def test_the_methods_are_put_back(tmp_path: Path, accelerator: Any, end: str) -> None:
    """Once the script isn't attached any more its Accelerator is as it was, and saves without the vault."""
    made = accelerator(tmp_path / "out")
    ckpt = Checkpointer(str(tmp_path / "vault"))
    ckpt.attach(made)
    assert all(name in vars(made) for name in METHODS)
    made.save_state()
    {"close": ckpt.close, "finish": ckpt.finish, "end_training": made.end_training}[end]()
    assert not any(name in vars(made) for name in METHODS)
    made.save_state()
    assert committed(tmp_path / "vault") == [1]
    assert (tmp_path / "out" / "checkpoints" / "checkpoint_1").is_dir()


def test_what_was_put_around_ours_goes_on_working(tmp_path: Path, accelerator: Any) -> None:
    """Somebody else's wrapper stays, and calls what was there before us."""
    made = accelerator(tmp_path / "out")
    ckpt = Checkpointer(str(tmp_path / "vault"))
    ckpt.attach(made)
    attached, calls = made.save_state, []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return attached(*args, **kwargs)

    made.save_state = wrapper
    made.save_state()
    ckpt.finish()
    assert made.save_state is wrapper
    made.save_state()
    assert len(calls) == 2
    assert committed(tmp_path / "vault") == [1]


@pytest.mark.parametrize("automatic", [True, False])
def test_a_roll_back_goes_to_the_newest(tmp_path: Path, accelerator: Any, automatic: bool) -> None:
    """A run that has resumed, and saved since, loads what it has saved, not once more what it began with."""

    def attached() -> tuple[Any, Values, Checkpointer]:
        values = Values()
        made = accelerator(tmp_path / "out", values, automatic)
        ckpt = Checkpointer(str(tmp_path / "vault"))
        ckpt.attach(made)
        return made, values, ckpt

    def save(made: Any, values: Values, step: int) -> None:
        values.values = torch.tensor([step])
        made.save_state(None if automatic else str(tmp_path / "out" / f"step_{step}"))

    made, values, ckpt = attached()
    save(made, values, 1)
    ckpt.close()
    made.free_memory()
    made, values, ckpt = attached()
    for step in (1, 2, 3):
        made.load_state()
        assert values.values.tolist() == [step]
        save(made, values, step + 1)
    ckpt.close()


def test_the_stall_noted_is_the_save(tmp_path: Path, accelerator: Any) -> None:
    """What a commit notes as the save's cost is what save_state took, without the training before it."""
    made = accelerator(tmp_path / "out")
    ckpt = Checkpointer(str(tmp_path / "vault"))
    ckpt.attach(made)
    took = []
    for _ in range(2):
        time.sleep(0.3)  # training
        begin = time.perf_counter()
        made.save_state()
        took.append(time.perf_counter() - begin)
        settle(ckpt)
    made.end_training()
    with open_vault(str(tmp_path / "vault")) as vault:
        stalls = [entry.detail["stall"] for entry in vault.history() if entry.kind == "commit"]
    assert 0 < stalls[-1] <= max(took)


def test_a_full_disk_costs_a_checkpoint_only(tmp_path: Path, small_disk: Path, accelerator: Any) -> None:
    """save_state on a full disk: said, nothing torn left, and the next one is committed."""
    values = Values(1_000_000)
    made = accelerator(small_disk / "out", values)
    ckpt = Checkpointer(Settings(vault=str(tmp_path / "vault"), resume_timeout=2.0))
    heard: list[Event] = []
    listen(ckpt, heard.append)
    ckpt.attach(made)
    (small_disk / "filler").write_bytes(bytes(10_000_000))
    folder = made.save_state()
    assert folder == small_disk / "out" / "checkpoints" / "checkpoint_0"
    assert not folder.exists()
    (said,) = [event.message for event in heard if event.kind == "abandon"]
    assert "checkpoint_0 isn't committed, training goes on: it can't be written: the disk is full" in said
    (small_disk / "filler").unlink()
    assert made.save_state() == folder
    made.end_training()
    assert committed(tmp_path / "vault") == [1]


def test_a_full_disk_leaves_the_script_its_other_files(
    tmp_path: Path, small_disk: Path, accelerator: Any
) -> None:
    """A script that saves into a folder of its own loses nothing there but what was written in vain."""
    made = accelerator(small_disk / "out", Values(1_000_000), automatic=False)
    ckpt = Checkpointer(Settings(vault=str(tmp_path / "vault"), resume_timeout=2.0))
    ckpt.attach(made)
    (small_disk / "out").mkdir(exist_ok=True)
    (small_disk / "out" / "notes.txt").write_text("mine")
    (small_disk / "filler").write_bytes(bytes(10_000_000))
    made.save_state(str(small_disk / "out"))
    assert [path.name for path in (small_disk / "out").iterdir() if path.is_file()] == ["notes.txt"]
    ckpt.close()


def test_the_script_gets_its_own_errors(tmp_path: Path, accelerator: Any) -> None:
    """Any error but a full disk's reaches the script as without us; the save after it is committed."""
    values = Values()
    made = accelerator(tmp_path / "out", values)
    ckpt = Checkpointer(str(tmp_path / "vault"))
    ckpt.attach(made)
    values.error = AttributeError("no such thing")
    with pytest.raises(AttributeError, match="no such thing"):
        made.save_state(str(tmp_path / "out" / "a"))
    values.error = None
    made.project_configuration.iteration = 5
    made.save_state()
    made.end_training()
    assert committed(tmp_path / "vault") == [5]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("way", ["stateful", "stateful, shuffled", "skipped"])
def test_the_data_behind_a_load(tmp_path: Path, way: str) -> None:
    """A loader that keeps its place goes on exactly; one that shuffles, or is gone past, doesn't, and that is said."""
    if way != "skipped":
        pytest.importorskip("torchdata.stateful_dataloader")

    def script(steps: int, seed: int, folder: Path = tmp_path) -> tuple[list[Any], list[str]]:
        torch.manual_seed(seed)
        options = DataLoaderConfiguration(use_stateful_dataloader=way != "skipped")
        made = Accelerator(cpu=True, project_dir=str(folder), dataloader_config=options)
        loader = made.prepare(DataLoader(range(8), batch_size=2, shuffle=way != "stateful"))
        made.prepare(torch.nn.Linear(2, 2))
        ckpt = Checkpointer(folder / "v")
        said: list[Event] = []
        listen(ckpt, said.append)
        restored = ckpt.attach(made)
        done = 0
        if restored is not None:
            made.load_state(str(restored))
            done = int(restored.name.rpartition("_")[2])
        seen = []
        skipped = made.skip_first_batches(loader, done % 4) if way == "skipped" and done else loader
        while done < steps:
            for batch in skipped:
                seen.append((batch.tolist(), torch.rand(()).item()))
                done += 1
                if done >= steps:
                    break
            skipped = loader
        made.save_state(str(folder / f"step_{done}"))
        ckpt.close()
        made.free_memory()
        return seen, [one.message for one in said if one.kind == "inexact"]

    whole, _ = script(10, 1, tmp_path / "whole")
    first, _ = script(3, 1)
    rest, said = script(10, 2)
    if way == "stateful":
        assert first + rest == whole
        assert said == []
    else:
        (words,) = said
        names = {
            "skipped": "skip_first_batches opens the loader anew",
            "stateful, shuffled": "use_stateful_dataloader",
        }
        assert names[way] in words


@pytest.mark.parametrize("way", ["accumulate", "by hand", "other accumulation"])
@pytest.mark.parametrize("batches", [6, 8])
def test_a_save_between_two_batches_of_an_update(tmp_path: Path, way: str, batches: int) -> None:
    """accelerate saves no gradients: a load of what was saved within an update of four batches says so."""

    def script(batches: int, update: int) -> list[str]:
        made = Accelerator(cpu=True, project_dir=str(tmp_path), gradient_accumulation_steps=update)
        inner = torch.nn.Linear(2, 2)
        model, optimizer = made.prepare(inner, torch.optim.SGD(inner.parameters(), lr=0.1))
        ckpt = Checkpointer(tmp_path / "v")
        said: list[Event] = []
        listen(ckpt, said.append)
        if ckpt.attach(made) is not None:
            made.load_state()
        for number in range(1, batches + 1):
            if way == "by hand":
                made.backward(model(torch.ones(1, 2)).sum())
                if number % 4 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                continue
            with made.accumulate(model):
                made.backward(model(torch.ones(1, 2)).sum())
                optimizer.step()
                optimizer.zero_grad()
        if batches:
            made.save_state(str(tmp_path / f"step_{batches}"))
        ckpt.close()
        made.free_memory()
        return [one.message for one in said if one.kind == "inexact"]

    update = 1 if way == "by hand" else 4
    script(batches, update)
    said = script(0, 3 if way == "other accumulation" else update)
    assert ["between two batches of one update" in one for one in said] == [True] * (batches == 6)
