"""A loop that gives its optimizer more parameters, and its LambdaLR a function for them, goes on with both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer, OtherRunError
from vaultlayer_hf.base.events import Event, EventKind


def slower(step: int) -> float:
    """What a new group's rate is multiplied by."""
    return float(0.9**step)


class Training:
    """Two layers, of which the second is trained from the third step on."""

    def __init__(self, folder: Path, added: Any) -> None:
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        self.optimizer = torch.optim.Adam(self.layers[0].parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, [lambda step: 1 / (step + 1)])
        self.added, self.rates = added, []
        self.ckpt = Checkpointer(
            str(folder / "vault"),
            model=self.layers,
            optimizer=self.optimizer,
            scheduler=self.schedule,
            save_every=1,
            output_dir=folder / "out",
        )
        self.events: list[Event] = []
        listen(self.ckpt, self.events.append)

    def run(self, steps: int) -> None:
        """Train up to ``steps``."""
        for step in range(self.ckpt.resume(), steps):
            self.optimizer.zero_grad()
            self.layers(torch.ones(1, 2)).sum().backward()
            self.optimizer.step()
            self.schedule.step()
            if step == 1:
                group = {"params": self.layers[1].parameters(), "lr": 0.2, "initial_lr": 0.2}
                self.optimizer.add_param_group(group)
                self.schedule.base_lrs.append(0.2)
                self.schedule.lr_lambdas.append(self.added)
            self.rates.append([group["lr"] for group in self.optimizer.param_groups])
            self.ckpt.step()
        self.ckpt.close()


@pytest.mark.parametrize("added", [slower, lambda step: 0.8**step], ids=["named", "lambda"])
def test_they_come_back(tmp_path: Path, added: Any) -> None:
    """Resumed behind that, both groups have the rates of an unbroken run."""
    whole = Training(tmp_path / "whole", added)
    whole.run(6)
    first = Training(tmp_path / "broken", added)
    first.run(4)
    again = Training(tmp_path / "broken", added)
    again.run(6)
    assert first.rates + again.rates == whole.rates


def test_one_that_no_start_can_make(tmp_path: Path) -> None:
    """A function that holds an object is named at the save; the start is refused with that reason."""
    held = torch.ones(1)

    def holds(step: int) -> float:
        return float(held) / (step + 1)

    training = Training(tmp_path, holds)
    training.run(4)
    said = [one.message for one in training.events if one.kind is EventKind.INEXACT]
    assert ["holds objects or stands nowhere" in text for text in said] == [True]
    with pytest.raises(OtherRunError, match=r"schedule's function .*holds"):
        Training(tmp_path, holds).run(5)
