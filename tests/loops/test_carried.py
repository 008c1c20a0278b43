"""What a loop hands on from one round to the next, beside models and optimizers, comes back with a resume."""

from __future__ import annotations

import random
from enum import Enum
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer, ResumeError
from vaultlayer_hf.base.events import Event, EventKind


class Patience:
    """An object of a script's own class, with a generator and an object of another class in it."""

    def __init__(self) -> None:
        self.bad, self.best = 0, None
        self.drawn = numpy.random.default_rng(0)
        self.inner = Inner()


class Inner:
    """Holds rows that nobody changes, and a place in them."""

    def __init__(self) -> None:
        self.rows, self.at = torch.arange(1 << 19), 0


class Loop:
    """A loop with one of each kind, up to where it resumes."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        self.ckpt = Checkpointer(
            str(folder / "vault"), output_dir=folder / "output", save_every=1, model=self.model, **more
        )
        self.ckpt.add("scaler", None)  # an option that is off
        self.log: list[Event] = []
        listen(self.ckpt, self.log.append)
        self.start = self.ckpt.resume()
        self.patience, self.python, self.draws = Patience(), random.Random(1), torch.Generator()
        self.values: dict[str, Any] = {"rate": 0.1, "best": None, "last": torch.zeros(2)}

    def carry(self) -> tuple[Any, ...]:
        """What ``carry`` returns, in the order of the names."""
        kept = {"patience": self.patience, "python": self.python, "draws": self.draws}
        return self.ckpt.carry(lambda: {**self.values, **kept})


def test_variables_come_back(tmp_path: Path) -> None:
    """Values are returned as they were saved; objects and generators stay the same ones, with the state of then."""
    loop = Loop(tmp_path)
    assert loop.carry()[:2] == (0.1, None)
    loop.values = {"rate": 0.05, "best": [1, {"a": 2}], "last": torch.ones(2)}
    loop.patience.bad, loop.patience.best, loop.patience.inner.at = 3, 0.5, 7
    loop.python.random(), loop.patience.drawn.random(), torch.rand(1, generator=loop.draws)
    loop.ckpt.step()
    loop.ckpt.finish()
    coming = [loop.python.random(), loop.patience.drawn.random(), torch.rand(1, generator=loop.draws)]
    again = Loop(tmp_path)
    rate, best, last, patience, python, draws = again.carry()
    assert (again.start, rate, best, last.tolist()) == (1, 0.05, [1, {"a": 2}], [1, 1])
    assert (patience, python, draws) == (again.patience, again.python, again.draws)
    assert (patience.bad, patience.best, patience.inner.at) == (3, 0.5, 7)
    assert coming == [python.random(), patience.drawn.random(), torch.rand(1, generator=draws)]
    again.ckpt.close()


def test_values_of_a_class_with_attributes_are_values(tmp_path: Path) -> None:
    """A copy of a state_dict and a member of an Enum come back with what they hold, not with what is beside it."""
    stage = Enum("Stage", ["FIRST", "SECOND"], module=__name__)
    globals()["Stage"] = stage  # where pickle looks for it
    loop = Loop(tmp_path)
    loop.values = {"rate": loop.model.state_dict(), "best": stage.SECOND, "last": None}
    saved = {name: value.clone() for name, value in loop.values["rate"].items()}
    loop.carry()
    loop.ckpt.step()
    loop.ckpt.finish()
    again = Loop(tmp_path)
    again.values = {"rate": torch.nn.Linear(2, 2).state_dict(), "best": stage.FIRST, "last": None}
    state, best = again.carry()[:2]
    assert {name: value.tolist() for name, value in state.items()} == {
        name: value.tolist() for name, value in saved.items()
    }
    assert (best, stage.FIRST.value) == (stage.SECOND, 1)
    again.ckpt.close()


def test_what_belongs_to_a_pass_ends_with_it(tmp_path: Path) -> None:
    """A sum over one epoch goes on within that epoch, and begins anew in the next."""
    begun = []
    for stop in (3, 100):
        ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "output", save_every=1)
        ckpt.resume()
        done = 0
        for _ in ckpt.epochs(range(2)):
            total = 0.0
            (total,) = ckpt.carry(lambda: {"total": total}, in_pass=True)  # noqa: B023
            begun.append(total)
            for _ in ckpt.batches(range(4)):
                if done == stop:
                    break
                done += 1
                total += 1
                ckpt.step()
            if done == stop:
                break
        ckpt.close()
    assert begun == [0.0, 3.0, 0.0]


def test_flags_of_the_model_come_back(tmp_path: Path) -> None:
    """Layers that a run has let go, or put into evaluation mode, are so again behind a resume, and it is said."""
    loop = Loop(tmp_path)
    loop.model[0].weight.requires_grad_(False)
    loop.model[1].eval()
    loop.ckpt.step()
    loop.ckpt.finish()
    again = Loop(tmp_path)
    assert [one.requires_grad for one in again.model.parameters()] == [False, True, True, True]
    assert [one.training for one in again.model] == [True, False]
    assert any("0.weight" in event.message for event in again.log if event.kind is EventKind.NOTICE)
    again.ckpt.close()


def test_what_has_no_state_is_named(tmp_path: Path) -> None:
    """A variable that can't be saved costs no checkpoint: the log names it, and the others are kept."""
    loop = Loop(tmp_path)
    loop.values = {"rate": 0.1, "best": (n for n in [1]), "last": None}
    loop.carry()
    loop.ckpt.step()
    loop.ckpt.finish()
    assert any("best (a generator)" in event.message for event in loop.log)
    again = Loop(tmp_path)
    assert (again.start, again.carry()[0]) == (1, 0.1)
    again.ckpt.close()


