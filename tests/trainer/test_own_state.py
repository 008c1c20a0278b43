"""What a script's own objects keep, where training changes it, comes back."""

from __future__ import annotations

import copy
import time
from collections import Counter, defaultdict, deque, namedtuple
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.trainer import counted
from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, model, trainer, weights
from vaultlayer_hf import Trainer


class Average(TrainerCallback):
    """Keeps an average of the weights."""

    def __init__(self, of: Any) -> None:
        self.shadow = {name: value.detach().clone() for name, value in of.named_parameters()}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        for name, value in model.named_parameters():
            self.shadow[name].lerp_(value.detach(), 0.5)


def _tau(run: Any) -> None:
    run.model.tau = 1.0
    run.add_callback(Do(on_step_end=lambda _: setattr(run.model, "tau", run.model.tau * 0.9)))


def _counting(run: Any) -> None:
    counts = [0]

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        counts[0] += 1
        return outputs["logits"].pow(2).mean() * counts[0]

    run.compute_loss_func = loss


class History(TrainerCallback):
    """Keeps what people keep: losses, the best one, seconds of a step, a table, a queue, an average, a second model."""

    def __init__(self, of: Any) -> None:
        self.losses: list[float] = []
        self.best: float | None = None
        self.seen: defaultdict[int, int] = defaultdict(int)
        self.queue: deque[Any] = deque(maxlen=3)
        self.began, self.average, self.copies = 0.0, Average(of), copy.deepcopy(of)

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.time()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.average.on_step_end(args, state, control, model)
        for mine, other in zip(self.copies.parameters(), model.parameters(), strict=True):
            mine.data.lerp_(other.data, 0.1)
        self.queue.append(model.lm_head.weight[0].detach().numpy().copy())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.best = min(logs["loss"], self.best or logs["loss"])
            self.seen[int(logs["epoch"])] += 1

    def now(self) -> Any:
        """What of it is to be the same."""
        averages = [value.tolist() for value in self.average.shadow.values()]
        queue = [row.tolist() for row in self.queue]
        return self.losses, self.best, dict(self.seen), queue, averages, weights(self.copies)


CALLS, TRACE = 0, [0]


HELPED = 0


def helped() -> int:
    """Counts in a global, in itself and in a module, for who calls it."""
    global HELPED
    HELPED += 1
    helped.calls += 1  # type: ignore[attr-defined]
    counted.seen += 1
    return HELPED


class Stage(Enum):
    """Where a training is."""

    WARM = 1
    MAIN = 2


class Slots:
    """Has no ``__dict__``."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


Pair = namedtuple("Pair", "left right")


class Config(dict):  # type: ignore[type-arg]
    """A dictionary of the script's own class."""


