"""Data whose place can't be followed: training goes on as stock's, says so once, and is committed all the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.kit.odd import ForgetfulRandom
from tests.trainer.kit import (
    EVERY,
    STEPS,
    Boom,
    FailAt,
    Patient,
    Recorder,
    Tokens,
    state_of,
    trainer,
    weights,
)

NOTICE = "the place in the data isn't followed any more"


class _Unwritable(random.Random):
    """A generator whose state can be had, and can't be pickled."""

    def getstate(self) -> Any:  # type: ignore[override] # as a careless subclass
        return (super().getstate(), lambda: None)


class Drawing(Tokens):
    """Draws from a generator of its own for each row."""

    def __init__(self, generator: random.Random) -> None:
        super().__init__()
        self.generator = generator

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index].clone()
        row[0] = self.generator.randrange(64)
        return {"input_ids": row, "labels": row}


class Lazy(Tokens):
    """Raises something of its own where an attribute is asked for that it lacks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "set_epoch":  # training itself asks for these
            raise AttributeError(name)
        raise RuntimeError(f"no column {name}")


class LazyStream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """The same without indices."""

    def __iter__(self) -> Any:
        rows = Tokens(40)
        return (rows[index] for index in range(40))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "set_epoch":  # training itself asks for these
            raise AttributeError(name)
        raise RuntimeError(f"no column {name}")


class BadRow(Drawing):
    """Has a row that can't be read."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == 9:
            raise KeyError("row 9 is damaged")
        return super().__getitem__(index)


CASES: dict[str, Any] = {
    "from the start": (lambda: Drawing(ForgetfulRandom(0)), {}),
    "as the first epoch begins": (lambda: Drawing(ForgetfulRandom(1)), {}),
    "in the first epoch": (lambda: Drawing(ForgetfulRandom(4)), {}),
    "about its end": (lambda: Drawing(ForgetfulRandom(8)), {}),
    "in the second epoch": (lambda: Drawing(ForgetfulRandom(9)), {}),
    "a list lacks an attribute": (Lazy, {"dataloader_num_workers": 1}),
    "a stream lacks an attribute": (LazyStream, {}),
    "in a worker": (lambda: Drawing(_Unwritable(5)), {"dataloader_num_workers": 1}),
    "in a worker from the start": (lambda: Drawing(ForgetfulRandom(4)), {"dataloader_num_workers": 1}),
    "in a persistent worker": (
        lambda: Drawing(_Unwritable(5)),
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on(tmp_path: Path, case: str) -> None:
    """Whatever goes wrong inside the following, the weights are those of a stock run and each save is committed."""
    data, more = CASES[case]
    stock = trainer(tmp_path / "stock", cls=transformers.Trainer, train_dataset=data(), **more)
    stock.train()
    vault = str(tmp_path / "vault")
    ours = trainer(tmp_path / "out", train_dataset=data(), resume=vault, callbacks=[Patient(vault)], **more)
    record = Recorder(ours)
    ours.train()
    assert weights(ours.model) == weights(stock.model)
    assert [event.fields["step"] for event in record.of("commit")] == list(range(EVERY, STEPS + 1, EVERY))
    assert state_of(vault).finished is not None
    said = [event.message for event in record.events if "the place in the data isn't" in event.message]
    if case != "a list lacks an attribute":  # of what has indices nothing is asked that it may lack
        assert len(said) == 1, said


def test_next_resume_says_why(tmp_path: Path) -> None:
    """A run whose following has ended can be resumed, and the resume says what was wrong."""
    vault = str(tmp_path / "vault")
    first = trainer(
        tmp_path / "out",
        train_dataset=Drawing(ForgetfulRandom(6)),
        resume=vault,
        callbacks=[Patient(vault), FailAt(5)],
    )
    heard = Recorder(first)
    with pytest.raises(Boom):
        first.train()
    assert (
        sum(
            NOTICE in event.message and "the next resume isn't exact" in event.message
            for event in heard.events
        )
        == 1
    )
    again = trainer(tmp_path / "out", train_dataset=Drawing(random.Random(5)), resume=vault)
    record = Recorder(again)
    again.train()
    assert again.state.global_step == STEPS
    assert any("RuntimeError: no state" in event.message for event in record.of("inexact"))


class Unreturning(random.Random):
    """A generator that takes no state."""

    def setstate(self, state: Any) -> None:
        raise RuntimeError("takes no state")


@pytest.mark.parametrize("workers", [0, 1])
def test_trouble_while_it_goes_back(tmp_path: Path, workers: int) -> None:
    """Where the data can't be put back, the run goes on as stock's resume does: no batch twice, none lost."""
    vault, rows = str(tmp_path / "vault"), _Rows(Unreturning(5))
    first = trainer(
        tmp_path / "out",
        train_dataset=rows,
        resume=vault,
        callbacks=[Patient(vault), FailAt(3)],
        dataloader_num_workers=workers,
    )
    with pytest.raises(Boom):
        first.train()
    seen: dict[str, list[Any]] = {}
    for name, cls in (("stock", transformers.Trainer), ("ours", None)):
        rows = _Rows(Unreturning(5))
        common = {"train_dataset": rows, "dataloader_num_workers": workers}
        if cls is None:
            run = trainer(tmp_path / "out", resume=vault, **common)
            record = Recorder(run)
        else:
            run = trainer(tmp_path / "out", cls=cls, **common)
        seen[name] = trained = []
        step = run.training_step
        run.training_step = lambda model, inputs, *rest, step=step, trained=trained: (
            trained.append(inputs["input_ids"][:, 1:].tolist()),
            step(model, inputs, *rest),
        )[1]
        run.train(
            **({} if cls is None else {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-2")})
        )
        assert run.state.global_step == STEPS
    assert seen["ours"] == seen["stock"]
    assert sum("the place in the data isn't" in event.message for event in record.events) == 1


class _Rows(Drawing):
    """Draws, and is told apart by its rows."""


@pytest.mark.parametrize("good", [0, 3, 1000])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_data_sets_own_error(tmp_path: Path, good: int, workers: int) -> None:
    """An error of the user's own data set comes out as it is, whether or not the data is followed any more."""
    ours = trainer(
        tmp_path / "out",
        train_dataset=BadRow(ForgetfulRandom(good)),
        resume=str(tmp_path / "vault"),
        dataloader_num_workers=workers,
    )
    with pytest.raises(KeyError, match="row 9 is damaged"):
        ours.train()
