"""State in attributes of a script's own objects: what comes back does, and what doesn't is said."""

from __future__ import annotations

import copy
import itertools
import random
import signal
import time
from collections import Counter, defaultdict, deque, namedtuple
from contextlib import nullcontext, suppress
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from tests.trainer import counted
from tests.trainer.kit import STEPS, Boom, Do, FailAt, Patient, Recorder, Tokens, model, trainer, weights
from vaultlayer_hf import Trainer
from vaultlayer_hf.state.attributes import look, moved
from vaultlayer_hf.state.object_kinds import is_of_script, own_attributes
from vaultlayer_hf.state.plain_values import Room
from vaultlayer_hf.trainer import own_state
from vaultlayer_hf.trainer.loaded import Trained
from vaultlayer_hf.trainer.own_places import OwnPlaces
from vaultlayer_hf.trainer.own_state import OwnState


class Noisy(Trainer):
    """Draws from generators of its own, of every kind."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.torch_rng = torch.Generator().manual_seed(0)
        self.python_rng, self.numpy_rng = random.Random(0), numpy.random.default_rng(0)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        drawn = (
            torch.rand(1, generator=self.torch_rng).item()
            + self.python_rng.random()
            + self.numpy_rng.random()
        )
        return super().compute_loss(*args, **kwargs) * (1 + drawn)


class ThawsEarly(TrainerCallback):
    """Trains the layers from about epoch 1 on: too early where it is asked in the middle of epoch 0."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        model.model.layers.requires_grad_(round(state.epoch or 0) >= 1)


TOP = numpy.random.default_rng(0)
"""A generator at the top of a script."""


class Drawn(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows drawn from a generator that the class finds at the top of its module."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = torch.tensor(TOP.integers(0, 64, 16))
        return {"input_ids": row, "labels": row}


class TopNoise(Trainer):
    """Draws from there in its loss."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * (1 + TOP.random())


class Noise(torch.nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(0)

    def forward(self) -> float:
        return torch.rand(1, generator=self.rng).item()


class NoisyModel(Trainer):
    """Has such a module in its model."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.noise = Noise()

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, *args, **kwargs) * (1 + self.model.noise())


class Thaws(TrainerCallback):
    """Trains the layers from step 3 on."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        model.model.layers.requires_grad_(False)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            model.model.layers.requires_grad_(True)


@pytest.mark.parametrize(
    ("cls", "callback", "data"),
    [
        (Noisy, Do, Tokens),
        (NoisyModel, Do, Tokens),
        (Trainer, Thaws, Tokens),
        (Trainer, ThawsEarly, Tokens),
        (Trainer, Do, Drawn),
        (TopNoise, Do, Tokens),
        (TopNoise, Do, Drawn),
    ],
)
def test_it_comes_back(cls: Any, callback: Any, data: Any, tmp_path: Path) -> None:
    """Generators of a Trainer's own, of a module and at a script's top, and what is trained, are back twice."""
    begin = TOP.bit_generator.state
    unbroken = trainer(tmp_path / "u", cls=cls, callbacks=[callback()], train_dataset=data())
    unbroken.train()
    vault = tmp_path / "vault"
    for step in (5, 7):
        TOP.bit_generator.state = begin
        run = trainer(
            tmp_path / f"{step}",
            cls=cls,
            resume=vault,
            train_dataset=data(),
            callbacks=[callback(), Patient(vault), FailAt(step)],
        )
        with pytest.raises(Boom):
            run.train()
    again = trainer(tmp_path / "b", cls=cls, resume=vault, train_dataset=data(), callbacks=[callback()])
    seen = Recorder(again)
    again.train()
    assert weights(again.model) == weights(unbroken.model)
    assert not seen.of("inexact")


class Average(TrainerCallback):
    """Keeps an average of the weights."""

    def __init__(self, of: Any) -> None:
        self.shadow = {name: value.detach().clone() for name, value in of.named_parameters()}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        for name, value in model.named_parameters():
            self.shadow[name].lerp_(value.detach(), 0.5)


class Counts(TrainerCallback, ExportableState):
    """Is kept by the Trainer itself."""

    seen = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"seen": self.seen}}


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


class Opens(TrainerCallback):
    """Opens a file at its first log, and goes by a flag that it is open."""

    def __init__(self, path: Path) -> None:
        self.path, self.file, self.ready = path, None, False

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        if not self.ready:
            self.file, self.ready = self.path.open("a"), True
        self.file.write("logged\n")

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.file.close()


class Sums(TrainerCallback):
    """Counts within an epoch, and times the whole."""

    def __init__(self) -> None:
        self.sum, self.sums = 0, []
        self.began, self.timed = None, False

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.sum = 0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if not self.timed:
            self.began, self.timed = time.perf_counter(), True

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.sum += 1
        self.sums.append(self.sum)
        assert 0 <= time.perf_counter() - self.began < 1000


def test_what_goes_together_comes_back_together(tmp_path: Path) -> None:
    """A flag stays away without the file that it speaks of; a count within an epoch comes back, and a clock goes on."""
    vault, out = tmp_path / "vault", tmp_path / "log"
    for fails in (3, 0):
        sums, opens = Sums(), Opens(out)
        broken = [FailAt(fails), Patient(vault)] if fails else []
        run = trainer(tmp_path / "a", resume=vault, callbacks=[sums, *broken], logging_steps=1)
        run.add_callback(opens)
        if fails:
            with pytest.raises(Boom):
                run.train()
            opens.file.close()
        else:
            run.train()
    assert sums.sums == [1, 2, 3, 4, 5, 1, 2, 3]
    assert len(out.read_text().splitlines()) >= 8


class Mining(Trainer):
    """Gives what it was bad at first: its sampler reads what its loss has noted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noted: dict[int, float] = {}

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.noted[int(inputs["input_ids"][0, 0]) % 10] = loss.item()
        return loss

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        trainer = self

        class Worst(torch.utils.data.Sampler[int]):
            def __len__(self) -> int:
                return 10

            def __iter__(self) -> Any:
                return iter(sorted(range(10), key=lambda row: -trainer.noted.get(row, 0)))

        return Worst()


