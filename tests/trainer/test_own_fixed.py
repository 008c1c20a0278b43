"""What a script makes at each start and training leaves as it is: where a start makes it otherwise, that is said."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from transformers import TrainerCallback

from tests.kit.models import tiny_llama
from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, trainer
from tests.trainer.programs import tokenizer
from vaultlayer_hf import Trainer, resumable
from vaultlayer_hf.trainer.own_fixed import digests_of_fixed, made_otherwise
from vaultlayer_hf.trainer.own_places import OwnPlaces
from vaultlayer_hf.trainer.trained import Trained


class Weighs(Trainer):
    """Weighs its loss by a tensor that it is given."""

    weights: Any = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, inputs, *args, **kwargs) * self.weights.mean()


class Holds(TrainerCallback):
    """Holds what it is given, as a callback that compares with it would."""

    def __init__(self, held: Any) -> None:
        self.held = held


teacher: Any = None


def taught(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    """A loss that goes by a teacher, a global of the script's."""
    found: torch.Tensor = outputs.logits.square().mean() + teacher.weight.mean()
    return found


class Projects(torch.nn.Module):
    """Is hung on the model, and keeps a random matrix in a plain attribute."""

    def __init__(self, drawn: torch.Tensor) -> None:
        super().__init__()
        self.matrix = drawn


def _tensor(run: Any, drawn: torch.Tensor) -> None:
    run.weights = drawn


def _container(run: Any, drawn: torch.Tensor) -> None:
    run.add_callback(Holds({"first": drawn, "name": "x"}))


def _array(run: Any, drawn: torch.Tensor) -> None:
    run.add_callback(Holds(numpy.asarray(drawn)))


def _module(run: Any, drawn: torch.Tensor) -> None:
    run.reference = torch.nn.Linear(4, 4)
    run.reference.weight.data = drawn


def _global(run: Any, drawn: torch.Tensor) -> None:
    global teacher
    teacher = torch.nn.Linear(4, 4)
    teacher.weight.data = drawn
    run.compute_loss_func = taught


projection: Any = None


