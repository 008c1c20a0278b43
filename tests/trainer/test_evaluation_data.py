"""The data of evaluations draw and count as in an unbroken run: the best checkpoint is chosen by what they give."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data import random_split

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, trainer, weights

RNG = numpy.random.default_rng(0)


class Drawing(Tokens):
    """Rows that hang on a generator of its own, on one at the script's top, and on counts of its own and its class."""

    asked = 0

    def __init__(self, count: int = 6) -> None:
        super().__init__(count)
        self.own, self.seen = torch.Generator().manual_seed(1), 0
        self.RNG = "an attribute of the name of a global"

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        Drawing.asked += 1
        self.seen += 1
        row = self.rows[index].clone()
        row[0] = torch.randint(64, (1,), generator=self.own)[0]
        row[1], row[2], row[3] = int(RNG.integers(64)), Drawing.asked % 64, self.seen % 64
        return {"input_ids": row, "labels": row}


def _apart() -> tuple[Any, Any]:
    return Tokens(20), {"one": Drawing(4), "two": Drawing(4)}


def _both() -> tuple[Any, Any]:
    return Drawing(20), Drawing(4)


def _split() -> tuple[Any, Any]:
    return tuple(random_split(Drawing(20), [16, 4], torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("data", [_apart, _both, _split])
def test_evaluations_go_on_where_the_one_before_ended(data: Any, tmp_path: Path) -> None:
    """Losses of training and evaluations, and the weights, are an unbroken run's over two breaks, unsaid."""
    global RNG
    found = []
    for place, fails in (("u", 0), ("a", 3), ("b", 5), ("c", 0)):
        RNG, Drawing.asked = numpy.random.default_rng(0), 0
        rows, evaluated = data()
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else tmp_path / "vault",
            max_steps=6,
            train_dataset=rows,
            eval_dataset=evaluated,
            eval_strategy="steps",
            eval_steps=2,
            save_steps=2,
            callbacks=[FailAt(fails), Patient(tmp_path / "vault")] if fails else [],
        )
        seen = Recorder(run) if place != "u" else None
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        assert seen is None or not seen.of("inexact"), [event.message for event in seen.of("inexact")]
        measured = [
            {key: value for key, value in one.items() if key.endswith("loss") and key != "train_loss"}
            for one in run.state.log_history
        ]
        found.append((weights(run.model), measured))
    assert found[-1] == found[0]


@pytest.mark.parametrize("persists", [True, False])
def test_what_persistent_workers_of_evaluations_draw_is_said(persists: bool, tmp_path: Path) -> None:
    """Generators that evaluations draw from are named where workers keep what was drawn, and only there."""
    run = trainer(
        tmp_path / "a",
        resume=tmp_path / "vault",
        max_steps=2,
        train_dataset=Tokens(8),
        eval_dataset=Drawing(2),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="no",
        dataloader_num_workers=1,
        dataloader_persistent_workers=persists,
    )
    seen = Recorder(run)
    run.train()
    said = [event.message for event in seen.of("inexact") if "persistent workers draw" in event.message]
    assert [("evaluation.own" in one, "dataloader_persistent_workers" in one) for one in said] == (
        [(True, True)] if persists else []
    )