def test_what_draws_from_the_system_costs_no_checkpoint(tmp_path: Path) -> None:
    """A generator without a state, named itself, held by an object or in a list, goes on as it is."""

    class Owner:
        def __init__(self) -> None:
            self.draws, self.count = random.SystemRandom(), 0

    loop = Loop(tmp_path)
    owner, draws = Owner(), random.SystemRandom()
    loop.ckpt.carry(lambda: {"owner": owner, "draws": draws, "all": [draws]})
    owner.count = 3
    loop.ckpt.step()
    loop.ckpt.finish()
    assert not [event for event in loop.log if event.kind == "abandon"]
    again, owner = Loop(tmp_path), Owner()
    fresh = random.SystemRandom()
    assert again.ckpt.carry(lambda: {"owner": owner, "draws": fresh, "all": [fresh]})[1] is fresh
    assert (again.start, owner.count) == (1, 3)
    again.ckpt.close()


def test_attributes_in_slots_come_back(tmp_path: Path) -> None:
    """An object that keeps some of its attributes in ``__slots__`` has all of them as they were."""

    class Counts:
        __slots__ = ("seen",)

    class Owner(Counts):
        def __init__(self) -> None:
            self.seen, self.best = 0, 0.0

    loop, owner = Loop(tmp_path), Owner()
    loop.ckpt.carry(lambda: {"owner": owner})
    owner.seen, owner.best = 3, 0.5
    loop.ckpt.step()
    loop.ckpt.finish()
    again, owner = Loop(tmp_path), Owner()
    again.ckpt.carry(lambda: {"owner": owner})
    assert (owner.seen, owner.best) == (3, 0.5)
    again.ckpt.close()


class Growing:
    """Has an attribute that adds another one to its owner whenever it is looked into, as a thread of the owner may."""

    def __init__(self) -> None:
        self.part = Part(self)
        self.count = 1


class Part:
    """Part of a ``Growing``."""

    def __init__(self, owner: Growing) -> None:
        self.owner, self.seen = owner, 0

    def __reduce__(self) -> Any:
        self.seen += 1
        setattr(self.owner, f"at {self.seen}", self.seen)
        raise TypeError("no state")

    @property
    def state_dict(self) -> None:
        self.seen += 1
        setattr(self.owner, f"at {self.seen}", self.seen)