class Hidden(torch.nn.Module):
    """Counts in a private attribute."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def forward(self) -> int:
        self._calls += 1
        return self._calls


class ByGlobals(Trainer):
    """Counts wherever scripts do, and weighs its loss by that."""

    made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage, self.phase, self.slots, self.pair = 0, Stage.WARM, Slots(), Pair(0, 1)
        self.rows: Counter[int] = Counter()
        self.config, self.space, hooked = Config(seen=0), SimpleNamespace(seen=0), [0]
        self.hooked = hooked  # what the hook holds is found by the hook, too
        self.model.lm_head.weight.register_hook(lambda gradient: hooked.append(len(hooked)))
        self.of_each, self.recent = [0] * 1000, {1}
        self.beside = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.beside, 1, gamma=0.9)
        self.model.hidden = Hidden()

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        global CALLS
        CALLS += 1
        TRACE.append(CALLS)
        ByGlobals.made += 1
        self.stage += self.state.global_step % 3 == 2
        self.phase = Stage.MAIN if helped() > 2 else self.phase
        self.slots.count += 1
        self.config["seen"] += 1
        self.space.seen += 1
        self.pair = self.pair._replace(left=self.pair.left + 1)
        row = int(inputs["input_ids"][0, 0])
        self.rows[row % 2] += 1
        self.of_each[row + 7] += 1
        self.recent = {self.recent.pop() + 1}
        self.beside.step()
        self.schedule.step()
        self.state.seen = getattr(self.state, "seen", 0) + 1
        return super().compute_loss(model, inputs, *args, **kwargs) * (
            1 + 0.1 * sum(self.counts(model.hidden()))
        )

    def counts(self, calls: int) -> list[float]:
        """What it counts."""
        state = [
            calls,
            CALLS,
            self.stage,
            HELPED,
            helped.calls,
            counted.seen,
            ByGlobals.made,
            self.slots.count,
        ]  # type: ignore[attr-defined]
        state += [self.config["seen"], self.space.seen, self.hooked[-1]]
        state += [self.pair.left, max(self.rows.values(), default=0), max(self.of_each), max(self.recent)]
        return [
            *state,
            self.schedule.get_last_lr()[0],
            getattr(self.state, "seen", 0),
            self.phase is Stage.MAIN,
        ]


def test_what_own_objects_keep_comes_back(tmp_path: Path) -> None:
    """Histories, counters, averages, queues and globals are an unbroken run's, over two breaks, unsaid.

    So is what is kept in closures, and in attributes of classes, functions and modules.
    """
    found, vault = [], tmp_path / "vault"
    for place, fails in (("u", 0), ("a", 3), ("b", 7), ("c", 0)):
        globals().update(CALLS=0, HELPED=0)
        TRACE[:], ByGlobals.made, helped.calls, counted.seen = [0], 0, 0, 0  # type: ignore[attr-defined]
        base = model()
        history = History(base)
        run = trainer(
            tmp_path / place,
            cls=ByGlobals,
            model=base,
            resume=None if place == "u" else vault,
            callbacks=[history, *([FailAt(fails), Patient(vault)] if fails else [])],
        )
        _tau(run)
        _counting(run)
        base.register_buffer("moves", torch.zeros(2), persistent=False)
        run.add_callback(Do(on_step_end=lambda state, base=base: base.moves.add_(state.global_step)))
        seen = Recorder(run) if place != "u" else None
        if fails:
            with pytest.raises(Boom):
                run.train()
        else:
            run.train()
            numbers = run.model.tau, run.model.moves.tolist(), run.counts(run.model.hidden()), TRACE[:]
            found.append((weights(run.model), history.now(), numbers))
        assert seen is None or not seen.of("inexact")
    assert found[0] == found[1]
    assert [stage.name for stage in Stage] == ["WARM", "MAIN"]


class Lookahead(torch.optim.Optimizer):
    """An optimizer around another one, whose groups and state it holds, as public ones do."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.count = inner, 0
        self.param_groups, self.state, self.defaults = inner.param_groups, inner.state, inner.defaults
        self.slow = [one.detach().clone() for group in self.param_groups for one in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        self.inner.step()
        self.count += 1
        if self.count % 2 == 0:
            fast = (one for group in self.param_groups for one in group["params"])
            for slow, one in zip(self.slow, fast, strict=True):
                one.copy_(slow.lerp_(one, 0.5))


def test_an_optimizer_around_another_goes_on(tmp_path: Path) -> None:
    """What comes back into the inner one stays what the outer one and its schedule hold, over two breaks."""
    found, vault = [], tmp_path / "vault"
    for place, fails in (("u", 0), ("a", 3), ("b", 5), ("c", 0)):
        base = model()
        optimizer = Lookahead(torch.optim.AdamW(base.parameters(), lr=1e-2))
        run = trainer(
            tmp_path / place,
            model=base,
            optimizers=(optimizer, None),
            resume=None if place == "u" else vault,
            callbacks=[FailAt(fails), Patient(vault)] if fails else [],
        )
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        assert optimizer.inner.param_groups[0]["lr"] == run.lr_scheduler.get_last_lr()[0]
        found.append(weights(run.model))
    assert found[0] == found[-1]