def test_a_sampler_that_reads_what_training_changes_is_said(tmp_path: Path) -> None:
    """Behind a save within a pass its order can't be made again: said at the resume, and not at an epoch's end."""
    said = []
    for place, fails, saves in (("a", 3, {"save_steps": 2}), ("b", 6, {"save_strategy": "epoch"})):
        vault = tmp_path / f"vault-{place}"
        for ends in (FailAt(fails), Do()):
            run = trainer(
                tmp_path / place, cls=Mining, resume=vault, callbacks=[Patient(vault), ends], **saves
            )
            seen = Recorder(run)
            with suppress(Boom):
                run.train()
            said.append([event.message for event in seen.of("inexact")])
    assert [len(messages) for messages in said] == [0, 1, 0, 0]
    assert "reads Mining.noted, which training changes" in said[1][0]


class Stops(TrainerCallback):
    """Ends the training when a signal has come, as scripts for Slurm do: noted in an attribute, a list and a global."""

    def __init__(self) -> None:
        self.told = False
        signal.signal(signal.SIGTERM, self.handle)

    def handle(self, number: int, frame: Any) -> None:
        self.told = True
        NOTED.append(number)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= self.told or bool(NOTED)


NOTED: list[int] = []


def test_what_a_handler_of_signals_has_noted_is_not_carried(tmp_path: Path) -> None:
    """That one process was told to end doesn't have the next one stop at its first step."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        for step in (3, 0):
            NOTED.clear()
            ends = Do(
                on_step_end=lambda s, at=step: s.global_step == at and signal.raise_signal(signal.SIGTERM)
            )
            run = trainer(tmp_path / "a", resume=tmp_path / "vault", callbacks=[ends, Stops()])
            with pytest.raises(SystemExit) if step else nullcontext():
                run.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.state.global_step == STEPS


class Large(TrainerCallback):
    """Keeps more than is kept of it."""

    def __init__(self) -> None:
        self.table, self.open = torch.zeros(1000), [object()]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.table += 1


class Draws(TrainerCallback):
    """Draws from an iterator, and counts."""

    def __init__(self) -> None:
        self.pairs, self.drawn = itertools.cycle([1, 2]), 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.drawn += next(self.pairs)


class Table:
    """A library's table, in which nobody sees anything."""


Table.__module__ = "pytest"


class Tables(TrainerCallback):
    """Makes its table anew at each step, and counts."""

    def __init__(self) -> None:
        self.rows, self.count = Table(), 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.rows, self.count = Table(), self.count + 1


