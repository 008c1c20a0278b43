"""State that a script's own objects hold at one remove: what they call, draw from, or make on the way, comes back."""

from __future__ import annotations

import functools
import multiprocessing
import random
import threading
import time
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import tests
from tests.trainer import counted
from tests.trainer.kit import Boom, FailAt, Patient, Recorder, model, trainer, weights
from vaultlayer_hf import Trainer

SEEN: dict[str, int] = {}


@torch.no_grad()
def note(name: str) -> int:
    """Count in a global; a decorator of torch's is around it."""
    SEEN[name] = SEEN.get(name, 0) + 1
    return SEEN[name]


@functools.lru_cache(1)
def cached(step: int) -> int:
    """Count at each new step; a decorator of Python's is around it."""
    return note("cached")


def by_name() -> int:
    """Be found in a table alone."""
    return note("by name")


TABLE: dict[str, list[Callable[[], int]]] = {"counts": [by_name]}


def counter() -> Callable[[], int]:
    """Return a function that counts in its closure."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return count

    return step


class Meter:
    """Counts in itself, and in a global that its own function reads."""

    def __init__(self) -> None:
        self.count, self.rng = 0, numpy.random.default_rng(0)

    def step(self) -> float:
        self.count += 1
        return self.count + note("meter") + self.rng.random()


class Warmed(torch.nn.Module):
    """A loss that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("sum", torch.zeros(1), persistent=False)

    def forward(self, loss: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.sum += self.calls
        return loss * (1 + 0.01 * self.sum.item())


def half() -> float:
    """Return a weight."""
    return 0.5


def double() -> float:
    """Return another one."""
    return 2.0


def weight(value: float) -> float:
    """Return a weight that is bound ahead."""
    return value


class Sum:
    """Is referred to weakly alone."""

    sum = 0


SUM = [Sum()]
REFERRED: Any = weakref.ref(SUM[0])


def lasting(value: int, seen: list[int] = [], *, by: Any = types.SimpleNamespace(drawn=0)) -> float:  # noqa: B006, B008
    """Gather in defaults of arguments, which last from call to call."""
    seen.append(value)
    by.drawn += value
    REFERRED().sum += value
    return sum(seen) + float(by.drawn) + REFERRED().sum


METER, SHOWN = Meter(), time.monotonic()
"""A meter at the top of a script; a sum of losses that a clock has shown, too."""


class Indirect(Trainer):
    """Weighs its loss by what it holds at one remove, of each kind."""

    late = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.next, self.method, self.table = counter(), Meter().step, TABLE
        self.rngs: dict[str, Any] = {"a": [random.Random(0)], "b": Meter(), "c": torch.Generator()}
        self.losses = torch.nn.Sequential(Warmed())
        self.smooth, self.here = torch.nn.CrossEntropyLoss(label_smoothing=0.5), threading.local()
        self.here.steps = 0
        self.chosen, self.bound = half, functools.partial(weight, 1.0)
        self.recent: dict[str, Any] = {}
        self.rate, self.spent, self.shared = Decimal(1), timedelta(), multiprocessing.Value("i", 0)
        self.losses_seen = SHOWN
        self.bank, self.rows = torch.zeros(20001, 8), {row: torch.zeros(1) for row in range(1000)}
        self.model.memory, self.model.rng = torch.zeros(2), torch.Generator()
        self.model.config.weight = 1.0

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.late is None:
            self.late = numpy.random.RandomState(1)
            self.recent["queue"], self.recent["counts"] = deque(maxlen=2), defaultdict(int)
            self.recent["order"] = OrderedDict(a=1, b=1)
        step = self.state.global_step
        if step == 1:
            self.chosen, self.bound = double, functools.partial(weight, 3.0)
        self.recent["queue"].append(step)
        self.recent["counts"][step] += 1
        self.recent["order"].move_to_end("a" if step % 2 else "b")
        self.rate *= Decimal("0.9")
        self.spent += timedelta(seconds=1)
        self.shared.value += 1
        self.smooth.label_smoothing *= 0.9
        self.here.steps += 1
        self.control.spent = getattr(self.control, "spent", 0) + 1
        self.losses_seen += 0.125
        row = int(inputs["input_ids"][0, 0])
        self.bank[row * 37 + 11] += 1
        self.rows[row * 7 + 1] += 1
        self.model.memory += step
        self.model.config.weight *= 0.9
        tests.trainer.counted.seen += 1
        return self.losses(loss) * (1 + 0.001 * sum(self.numbers(step, row)))

    def numbers(self, step: int, row: int) -> list[float]:
        """What it goes by."""
        assert self.late is not None
        drawn = [self.rngs["a"][0].random(), self.rngs["b"].step(), self.late.rand()]
        drawn += [torch.rand(1, generator=one).item() for one in (self.rngs["c"], self.model.rng)]
        called = [self.next(), self.method(), METER.step(), cached(step), *(one() for one in TABLE["counts"])]
        chosen = [self.chosen(), self.bound(), float(self.rate), self.spent.seconds, self.shared.value]
        called.append(lasting(step))
        recent = [
            sum(self.recent["queue"]),
            len(self.recent["counts"]),
            next(iter(self.recent["order"])) == "a",
        ]
        rows = [self.bank[row * 37 + 11].sum().item(), self.rows[row * 7 + 1].item()]
        rows += [self.losses_seen - SHOWN, self.smooth.label_smoothing, self.here.steps, self.control.spent]
        held = [self.model.memory.sum().item(), self.model.config.weight, counted.seen]
        return [*drawn, *called, *chosen, *recent, *rows, *held]


def _patched(of: Any) -> Any:
    """Return a model whose forward is a function that counts."""
    calls, forward = [0], of.forward

    def patched(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        found = forward(*args, **kwargs)
        found.loss = found.loss * (1 + 0.01 * calls[0])
        return found

    of.forward = patched
    return of


def test_what_is_held_at_one_remove_comes_back(tmp_path: Path) -> None:
    """What functions in attributes and tables, methods, decorated functions and objects hold is an unbroken run's.

    So are generators within objects, those made by their first use, and containers that training makes.
    """
    found, vault = [], tmp_path / "vault"
    for place, fails in (("u", 0), ("a", 3), ("b", 7), ("c", 0)):
        SEEN.clear()
        cached.cache_clear()
        lasting.__defaults__[0].clear()  # type: ignore[index] # it has one
        lasting.__kwdefaults__["by"].drawn = REFERRED().sum = 0
        METER.count, METER.rng, counted.seen = 0, numpy.random.default_rng(0), 0
        run = trainer(
            tmp_path / place,
            cls=Indirect,
            model=_patched(model()),
            resume=None if place == "u" else vault,
            callbacks=[FailAt(fails), Patient(vault)] if fails else [],
            remove_unused_columns=False,
        )
        seen = Recorder(run) if place != "u" else None
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        found.append((weights(run.model), run.numbers(8, 1)))
        assert seen is None or not seen.of("inexact"), [event.message for event in seen.of("inexact")]
    assert found[0] == found[-1]