def projected(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A collator that goes by a module, a global of the script's."""
    ids = torch.stack([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": (ids + projection.weight.sum().long().abs()) % 64}


class Masks(Tokens):
    """Rows, and a tensor by which some of each are left out."""

    mask: Any = None


def _of_collator(run: Any, drawn: torch.Tensor) -> None:
    global projection
    projection = torch.nn.Linear(4, 4)
    projection.weight.data = drawn
    run.data_collator = projected


def _of_data(run: Any, drawn: torch.Tensor) -> None:
    run.train_dataset = Masks()
    run.train_dataset.mask = drawn


def _of_model(run: Any, drawn: torch.Tensor) -> None:
    run.model.projection = Projects(drawn)


KINDS = {
    "Weighs.weights": _tensor,
    "Holds.held": _container,
    "Holds.held of numpy": _array,
    "Weighs.reference": _module,
    "taught.teacher": _global,
    "model.projection.matrix": _of_model,
    "projected.projection": _of_collator,
    "Masks.mask": _of_data,
}
OTHER = "was trained with other content of"


def start(tmp_path: Path, hold: Callable[[Any, torch.Tensor], None], seed: int, **more: Any) -> Any:
    """A Trainer that holds something drawn from a seed."""
    made = trainer(tmp_path / "o", cls=Weighs, resume=str(tmp_path / "v"), **more)
    made.weights = torch.ones(1)
    hold(made, torch.rand(4, 4, generator=torch.Generator().manual_seed(seed)))
    return made


def said(run: Any) -> list[str]:
    """Train, and return what is said of this."""
    log = Recorder(run)
    run.train()
    return [one.message for one in log.of("inexact") if OTHER in one.message]


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_a_start_makes_otherwise_is_said(tmp_path: Path, kind: str) -> None:
    """It is named before the first step; made the same, nothing is said."""
    with pytest.raises(Boom):
        start(tmp_path, KINDS[kind], 1, callbacks=[FailAt(3), Patient(tmp_path / "v")]).train()
    again = start(tmp_path, KINDS[kind], 2, callbacks=[FailAt(5), Patient(tmp_path / "v")])
    log = Recorder(again)
    with pytest.raises(Boom):
        again.train()
    words = [one.message for one in log.of("inexact") if OTHER in one.message]
    assert len(words) == 1
    assert f"{OTHER} {kind.split(' ')[0]}" in words[0]
    assert said(start(tmp_path, KINDS[kind], 2)) == []


class Averages(TrainerCallback):
    """Moves what it holds at each step."""

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.held.mul_(0.5)


class Lazily(Trainer):
    """Makes its reference at the first step, of the model as it is then."""

    reference: Any = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.reference is None:
            self.reference = copy.deepcopy(model).requires_grad_(False)
        first = next(self.reference.parameters())
        return super().compute_loss(model, inputs, *args, **kwargs) + first.square().mean()


def test_what_a_script_makes_on_its_way_is_said(tmp_path: Path) -> None:
    """A reference that the checkpoint holds, and that this start will make of the newest weights: with that reason."""

    def made(**more: Any) -> Any:
        return trainer(tmp_path / "o", cls=Lazily, resume=str(tmp_path / "v"), **more)

    with pytest.raises(Boom):
        made(callbacks=[FailAt(3), Patient(tmp_path / "v")]).train()
    again = made()
    log = Recorder(again)
    again.train()
    (words,) = [one.message for one in log.of("inexact") if "Lazily.reference" in one.message]
    assert "checkpoint-2 holds Lazily.reference, and this start has nothing there yet that takes it" in words


def test_what_training_moves_is_no_such_thing(tmp_path: Path) -> None:
    """It comes back, so how a start has made it doesn't matter."""

    def hold(run: Any, drawn: torch.Tensor) -> None:
        run.add_callback(Averages(drawn))

    with pytest.raises(Boom):
        start(tmp_path, hold, 1, callbacks=[FailAt(3), Patient(tmp_path / "v")]).train()
    assert said(start(tmp_path, hold, 2)) == []


def test_what_is_carried_is_no_such_thing(tmp_path: Path) -> None:
    """A module that the script has added comes back with the checkpoint."""

    def hold(run: Any, drawn: torch.Tensor) -> None:
        _module(run, drawn)
        run.vault.add("reference", run.reference)

    with pytest.raises(Boom):
        start(tmp_path, hold, 1, callbacks=[FailAt(3), Patient(tmp_path / "v")]).train()
    assert said(start(tmp_path, hold, 2)) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_reference_of_trl_is_compared(tmp_path: Path) -> None:
    """A script that takes its newest checkpoint for the model gives a trained reference."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    rows = [{"prompt": f"w{i} ", "chosen": f"w{i + 1}", "rejected": f"w{i + 2}"} for i in range(10)]

    def made(seed: int, **more: Any) -> Any:
        args = trl.DPOConfig(
            output_dir=str(tmp_path / "o"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            max_steps=6,
            save_steps=2,
            per_device_train_batch_size=2,
        )
        return resumable(trl.DPOTrainer)(
            model=tiny_llama(64, 16, pad_token_id=62, eos_token_id=63),
            ref_model=tiny_llama(64, 16, seed=seed, pad_token_id=62, eos_token_id=63),
            args=args,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer(),
            resume=str(tmp_path / "v"),
            **more,
        )

    with pytest.raises(Boom):
        made(0, callbacks=[FailAt(3), Patient(tmp_path / "v")]).train()
    words = said(made(1))
    assert len(words) == 1
    assert ".ref_model" in words[0]


@pytest.mark.parametrize("shape", [(50_000, 20), (2, 500_000), (3, 4, 100_000)])
def test_of_a_large_array_only_some_places_are_copied(shape: tuple[int, ...]) -> None:
    """Each save looks at it while training waits; what is seen of it is what is seen of a tensor of that content."""
    content = numpy.random.default_rng(0).random(shape)
    found = []
    for held in (content, torch.from_numpy(content)):
        places = OwnPlaces(None, [Holds(held)], Trained(torch.nn.Linear(1, 1)), ())
        tracemalloc.start()
        found.append(digests_of_fixed(places, places.held(), {0}))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < content.nbytes / 4
    assert found[0] == found[1] != {}


def test_a_digest_of_whole_long_rows_is_no_other_content() -> None:
    """Checkpoints of earlier versions have it: nothing is said of what can't be compared with it."""
    long, short = (
        {"w": "float64 2x500000 a", "b": "float64 4 b"},
        {"w[some]": "float64 2x64 c", "b": "float64 4 b"},
    )
    assert made_otherwise({"Holds.held": long}, {"Holds.held": short}) == []
    assert made_otherwise({"Holds.held": long}, {"Holds.held": {**short, "b": "float64 4 d"}}) == [
        "Holds.held"
    ]
    assert made_otherwise({"Holds.held": short}, {"Holds.held": {**short, "w[some]": "float64 2x64 d"}}) != []