@pytest.mark.parametrize("said", ["Large.table", "Draws.pairs", "Tables.rows", ""])
def test_what_does_not_come_back_is_said(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large, an iterator, and a library's new object, is named at a save and at the resume.

    What the Trainer keeps itself isn't.
    """
    monkeypatch.setattr(own_state, "Room", lambda: Room(900))
    vault = tmp_path / "vault"
    for place, callbacks in (("a", [Patient(vault), FailAt(3)]), ("b", [])):
        run = trainer(tmp_path / place, resume=vault, callbacks=callbacks, max_steps=4)
        run.add_callback({"Large.table": Large, "Draws.pairs": Draws, "Tables.rows": Tables, "": Counts}[said]())
        seen = Recorder(run)
        if callbacks:
            with pytest.raises(Boom):
                run.train()
        else:
            run.train()
        found = [event.message for event in seen.of("inexact")]
        assert len(found) == (bool(said) if callbacks else 2 * bool(said)), found
        assert all(said in message for message in found)
        assert not callbacks or all(message.startswith(f"{said}: training changes") for message in found)


def test_what_moves_within_attributes() -> None:
    """A change shows wherever it is; what stays, what is known and what comes back otherwise is not named."""
    inner = torch.nn.Linear(2, 2)
    held: dict[str, Any] = {
        "queue": torch.zeros(3, 1000, 100),
        "rows": list(range(1000)),
        "table": {"a": numpy.zeros(3)},
        "head": inner,
        "own": Average(inner),
        "same": [1, 2],
        "model": model(),
        "rng": random.Random(0),
    }
    known = {id(one) for one in held["model"].parameters()}
    then = look({"it": held}, known)
    held["queue"][1, 0, 0] = 1
    held["rows"].reverse()
    held["table"]["a"][2] = 1
    held["own"].shadow["bias"].add_(1)
    held["rng"].random()
    with torch.no_grad():
        inner.bias.add_(1)
        held["model"].lm_head.weight.add_(1)
    held["late"] = 1
    found = moved(then, look({"it": held}, known))
    assert found == ["it.queue", "it.rows", "it.table", "it.head", "it.own", "it.late"]


def test_what_a_library_assigns_is_not_the_scripts_own() -> None:
    """However many names its method has, and within functions of it, too; what it only reads may be the script's."""
    lines = [f"self.its_{number} = self.read_{number}" for number in range(300)]
    text = "\n    ".join(["def fill(self):", *lines, "def inner():", "    self.within = self.last"])
    made: dict[str, Any] = {}
    exec(text, made)
    library = type("Library", (), {"fill": made["fill"], "__module__": "torch.nn"})
    thing = type("Mine", (library,), {})()
    vars(thing).update({f"{what}_{number}": 0 for what in ("its", "read") for number in range(300)})
    vars(thing).update(within=0, last=0)
    assert set(own_attributes(thing)) == {"last", *(f"read_{number}" for number in range(300))}


def test_a_save_goes_through_a_model_as_often_however_large_it_is() -> None:
    """What is kept of its modules is looked for in a few passes, not in one for each module."""

    class Counted(torch.nn.Sequential):
        def named_modules(self, *args: Any, **kwargs: Any) -> Any:
            passes.append(self)
            return super().named_modules(*args, **kwargs)

    counts, passes = [], list[Any]()
    for size in (2, 20):
        net = Counted(*(torch.nn.Linear(2, 2) for _ in range(size)))
        optimizer = torch.optim.SGD(net.parameters())
        own = OwnState(None, [], Trained(net, optimizer), torch.utils.data.DataLoader([0]), [])
        passes.clear()
        own.state_dict()
        counts.append(len(passes))
    assert counts[0] == counts[1] > 0


def test_each_look_at_the_places_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A begin, a save and a load each go through what is the script's own once: all of them hold up a training."""
    passes = []
    every = OwnPlaces.all
    monkeypatch.setattr(OwnPlaces, "all", lambda self: passes.append(self) or every(self))
    net = torch.nn.Linear(2, 2)
    trained = Trained(net, torch.optim.SGD(net.parameters()))
    own = OwnState(None, [Counts()], trained, torch.utils.data.DataLoader([0]), [])
    begin = len(passes)
    kept = own.state_dict()
    save = len(passes)
    own.load_state_dict(kept)
    assert (begin, save - begin, len(passes) - save) == (1, 1, 1)


def test_whose_a_class_is() -> None:
    """Of the script's own is what it or a module beside it defines; not torch's, Python's, ours."""
    assert [is_of_script(cls) for cls in (Average, torch.nn.Linear, random.Random, dict, Path, Trainer)] == [
        True,
        *[False] * 5,
    ]


class _Hours(TrainerCallback):
    """Saves and stops once the hours of a job are over; notes when it has warmed up, and when it stopped."""

    def __init__(self) -> None:
        self.over, self.warm, self.reason = False, False, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.warm = self.warm or state.global_step >= 2
        if state.global_step in (3, 6):
            self.over, self.reason = True, "the hours are over"
        if self._is_over() and self.warm:
            control.should_save = control.should_training_stop = True

    def _is_over(self) -> bool:
        return self.over and bool(self.reason)


def test_a_stop_is_no_state(tmp_path: Path) -> None:
    """A note that a job's hours are over ends with the process, and each start trains on; what was so before stays."""
    reached = []
    for _ in range(3):
        hours = _Hours()
        warm: list[bool] = []
        began = Do(on_step_begin=lambda state, hours=hours, warm=warm: warm.append(hours.warm))
        run = trainer(tmp_path / "o", resume=tmp_path / "v", callbacks=[hours, began])
        notes = Recorder(run)
        run.train()
        reached += [warm[0], run.state.global_step]
        assert not notes.of("inexact")
    assert reached == [False, 3, True, 6, True, 8]
