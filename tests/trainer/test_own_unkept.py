"""What of a script's own objects doesn't come back as it was, or at all, is said."""

from __future__ import annotations

import functools
import itertools
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, trainer
from vaultlayer_hf import Trainer
from vaultlayer_hf.state.take_values import Room
from vaultlayer_hf.trainer import own_state


class Counts(TrainerCallback, ExportableState):
    """Is kept by the Trainer itself."""

    seen = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"seen": self.seen}}


class Opens(TrainerCallback):
    """Opens a file at its first log, and goes by a flag that it is open."""

    def __init__(self, path: Path) -> None:
        self.path, self.file, self.ready = path, None, False

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        if not self.ready:
            self.file, self.ready = self.path.open("a"), True
        self.file.write("logged\n")

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.file.close()


class Sums(TrainerCallback):
    """Counts within an epoch, and times the whole."""

    def __init__(self) -> None:
        self.sum, self.sums = 0, []
        self.began, self.timed = None, False

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.sum = 0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if not self.timed:
            self.began, self.timed = time.perf_counter(), True

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.sum += 1
        self.sums.append(self.sum)
        assert 0 <= time.perf_counter() - self.began < 1000


def test_what_goes_together_comes_back_together(tmp_path: Path) -> None:
    """A flag stays away without the file that it speaks of; a count within an epoch comes back, and a clock goes on."""
    vault, out = tmp_path / "vault", tmp_path / "log"
    for fails in (3, 0):
        sums, opens = Sums(), Opens(out)
        broken = [FailAt(fails), Patient(vault)] if fails else []
        run = trainer(tmp_path / "a", resume=vault, callbacks=[sums, *broken], logging_steps=1)
        run.add_callback(opens)
        if fails:
            with pytest.raises(Boom):
                run.train()
            opens.file.close()
        else:
            run.train()
    assert sums.sums == [1, 2, 3, 4, 5, 1, 2, 3]
    assert len(out.read_text().splitlines()) >= 8


class Mining(Trainer):
    """Gives what it was bad at first: its sampler reads what its loss has noted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noted: dict[int, float] = {}

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.noted[int(inputs["input_ids"][0, 0]) % 10] = loss.item()
        return loss

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        trainer = self

        class Worst(torch.utils.data.Sampler[int]):
            def __len__(self) -> int:
                return 10

            def __iter__(self) -> Any:
                return iter(sorted(range(10), key=lambda row: -trainer.noted.get(row, 0)))

        return Worst()


def test_a_sampler_that_reads_what_training_changes_is_said(tmp_path: Path) -> None:
    """Behind a save within a pass its order can't be made again: said at the resume, and not at an epoch's end."""
    said = []
    for place, fails, saves in (("a", 3, {"save_steps": 2}), ("b", 6, {"save_strategy": "epoch"})):
        vault = tmp_path / f"vault-{place}"
        for ends in (FailAt(fails), Do()):
            run = trainer(
                tmp_path / place, cls=Mining, resume=vault, callbacks=[Patient(vault), ends], **saves
            )
            seen = Recorder(run)
            with suppress(Boom):
                run.train()
            said.append([event.message for event in seen.of("inexact")])
    assert [len(messages) for messages in said] == [0, 2, 0, 0]
    assert "reads Mining.noted, which training changes" in said[1][0]
    assert "order isn't the one of the attempt before" in said[1][1]


class Large(TrainerCallback):
    """Keeps more than is kept of it."""

    def __init__(self) -> None:
        self.table, self.open = torch.zeros(1000), [object()]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.table += 1


class Draws(TrainerCallback):
    """Draws from an iterator, and counts."""

    def __init__(self) -> None:
        self.pairs, self.drawn = itertools.cycle([1, 2]), 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.drawn += next(self.pairs)


class Table:
    """A library's table, in which nobody sees anything."""


Table.__module__ = "pytest"


class Tables(TrainerCallback):
    """Makes its table anew at each step, and counts."""

    def __init__(self) -> None:
        self.rows, self.count = Table(), 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.rows, self.count = Table(), self.count + 1


@functools.lru_cache
def shift(row: int) -> int:
    """Return what was drawn for a row at its first use."""
    return random.randint(0, row)


@functools.lru_cache
def square(row: int) -> int:
    """Return the same each time, also without a cache."""
    return row * row


class Remembers(TrainerCallback):
    """Goes by functions that remember what they have returned."""

    def on_step_end(self, args: Any, state: Any, *more: Any, **kwargs: Any) -> None:
        shift(state.global_step + square(state.global_step))


@pytest.mark.parametrize(
    "said", ["Large.table", "Draws.pairs", "Tables.rows", "Remembers.on_step_end.shift", ""]
)
def test_what_does_not_come_back_is_said(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large, an iterator, a cache of draws, a library's new object: named at a save and at the resume.

    What the Trainer keeps itself isn't.
    """
    monkeypatch.setattr(own_state, "Room", lambda clocks: Room(900, clocks))
    vault = tmp_path / "vault"
    for place, callbacks in (("a", [Patient(vault), FailAt(3)]), ("b", [])):
        run = trainer(tmp_path / place, resume=vault, callbacks=callbacks, max_steps=4)
        every = {"Large": Large, "Draws": Draws, "Tables": Tables, "Remembers": Remembers, "": Counts}
        run.add_callback(every[said.partition(".")[0]]())
        shift.cache_clear()
        seen = Recorder(run)
        if callbacks:
            with pytest.raises(Boom):
                run.train()
        else:
            run.train()
        found = [event.message for event in seen.of("inexact")]
        assert len(found) == (bool(said) if callbacks else 2 * bool(said)), found
        assert all(said in message for message in found)
        assert not callbacks or all(message.startswith(f"{said}: training changes") for message in found)
