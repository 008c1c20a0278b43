"""What data sets of a script's own draw from and count in, at one remove: in torch's wrappers, globals, transforms."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset
from transformers import TrainerCallback

from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, Tokens, trainer, weights

RNG, COUNT = numpy.random.default_rng(0), 0
NOTED: list[int] = []


class Counting(Tokens):
    """Rows that hang on a generator and a count at the top of the script."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        global COUNT
        COUNT += 1
        row = self.rows[index].clone()
        row[0], row[1] = int(RNG.integers(0, 64)), COUNT % 64
        return {"input_ids": row, "labels": row}


class Drawing(Tokens):
    """Rows that hang on a generator in a dictionary of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__(8)
        self.rngs = {"first": random.Random(seed)}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index].clone()
        row[0] = self.rngs["first"].randrange(64)
        return {"input_ids": row, "labels": row}


def _drawn(rng: random.Random, rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    found = [[rng.randrange(64), *row[1:]] for row in rows["input_ids"]]
    return {"input_ids": found, "labels": found}


def _subset() -> Any:
    return Subset(Counting(20), range(14))


def _joined() -> Any:
    return ConcatDataset([Subset(Drawing(1), range(6)), Drawing(2)])


def _transformed() -> Any:
    rows = datasets.Dataset.from_dict({"input_ids": Tokens().rows.tolist()})
    rows.set_transform(functools.partial(_drawn, random.Random(3)))
    return rows


@pytest.mark.parametrize("data", [_subset, _joined, _transformed])
def test_it_comes_back(data: Any, tmp_path: Path) -> None:
    """Generators and counts of a data set are an unbroken run's wherever they are, over two breaks, unsaid."""
    global RNG, COUNT
    found = []
    for place, fails in (("u", 0), ("a", 3), ("b", 7), ("c", 0)):
        RNG, COUNT = numpy.random.default_rng(0), 0
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else tmp_path / "vault",
            train_dataset=data(),
            callbacks=[FailAt(fails), Patient(tmp_path / "vault")] if fails else [],
            remove_unused_columns=False,
        )
        seen = Recorder(run) if place != "u" else None
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        found.append(weights(run.model))
        assert seen is None or not seen.of("inexact"), [event.message for event in seen.of("inexact")]
    assert found[0] == found[-1]


class Noting(Tokens):
    """Rows that hang on a list at the top of the script."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        NOTED.append(index)
        row = self.rows[index].roll(len(NOTED))
        return {"input_ids": row, "labels": row}


def test_a_list_that_a_data_set_fills_is_said(tmp_path: Path) -> None:
    """What isn't carried of it is named at a save, and at the resume."""
    vault, said = tmp_path / "vault", []
    for fails in (3, 0):
        NOTED.clear()
        run = trainer(
            tmp_path / "a", resume=vault, train_dataset=Subset(Noting(), range(10)), max_steps=4,
            callbacks=[FailAt(fails), Patient(vault)] if fails else [],
        )  # fmt: skip
        seen = Recorder(run)
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        said.append([event.message for event in seen.of("inexact")])
    assert all(any("NOTED" in message for message in messages) for messages in said), said


def _weak(rows: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": rows["input_ids"], "labels": rows["input_ids"]}


def _strong(rows: dict[str, Any]) -> dict[str, Any]:
    found = [row[::-1] for row in rows["input_ids"]]
    return {"input_ids": found, "labels": found}


def test_a_transform_that_is_exchanged_is_said(tmp_path: Path) -> None:
    """Each start makes the transform of the begin: at a save and at the resume the one that came since is named."""
    vault, said = tmp_path / "vault", []
    for fails in (3, 0):
        rows = datasets.Dataset.from_dict({"input_ids": Tokens().rows.tolist()})
        rows.set_transform(_weak)
        act = Do(
            on_step_end=lambda state, of=rows: of.set_transform(_strong) if state.global_step == 1 else None
        )
        run = trainer(
            tmp_path / "a", resume=vault, train_dataset=rows, max_steps=4, remove_unused_columns=False,
            callbacks=[act, *([FailAt(fails), Patient(vault)] if fails else [])],
        )  # fmt: skip
        seen = Recorder(run)
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        said.append([event.message for event in seen.of("inexact")])
    assert all(any("train_dataset's transform" in message for message in messages) for messages in said), said


class Packing(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Packs texts of several lengths into rows of one; the rest of a text waits for the next row."""

    def __init__(self, texts: int | None) -> None:
        self.texts, self.waiting = texts, list[int]()

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for text in itertools.count() if self.texts is None else range(self.texts):
            self.waiting += [(text * k) % 64 for k in range(5 + text % 9)]
            while len(self.waiting) >= 16:
                row = torch.tensor(self.waiting[:16])
                self.waiting = self.waiting[16:]
                yield {"input_ids": row, "labels": row}


class Drops(TrainerCallback):
    """Changes what waits in the data set."""

    def __init__(self, data: Packing) -> None:
        self.data = data

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.data.waiting = self.data.waiting[1:]


@pytest.mark.parametrize(
    ("how", "exact"), [("endless", True), ("in a second pass", False), ("dropped", False)]
)
def test_what_a_stream_keeps_between_its_rows_is_said_where_it_is_lost(
    how: str, exact: bool, tmp_path: Path
) -> None:
    """Fetched again from its first row on, a stream has it again; what is of a pass before, or another's, is said."""
    found, said = [], []
    for place, fails in (("u", 0), ("a", 5), ("c", 0)):
        data = Packing(14 if how == "in a second pass" else None)
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else tmp_path / "vault",
            train_dataset=data,
            callbacks=[FailAt(fails), Patient(tmp_path / "vault")] if fails else [],
        )
        if how == "dropped":
            run.add_callback(Drops(data))
        seen = Recorder(run) if place != "u" else None
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        found.append(weights(run.model))
        said += [event.message for event in seen.of("inexact")] if seen is not None else []
    assert (found[0] == found[-1]) == exact
    assert any("Packing.waiting" in message for message in said) != exact, said


class Staged(Tokens):
    """Rows that hang on a number that each pass sets, on one of the class that a callback sets, and on a count."""

    level = 0

    def __init__(self) -> None:
        super().__init__(8)
        self.epoch = self.seen = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.seen += 1
        row = self.rows[index].clone()
        row[0], row[1], row[2] = self.epoch, self.seen % 64, Staged.level
        return {"input_ids": row, "labels": row}


@pytest.mark.parametrize("fails", [9, 11])
def test_what_a_pass_begins_with_is_its_own(fails: int, tmp_path: Path) -> None:
    """Behind a save at the end of a pass, or within one, what the next pass sets is that pass's, not the last's."""
    found = []
    for place, at in (("u", 0), ("a", fails), ("c", 0)):
        Staged.level = 0
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else tmp_path / "vault",
            train_dataset=Staged(),
            max_steps=13,
            callbacks=[
                Do(on_epoch_begin=lambda state: setattr(Staged, "level", 7 * int(state.epoch or 0) % 14)),
                *([FailAt(at), Patient(tmp_path / "vault")] if at else []),
            ],
        )
        with pytest.raises(Boom) if at else nullcontext():
            run.train()
        found.append(weights(run.model))
    assert found[0] == found[-1]