def test_an_object_that_changes_while_it_is_looked_into(tmp_path: Path) -> None:
    """A thread that adds attributes to an object that is carried neither ends the training nor costs a checkpoint."""
    loop = Loop(tmp_path)
    growing = Growing()
    loop.ckpt.carry(lambda: {"growing": growing})
    growing.count = 2
    loop.ckpt.step()
    loop.ckpt.finish()
    assert not [event for event in loop.log if event.kind == "abandon"]
    again, other = Loop(tmp_path), Growing()
    assert again.start == 1
    assert again.ckpt.carry(lambda: {"growing": other}) == (other,)
    assert other.count == 2
    again.ckpt.close()


def test_a_run_that_saves_nothing_is_not_done_in_silence(tmp_path: Path) -> None:
    """An end before any step is said, and the vault doesn't note the run as done."""
    loop = Loop(tmp_path)
    loop.ckpt.finish()
    assert any("has saved nothing" in event.message for event in loop.log)
    again = Loop(tmp_path)
    assert again.ckpt.finished is None
    again.ckpt.close()


def test_what_a_metric_has_gathered_comes_back(tmp_path: Path) -> None:
    """A metric of torchmetrics leaves its sums out of its state_dict; they come back all the same."""

    class Mean:
        metric_state: dict[str, Any] = {}  # noqa: RUF012

        def __init__(self) -> None:
            self._defaults, self.total, self._update_count = {"total": 0}, 0, 0

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    loop = Loop(tmp_path)
    mean = Mean()
    loop.ckpt.carry(lambda: {"mean": mean})
    mean.total = 7
    loop.ckpt.step()
    loop.ckpt.finish()
    again = Loop(tmp_path)
    fresh = Mean()
    again.ckpt.carry(lambda: {"mean": fresh})
    assert fresh.total == 7
    again.ckpt.close()


def test_an_object_that_is_another_one_now_is_an_error(tmp_path: Path) -> None:
    """The state of an object isn't put into something else, nor passed over in silence."""
    loop = Loop(tmp_path)
    loop.carry()
    loop.ckpt.step()
    loop.ckpt.finish()
    again = Loop(tmp_path)
    again.draws = None
    with pytest.raises(ResumeError, match="draws can't be brought back"):
        again.carry()
    again.ckpt.close()


def test_a_tensor_that_gradients_are_asked_of_comes_back_as_one(tmp_path: Path) -> None:
    """A perturbation that the loop trains by hand is asked for gradients behind a resume, too, and has its last one."""

    def start(value: float) -> tuple[Loop, torch.Tensor, torch.Tensor]:
        loop = Loop(tmp_path)
        delta, plain = torch.full((2,), value, requires_grad=True), torch.nn.Parameter(torch.zeros(2))
        delta, plain = loop.ckpt.carry(lambda: {"delta": delta, "plain": plain})
        return loop, delta, plain

    loop, delta, _ = start(1.0)
    (delta * 3).sum().backward()
    loop.ckpt.step()
    loop.ckpt.close()
    loop, delta, plain = start(0.0)
    loop.ckpt.close()
    assert delta.requires_grad
    assert delta.is_leaf
    assert delta.tolist() == [1.0, 1.0]
    assert delta.grad is not None
    assert delta.grad.tolist() == [3.0, 3.0]
    assert isinstance(plain, torch.nn.Parameter)


def test_what_an_epoch_changes_ahead_of_its_batches_comes_back_behind_that(tmp_path: Path) -> None:
    """A list in an object that is carried for the loop and for the pass: what the epoch adds to it is gone again."""

    def course(batches: int) -> list[int]:
        loop, seen = Loop(tmp_path), Seen()
        loop.ckpt.carry(lambda: {"seen": seen})
        for epoch in loop.ckpt.epochs(range(1)):
            seen.numbers.append(epoch)
            loop.ckpt.carry(lambda: {"seen": seen}, in_pass=True)
            for _ in loop.ckpt.batches(range(4)):
                if loop.ckpt.batches_done > batches:
                    break
                loop.ckpt.step()
        loop.ckpt.close()
        return seen.numbers

    assert course(2) == [0]
    assert course(4) == [0]


class Seen:
    """Holds a list."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
