"""A start that asks for something else than the checkpoint was made with is told so, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, model, trainer
from vaultlayer_hf import errors
from vaultlayer_hf.state.asked import FILE, Asked, check_asked, read_asked
from vaultlayer_hf.state.data_digest import data_digest


def rows(seed: int, size: int = 20) -> list[dict[str, torch.Tensor]]:
    """A list of samples that follow from a seed: a fold."""
    tokens = torch.randint(0, 64, (size, 16), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in tokens]


def broken_off(tmp_path: Path, **more: Any) -> None:
    """Train 5 steps of a run and break it off, with commits up to step 4."""
    run = trainer(
        tmp_path / "o", resume=str(tmp_path / "v"), callbacks=[FailAt(5), Patient(tmp_path / "v")], **more
    )
    with pytest.raises(Boom):
        run.train()


def said(tmp_path: Path, **more: Any) -> list[str]:
    """Go on with it, and return what was said."""
    run = trainer(tmp_path / "o", resume=str(tmp_path / "v"), **more)
    record = Recorder(run)
    run.train()
    return [event.message for event in record.of("notice")]


@pytest.mark.parametrize(
    ("name", "then", "now", "holds"),
    [
        ("learning_rate", 1e-2, 1e-4, "the checkpoint's holds"),
        ("weight_decay", 0.0, 0.1, "the checkpoint's holds"),
        ("lr_scheduler_type", "linear", "constant", "this start's holds"),
        ("max_grad_norm", 1.0, 0.5, "this start's holds"),
        ("seed", 3, 4, "go on from the checkpoint's state"),
    ],
)
def test_another_argument_is_said(tmp_path: Path, name: str, then: Any, now: Any, holds: str) -> None:
    """Each argument that shapes a run is named with both values, and with which of the two holds."""
    broken_off(tmp_path, **{name: then})
    words = [text for text in said(tmp_path, **{name: now}) if text.startswith(f"{name}: ")]
    assert len(words) == 1
    assert str(then) in words[0]
    assert str(now) in words[0]
    assert holds in words[0]


def test_the_checkpoints_learning_rate_holds(tmp_path: Path) -> None:
    """What is said of the learning rate is what happens."""
    broken_off(tmp_path, lr_scheduler_type="constant")
    run = trainer(
        tmp_path / "o", resume=str(tmp_path / "v"), lr_scheduler_type="constant", learning_rate=1e-4
    )
    run.train()
    assert run.optimizer.param_groups[0]["lr"] == 1e-2


def test_the_same_start_is_told_nothing(tmp_path: Path) -> None:
    """Where nothing differs nothing is said."""
    broken_off(tmp_path, train_dataset=rows(0))
    assert not [
        text for text in said(tmp_path, train_dataset=rows(0)) if "holds" in text or "data aren't" in text
    ]


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    """An optimizer that can't use the state is refused before the first step, not by a KeyError in it."""
    broken_off(tmp_path)
    with pytest.raises(errors.OtherRunError, match="AdamW, and this run trains with SGD"):
        trainer(tmp_path / "o", resume=str(tmp_path / "v"), optim="sgd").train()


def test_another_optimizer_than_a_stock_checkpoints_is_refused(tmp_path: Path) -> None:
    """A checkpoint that doesn't say what it was made with shows it by the groups of its optimizer."""
    trainer(tmp_path / "stock", max_steps=2).train()
    (tmp_path / "stock" / "checkpoint-2").rename(tmp_path / "elsewhere")
    other = trainer(tmp_path / "o", resume=str(tmp_path / "v"), optim="sgd")
    with pytest.raises(errors.OtherRunError, match=r"an optimizer without .*momentum.* in its groups"):
        other.train(resume_from_checkpoint=str(tmp_path / "elsewhere"))


def test_a_fold_is_never_handed_the_weights_of_another(tmp_path: Path) -> None:
    """A second fold on the vault of the first, whose run is over, is refused and says what to do."""
    trainer(tmp_path / "0", resume=str(tmp_path / "v"), train_dataset=rows(0)).train()
    again = trainer(tmp_path / "1", resume=str(tmp_path / "v"), train_dataset=rows(0))
    assert again.train().global_step == 8
    other = trainer(tmp_path / "2", resume=str(tmp_path / "v"), train_dataset=rows(1))
    with pytest.raises(errors.OtherRunError, match="Each run needs a vault of its own"):
        other.train()


def test_other_data_on_a_run_that_goes_on_are_said(tmp_path: Path) -> None:
    """A fixed or grown file is used from here on, and it is said."""
    broken_off(tmp_path, train_dataset=rows(0))
    assert any("training data aren't those" in text for text in said(tmp_path, train_dataset=rows(1)))


class Own(Dataset):  # type: ignore[type-arg]
    """A data set of a user's own: what reading it does nobody knows."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        raise AssertionError("it was read")


def huggingface(seed: int) -> Any:
    """The same samples in a datasets.Dataset."""
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"input_ids": [row["input_ids"].tolist() for row in rows(seed)]})


@pytest.mark.parametrize(
    "make",
    [
        rows,
        lambda seed: Subset(rows(0, 40), range(seed, seed + 20)),
        lambda seed: TensorDataset(torch.arange(20) + seed),
        huggingface,
    ],
    ids=["list", "subset", "tensors", "datasets"],
)
def test_data_are_told_apart_by_their_samples(make: Callable[[int], Any]) -> None:
    """The same samples have the same digest in another process, others another one."""
    assert data_digest(make(0)) == data_digest(make(0)) != ""
    assert data_digest(make(0)) != data_digest(make(1))


@pytest.mark.parametrize("dataset", [None, Own(), [], [object()], 3])
def test_what_cannot_be_read_is_left_alone(dataset: Any) -> None:
    """Nothing is said of data whose reading might do something, or that have no content."""
    assert data_digest(dataset) == ""


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "other": 2}', b"\xff"]
)
def test_a_file_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    """A checkpoint that doesn't say what it was made with is gone on from."""
    (tmp_path / FILE).write_bytes(content)
    assert read_asked(tmp_path) is None


def test_what_only_one_side_knows_is_no_difference() -> None:
    """An argument that another version of transformers doesn't have is passed over."""
    assert check_asked(Asked({"seed": 1}), Asked({"max_grad_norm": 1.0}, "AdamW", "x"), {}, over=True) == []


def test_no_secret_is_kept(tmp_path: Path) -> None:
    """Only arguments that shape a run are written, by name: no token, path or address."""
    made = trainer(
        tmp_path / "o", resume=str(tmp_path / "v"), max_steps=2, model=model(), hub_token="hf_secret"
    )
    made.train()
    assert "hf_secret" not in (tmp_path / "o" / "checkpoint-2" / FILE).read_text()
