"""Training data are told apart by some samples, or by what a data set of one's own holds: it is never read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from vaultlayer_hf.state.data_digest import Differ, compare_data, data_digest


def rows(seed: int, size: int = 20) -> list[dict[str, torch.Tensor]]:
    """A list of samples that follow from a seed: a fold."""
    tokens = torch.randint(0, 64, (size, 16), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in tokens]


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


class Encoded(Dataset):  # type: ignore[type-arg]
    """A data set as many scripts write it: encodings, labels, and beside them a cache, or what is drawn anew."""

    def __init__(self, seed: int, size: int = 20) -> None:
        self.encodings = {"input_ids": torch.stack([row["input_ids"] for row in rows(seed, size)])}
        self.files = [f"/mnt/{seed}/{number}.png" for number in range(size)]
        self.cache: list[Any] = [None] * size
        self.negatives = list(range(size))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("it was read")


class Framed(Own):
    """A data set that holds a table of pandas."""

    def __init__(self, seed: int) -> None:
        pandas = pytest.importorskip("pandas")
        self.frame = pandas.DataFrame({"text": [f"w{seed}", "b", "c", "d"], "label": [0, 1, 0, 1]})


def test_a_data_set_of_ones_own_is_told_apart_by_what_it_holds() -> None:
    """What it holds is looked at, and it isn't asked for a sample: a cache that fills says nothing, a draw not all."""
    assert compare_data(data_digest(Encoded(0)), data_digest(Encoded(0))) is Differ.NOT
    filled, drawn = Encoded(0), Encoded(0)
    filled.cache = list(range(20))
    drawn.negatives = list(range(20, 40))
    assert compare_data(data_digest(Encoded(0)), data_digest(filled)) is Differ.NOT
    assert compare_data(data_digest(Encoded(0)), data_digest(drawn)) is Differ.PARTLY
    moved = Encoded(0)
    moved.files = [f"/home/elsewhere/{number}.png" for number in range(20)]
    assert compare_data(data_digest(Encoded(0)), data_digest(moved)) is Differ.NOT


def only_encodings(seed: int, size: int = 20) -> Any:
    """The same with nothing but its encodings."""
    made = Encoded(seed, size)
    del made.cache, made.negatives
    made.files = [""] * size
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: Subset(only_encodings(0, 40), range(seed * 20, seed * 20 + 20)),
        lambda seed: ConcatDataset([only_encodings(seed), only_encodings(seed + 7)]),
        lambda seed: Framed(seed),
    ],
    ids=["subset", "concat", "table"],
)
def test_data_sets_within_others_are_told_apart(make: Callable[[int], Any]) -> None:
    """Folds by Subset, several in one, tables: another fold has other content, the same one has the same."""
    assert compare_data(data_digest(make(0)), data_digest(make(0))) is Differ.NOT
    assert compare_data(data_digest(make(0)), data_digest(make(1))) is not Differ.NOT


@pytest.mark.parametrize("dataset", [None, Own(), [], [object()], 3])
def test_what_cannot_be_read_is_left_alone(dataset: Any) -> None:
    """Nothing is said of data whose reading might do something, or that have no content."""
    assert data_digest(dataset) == ""
