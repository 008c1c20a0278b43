"""What a loop carries may be nothing at first, and an object later: a start that finds nothing there gets it back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer, ResumeError


@dataclass
class Best:
    """What a loop has found so far."""

    loss: float
    at: int


class Kept:
    """An object of the script's own, whose attributes are made on the way."""

    def __init__(self) -> None:
        self.best: Any = None
        self.copies: list[torch.nn.Module] = []


class Average:
    """Knows its state, and holds the model that it is of."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.value = model, 0.0

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = state["value"]


class Loop:
    """A loop of one model, up to where it has resumed."""

    def __init__(self, folder: Path) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.ckpt = Checkpointer(
            folder / "vault", output_dir=folder / "output", save_every=1, model=self.model
        )
        self.said: list[str] = []
        listen(self.ckpt, lambda event: self.said.append(event.message))
        self.start = self.ckpt.resume()


def test_they_come_back_where_there_was_nothing(tmp_path: Path) -> None:
    """A copy of the model, a dataclass, an object in an attribute and one in a list, each made behind carry()."""
    seen: list[Any] = []
    for start in (0, 1, 2):
        loop, kept = Loop(tmp_path), Kept()
        best, found, copies = None, None, kept.copies
        carried = {"best": best, "found": found, "kept": kept}
        carried["best"], carried["found"], _ = loop.ckpt.carry(lambda now=carried: dict(now))
        assert loop.start == start
        assert kept.copies is copies
        if start:
            assert carried["found"] == Best(0.5, start - 1)
            assert (kept.best.at, carried["best"].weight.item()) == (start - 1, seen[-1])
            assert kept.copies[0].weight.item() == seen[-1]
        if start != 1:  # what was brought back is kept once more
            carried["best"], carried["found"] = copy.deepcopy(loop.model), Best(0.5, start)
            kept.best, copies[:] = Best(1.0, start), [copy.deepcopy(loop.model)]
        else:
            carried["found"].at = kept.best.at = 1
        seen.append(carried["best"].weight.item())
        loop.ckpt.step()
        loop.ckpt.close()
        assert not [text for text in loop.said if "carry()" in text]


def test_one_that_holds_the_model(tmp_path: Path) -> None:
    """It can't come back by itself, as the save says, and the error names the fix; a start that makes it is served."""

    def start(average: bool) -> tuple[Loop, dict[str, Any]]:
        loop = Loop(tmp_path)
        now: dict[str, Any] = {"average": Average(loop.model) if average else None}
        loop.ckpt.carry(lambda: dict(now))
        return loop, now

    loop, now = start(False)
    now["average"] = Average(loop.model)
    now["average"].value = 4.0
    loop.ckpt.step()
    loop.ckpt.close()
    assert [text for text in loop.said if text.startswith("average (a Average) was made behind carry()")]
    with pytest.raises(ResumeError, match=r"average can't be brought back: .* make it ahead of carry\(\)"):
        start(False)
    loop, now = start(True)
    loop.ckpt.close()
    assert (now["average"].value, now["average"].model) == (4.0, loop.model)
