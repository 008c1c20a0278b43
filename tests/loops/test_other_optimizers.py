"""Optimizers that a Checkpointer hasn't got, and that train its parameters: their state is lost, which is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer
from vaultlayer_hf.base.events import Event, EventKind


class Loop:
    """A model, the optimizer that the Checkpointer has, and what it says."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(2, 2)
        self.own = torch.optim.Adam(self.model.parameters())
        self.ckpt = Checkpointer(
            str(folder / "vault"),
            model=self.model,
            optimizer=self.own,
            save_every=1,
            output_dir=folder / "out",
        )
        self.events: list[Event] = []
        listen(self.ckpt, self.events.append)
        self.start = self.ckpt.resume()

    @property
    def said(self) -> list[str]:
        """What was said of numbers that may be others."""
        return [one.message for one in self.events if one.kind is EventKind.INEXACT]

    def train(self, steps: int, who: Callable[[int], list[Any]]) -> None:
        """Step the optimizers that ``who`` returns for a step."""
        for step in range(self.start, self.start + steps):
            for one in who(step):
                one.zero_grad()
                self.model(torch.ones(1, 2)).sum().backward()
                one.step()
            self.ckpt.step()
        self.ckpt.close()


def momentum(model: torch.nn.Module) -> torch.optim.Optimizer:
    """An optimizer with a state."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def test_one_that_was_forgotten(tmp_path: Path) -> None:
    """A second one that steps beside the Checkpointer's is named once, and again by each resume."""
    loop = Loop(tmp_path)
    other = momentum(loop.model)
    loop.train(4, lambda _: [loop.own, other])
    assert len(loop.said) == 1
    assert "an optimizer, SGD, that its Checkpointer hasn't got" in loop.said[0]
    again = Loop(tmp_path)
    assert ["SGD trained parameters of this loop" in text for text in again.said] == [True]
    again.ckpt.close()


def test_one_that_has_taken_the_place_of_the_first(tmp_path: Path) -> None:
    """Exchanged in mid-run: already the first checkpoint behind that is one whose resume says so."""
    loop = Loop(tmp_path)
    other = momentum(loop.model)
    loop.train(3, lambda step: [loop.own] if step < 2 else [other])
    again = Loop(tmp_path)
    assert ["SGD trained parameters of this loop" in text for text in again.said] == [True]
    again.ckpt.close()


@pytest.mark.parametrize("kind", ["anew", "no state", "added", "held"])
def test_nothing_is_said_of_others(tmp_path: Path, kind: str) -> None:
    """One that is made anew for each round, has no state, or comes along with what the loop keeps."""
    loop = Loop(tmp_path)
    other = momentum(loop.model) if kind != "no state" else torch.optim.SGD(loop.model.parameters())
    if kind == "added":
        loop.ckpt.close()
        loop.ckpt.add("other", other)
        loop.start = loop.ckpt.resume()
    elif kind == "held":

        class Wrapper:
            def __init__(self) -> None:
                self.inner = other

        kept = Wrapper()
        loop.ckpt.carry(lambda: {"kept": kept})
    loop.train(4, lambda _: [loop.own, momentum(loop.model) if kind == "anew" else other])
    assert loop.said == []


class Around(torch.optim.Optimizer):
    """Steps another one, whose state its own hasn't got, as SAM is mostly written."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner
        self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> None:
        """A step of the inner one."""
        self.inner.step(closure)


def test_one_within_another_whose_state_is_not_saved(tmp_path: Path) -> None:
    """An optimizer around another one saves its own state alone: the inner one's is named."""
    loop = Loop(tmp_path)
    loop.ckpt.close()
    around = Around(momentum(loop.model))
    loop.ckpt = Checkpointer(
        str(tmp_path / "other"), model=loop.model, optimizer=around, save_every=1, output_dir=tmp_path / "o2"
    )
    listen(loop.ckpt, loop.events.append)
    loop.start = loop.ckpt.resume()
    loop.train(4, lambda _: [around])
    assert ["an optimizer, SGD, that its Checkpointer hasn't got" in text for text in loop.said] == [True]
