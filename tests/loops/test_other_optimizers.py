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
from vaultlayer_hf.loops.other_optimizers import OtherOptimizers


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


@pytest.mark.parametrize("then", ["gone", "rests"])
def test_one_of_a_warm_up_is_named_no_more(tmp_path: Path, then: str) -> None:
    """A second one that trained at first, and has done its work: later checkpoints lack nothing."""
    loop = Loop(tmp_path)
    others = [momentum(loop.model)]

    def who(step: int) -> list[Any]:
        if step == 3 and then == "gone":
            others.clear()
        return [loop.own, *others] if step < 3 else [loop.own]

    loop.train(5, who)
    assert len(loop.said) == 1
    again = Loop(tmp_path)
    assert again.said == []
    again.ckpt.close()


def test_one_that_is_made_anew_while_the_loops_own_rests(tmp_path: Path) -> None:
    """Between two steps of the loop's own several have come and gone: none has taken its place."""
    loop = Loop(tmp_path)
    loop.train(4, lambda step: [momentum(loop.model)] if step else [loop.own])
    again = Loop(tmp_path)
    assert again.said == []
    again.ckpt.close()


def test_what_raises_as_it_is_looked_at_costs_a_checkpoint_only(tmp_path: Path) -> None:
    """What carry() was given fails at a save: the run goes on, and the next save is whole."""
    loop = Loop(tmp_path)
    fails: set[int] = set()
    loop.ckpt.carry(lambda: {"value": [][0] if fails else 1})

    def who(step: int) -> list[Any]:
        fails.clear()
        fails.update({step} & {0})
        return [loop.own]

    loop.train(3, who)
    assert [
        "checkpoint-1 isn't committed" in one.message for one in loop.events if one.kind == "abandon"
    ] == [True]
    assert Loop(tmp_path).start == 3


class Spread(Around):
    """Tells its state only where it was gathered, as torch's ZeroRedundancyOptimizer does on other ranks."""

    def state_dict(self) -> dict[str, Any]:
        """Never here."""
        raise RuntimeError("the state has not been consolidated on this rank")


def test_one_that_tells_no_state_here_is_not_named(tmp_path: Path) -> None:
    """Whether it has the state of one that it holds can't be known: nothing is said, and nothing raised."""
    loop = Loop(tmp_path)
    loop.ckpt.close()
    around = Spread(momentum(loop.model))
    others = OtherOptimizers(lambda: [around], lambda: [loop.model], loop.said.append)
    others.begin()
    for _ in range(3):
        loop.model(torch.ones(1, 2)).sum().backward()
        around.step()
        others.saved()
    others.leave()
    assert others.names == []


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_a_compiled_step(tmp_path: Path) -> None:
    """What looks at the steps isn't compiled with them: not even what it says of one, which is much."""
    from torch._dynamo.utils import counters

    loop = Loop(tmp_path)
    other = momentum(loop.model)
    steps = [torch.compile(lambda one=one: one.step(), backend="eager") for one in (loop.own, other)]
    compiled = []
    for _ in range(5):
        loop.model(torch.ones(1, 2)).sum().backward()
        for step in steps:
            step()
        loop.ckpt.step()
        loop.model.zero_grad()
        compiled.append(counters["frames"]["total"])
    loop.ckpt.close()
    assert len(loop.said) == 1
    assert compiled[-1] - compiled[0] < 5, compiled
