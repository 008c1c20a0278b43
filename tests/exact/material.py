"""Data sets and trainings of the scenarios: a tiny Llama with dropout, so that every lost random number shows."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers
from transformers import LlamaForCausalLM, TrainerCallback, TrainingArguments

from tests.kit.models import tiny_llama

VOCAB, LENGTH, SAMPLES, BATCH = 32, 8, 22, 2
NEW = int(transformers.__version__.split(".")[0]) >= 5


def _rows(samples: int = SAMPLES) -> torch.Tensor:
    return torch.randint(2, VOCAB, (samples, LENGTH), generator=torch.Generator().manual_seed(7))


def _sample(row: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"input_ids": row, "labels": row}


def augmented(row: torch.Tensor) -> torch.Tensor:
    """A row with changes drawn from all three global generators."""
    row = row.clone()
    row[random.randrange(LENGTH)] = 0
    row[int(numpy.random.randint(LENGTH))] = 1
    row[int(torch.randint(LENGTH, ()))] = int(torch.randint(2, VOCAB, ()))
    return row


class Rows(torch.utils.data.Dataset):
    """Fixed random rows, changed at random where asked."""

    def __init__(self, augment: bool = False, samples: int = SAMPLES) -> None:
        self.rows, self.augment = _rows(samples), augment

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return _sample(augmented(self.rows[index]) if self.augment else self.rows[index])


class OwnDraws(Rows):
    """Rows changed at random by a generator of the data set's own."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = numpy.random.default_rng(5)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index].clone()
        row[int(self.chance.integers(LENGTH))] = 1
        return _sample(row)


class Grouped(torch.utils.data.Dataset):
    """Rows of two lengths, for group_by_length."""

    def __init__(self) -> None:
        self.rows = _rows()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return _sample(self.rows[index][4 * (index % 2) :])


def padded(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of samples, padded to the longest."""
    return {
        name: torch.nn.utils.rnn.pad_sequence(
            [torch.as_tensor(sample[name]) for sample in samples], batch_first=True
        )
        for name in ("input_ids", "labels")
    }


class Stream(torch.utils.data.IterableDataset):
    """Rows without a length: shuffled anew in each pass, by how many passes there were."""

    def __init__(self, samples: int = SAMPLES, augment: bool = False) -> None:
        self.rows, self.passes, self.augment = _rows(samples), 0, augment

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(self.passes))
        self.passes += 1
        for index in order.tolist():
            yield _sample(augmented(self.rows[index]) if self.augment else self.rows[index])


def hub_stream() -> Any:
    """An IterableDataset of ``datasets``: it tells its own position."""
    from datasets import Dataset

    rows = _rows().tolist()
    data = Dataset.from_dict({"input_ids": rows, "labels": rows})
    return data.to_iterable_dataset(num_shards=2)


def hub_stream_with_buffer() -> Any:
    """The same behind a shuffle buffer, which its own position leaves out."""
    return hub_stream().shuffle(seed=3, buffer_size=5)


def hub_stream_in_steps() -> Any:
    """The same behind a filter and a map of batches, whose sizes don't fit the loader's."""
    return hub_stream().filter(_has_no_31).map(_as_they_are, batched=True, batch_size=5)


def _has_no_31(row: dict[str, list[int]]) -> bool:
    return 31 not in row["input_ids"]


def _as_they_are(rows: dict[str, Any]) -> dict[str, Any]:
    return rows


def hub_stream_that_stands_still() -> Any:
    """The same in a release of ``datasets`` like 5.0.0: behind a resume its state stays that of the resume."""
    from datasets import IterableDataset

    if not hasattr(IterableDataset, "tests_own"):  # this process is this scenario's alone
        own = IterableDataset.state_dict

        def state_dict(self: Any) -> Any:
            return copy.deepcopy(self.loaded) if hasattr(self, "loaded") else own(self)

        def load_state_dict(self: Any, state: Any) -> None:
            load(self, state)
            self.loaded = copy.deepcopy(state)

        load = IterableDataset.load_state_dict
        IterableDataset.state_dict, IterableDataset.load_state_dict = state_dict, load_state_dict
        IterableDataset.tests_own = True
    return hub_stream()


@dataclass(frozen=True)
class Scenario:
    """A training that is broken off three times and resumed each time.

    Attributes:
        data: makes the data set.
        steps: up to the first break, and a few more; ``whole_steps`` is what is trained.
        save: the step that is saved and resumed from first; with two ranks the end of an epoch is behind it.
        later: how many steps behind the first break the other two are: one soon, in the same pass as a rule, and one
            far enough for another pass. Most errors of a place show where a run had gone on from one itself.
        arguments: of TrainingArguments.
        resumed: arguments that are others in the run that goes on.
        evaluated: how many data sets there are to evaluate.
        stateful: with torchdata's loader, which keeps its position itself, in place of the Trainer's.
        possible: whether the same numbers can come out of it.
    """

    name: str
    data: Any = Rows
    steps: int = 9
    save: int = 5
    later: tuple[int, ...] = (2, 9)
    arguments: dict[str, Any] = field(default_factory=dict)
    resumed: dict[str, Any] = field(default_factory=dict)
    evaluated: int = 0
    stateful: bool = False
    possible: bool = True

    @property
    def breaks(self) -> tuple[int, ...]:
        """The steps that are saved, and behind which the training is broken off."""
        return (self.save, *(self.save + more for more in self.later))

    @property
    def whole_steps(self) -> int:
        """How many steps the training has."""
        return max(self.steps, self.breaks[-1] + 3)


def _augmented() -> Rows:
    return Rows(augment=True)


def _augmented_stream() -> Stream:
    return Stream(augment=True)


def _odd_stream() -> Stream:
    return Stream(samples=SAMPLES - 1)


def _short_stream() -> Stream:
    return Stream(samples=8)


_BY_LENGTH: dict[str, Any] = (
    {"train_sampling_strategy": "group_by_length"}
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__
    else {"group_by_length": True}
)
_TWO = {"dataloader_num_workers": 2}
_PERSISTENT = {**_TWO, "dataloader_persistent_workers": True}

TABLE = (
    Scenario("in the middle of an epoch", save=3),
    Scenario("2 workers", arguments=_TWO, save=3),
    Scenario("gradient accumulation", arguments={"gradient_accumulation_steps": 2}, save=2),
    Scenario("end of an epoch", arguments={"save_strategy": "epoch"}, steps=44, save=11, later=(11, 22)),
    Scenario("iterable, within an epoch", Stream, save=3, later=(2, 4)),
    Scenario(
        "more epochs than before",
        arguments={"num_train_epochs": 3, "max_steps": -1, "lr_scheduler_type": "constant"},
        steps=33,
        save=11,
    ),
    Scenario("max_steps over several epochs", steps=18, save=14),
    Scenario("group_by_length", Grouped, arguments=_BY_LENGTH, save=4),
    Scenario("persistent workers", _augmented, arguments=_PERSISTENT, steps=18, save=14),
    Scenario("random augmentation, 0 workers", _augmented),
    Scenario("random augmentation, 2 workers", _augmented, arguments=_TWO),
    Scenario("iterable over several epochs", _short_stream, steps=14, save=10),
    Scenario(
        "prefetch with augmentation",
        _augmented,
        arguments={**_TWO, "dataloader_prefetch_factor": 4},
        save=4,
    ),
    Scenario("save_only_model", arguments={"save_only_model": True}, possible=False),
    Scenario("ignore_data_skip", arguments={"ignore_data_skip": True}, possible=False),
)
"""The thirteen that can be the same run, and two that can't."""

_EVALUATED = {**_PERSISTENT, "eval_strategy": "steps", "eval_steps": 2}

MORE = (
    Scenario("evaluations with persistent workers", arguments=_EVALUATED, steps=24, save=5, evaluated=1),
    Scenario("two evaluations with persistent workers", arguments=_EVALUATED, steps=16, save=13, evaluated=2),
    Scenario("persistent workers, end of an epoch", Rows, arguments=_PERSISTENT, steps=18, save=11),
    Scenario(
        "augmentation and accumulation", _augmented, arguments={"gradient_accumulation_steps": 2}, save=2
    ),
    Scenario("a generator of the data set's own, 0 workers", OwnDraws),
    Scenario("a generator of the data set's own, 2 workers", OwnDraws, arguments=_TWO),
    Scenario("iterable at the very end of an epoch", _short_stream, steps=10, save=4),
    Scenario("augmented iterable, 0 workers", _augmented_stream, save=4),
    Scenario("augmented iterable, 2 workers", _augmented_stream, arguments=_TWO, save=4),
    Scenario("persistent iterable, 2 workers", _augmented_stream, arguments=_PERSISTENT, steps=30, save=26),
    Scenario("datasets' iterable", hub_stream, save=4),
    Scenario("datasets' iterable, 2 workers", hub_stream, arguments=_TWO, save=5),
    Scenario("datasets' iterable over several epochs", hub_stream, steps=18, save=14),
    Scenario("a stateful loader, within a later epoch", _augmented, stateful=True, steps=18, save=14),
    Scenario("datasets' iterable with a shuffle buffer", hub_stream_with_buffer, save=5),
    Scenario("iterable whose last batch is completed", _odd_stream, save=5, later=(3,), steps=12),
    Scenario("datasets' iterable, filtered and in batches", hub_stream_in_steps, save=3, steps=16),
    Scenario(
        "datasets' iterable whose state stands still behind a resume", hub_stream_that_stands_still, save=3
    ),
    Scenario("losses logged every 4 steps", arguments={"logging_steps": 4}),
    Scenario(
        "losses logged every 4 steps, accumulation",
        arguments={"logging_steps": 4, "gradient_accumulation_steps": 2},
        save=2,
    ),
)
"""What the table has no row for."""


def scenario(name: str) -> Scenario:
    """Return a scenario by its name."""
    return next(one for one in TABLE + MORE if one.name == name)


def model() -> LlamaForCausalLM:
    """A Llama of a few thousand parameters, with dropout."""
    return tiny_llama(VOCAB, 8, max_position_embeddings=LENGTH, attention_dropout=0.3)


def arguments(one: Scenario, output: Path, **more: Any) -> TrainingArguments:
    """The Trainer's arguments for a scenario."""
    common: dict[str, Any] = {
        "output_dir": str(output),
        "use_cpu": True,
        "max_steps": one.whole_steps,
        "save_strategy": "steps",
        "save_steps": 1000,
        "logging_steps": 1,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-2,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**common, **one.arguments, **more})


class Breaks(TrainerCallback):
    """Saves at a scenario's steps, and breaks a training off behind the save of one of them.

    Args:
        saves: steps to save at; none where the scenario's arguments say when.
        end: the step behind whose save it breaks off; None: it doesn't.
    """

    def __init__(self, saves: tuple[int, ...], end: int | None) -> None:
        self.saves, self.end = saves, end

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.saves:
            control.should_save = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.end is not None and state.global_step == self.end + 1:
            raise BrokenOffError


class BrokenOffError(Exception):
    """The training was broken off where it was meant to be."""


def digest(trained: Any) -> str:
    """A digest of all weights, of every logged loss and of the epochs' fractions."""
    found = hashlib.sha256()
    for name, value in sorted(trained.model.state_dict().items()):
        found.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    for entry in trained.state.log_history:
        if "loss" in entry:
            found.update(repr((entry["step"], entry["loss"], entry["epoch"])).encode())
    return found.hexdigest()[:16]
