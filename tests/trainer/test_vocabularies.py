"""Ids that a start makes in another order: the model reads other words, and no number in the data need show it."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset

from tests.kit.inside import listen
from tests.trainer.kit import Boom, FailAt, Patient, Recorder, trainer
from tests.trainer.programs import tokenizer
from vaultlayer_hf import Checkpointer
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.state.asked import Asked, check_asked
from vaultlayer_hf.state.data_digest import Differ, compare_data, with_vocabularies
from vaultlayer_hf.state.vocabularies import vocabulary_digests

ids: dict[str, int] = {}


def vocabulary(order: int) -> dict[str, int]:
    """Twelve words, in an order that a set might have at one start."""
    words = [f"x{number}" for number in range(12)]
    random.Random(order).shuffle(words)
    return {word: 40 + number for number, word in enumerate(words)}


class Reads(Dataset):  # type: ignore[type-arg]
    """Makes its rows of a global table, when it is asked for them."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = torch.tensor([ids[f"x{(index * 5 + word) % 12}"] for word in range(16)])
        return {"input_ids": row, "labels": row}


class Has(Dataset):  # type: ignore[type-arg]
    """Has a table, under an object of the script's own."""

    def __init__(self, table: Any) -> None:
        self.words = Words(table)

    def __len__(self) -> int:
        return 20


class Words:
    """A vocabulary of the script's own."""

    def __init__(self, table: Any) -> None:
        self.table = table


class Streams(IterableDataset):  # type: ignore[type-arg]
    """Reads the global table as it goes."""

    def __iter__(self) -> Any:
        for word in sorted(ids):
            yield {"input_ids": torch.tensor([ids[word]])}


def collates(rows: Any) -> Any:
    """A collator that reads the global table."""
    return [ids.get(row, 0) for row in rows]


def digests(make: Any, order: int) -> dict[str, str]:
    """What is noted of something that is made with a vocabulary in an order."""
    ids.clear()
    ids.update(vocabulary(order))
    dataset, others = make()
    return vocabulary_digests(dataset, **others)


def grown() -> Any:
    """A tokenizer to which words were added in an order."""
    made = tokenizer()
    made.add_tokens(list(ids))
    return made


MADE: dict[str, Any] = {
    "Reads.__getitem__.ids": lambda: (Reads(), {}),
    "Reads.__getitem__.ids of a part": lambda: (Subset(Reads(), [1, 2]), {}),
    "Has.words.table": lambda: (Has(dict(ids)), {}),
    "Has.words.table by number": lambda: (Has({number: word for word, number in ids.items()}), {}),
    "Has.words.table as a list": lambda: (Has(list(ids)), {}),
    "Streams.__iter__.ids": lambda: (Streams(), {}),
    "collates.ids": lambda: ([], {"data_collator": collates}),
    "partial": lambda: ([], {"data_collator": partial(collates, table=dict(ids))}),
    "processing_class": lambda: ([], {"processing_class": grown()}),
}


@pytest.mark.parametrize("made", list(MADE))
def test_tables_are_told_apart(made: str) -> None:
    """By where they are; made in the same order they are the same."""
    one, same, other = (digests(MADE[made], order) for order in (1, 1, 2))
    assert one == same
    (name,) = [name for name in one if one[name] != other[name]][:1]
    assert name.startswith(made.split(" ")[0]) or made == "partial"


def test_what_is_no_table_of_ids_is_left_alone() -> None:
    """Counters, paths, texts, numbers that stand for several words, the rows themselves; what isn't between the two."""
    rows = [f"row{number}" for number in range(20)]
    odd = ({"a": 1.0, "b": 2.0}, {"a": 1}, {}, {1: 2, 3: 4}, ["/a/1", "/a/2"], ["a text", "b text"])
    for held in ({"seen": 0, "left": 0}, *odd, rows):
        assert vocabulary_digests(Has(held)) == {}, held


def test_other_ids_alone_are_no_other_run() -> None:
    """They are said; the data aren't, and the weights of a run that is over aren't refused for them."""
    then, now = (Asked(data=with_vocabularies("1", {"collates.ids": one})) for one in ("2", "3"))
    assert compare_data(then.data, now.data) is Differ.NOT
    (words,) = check_asked(then, now, {}, over=True)
    assert words.startswith(
        "collates.ids: some words have other ids than those that the checkpoint was trained with"
    )
    assert check_asked(then, Asked(data="1"), {}, over=False) == [], "an older release noted none"


def test_a_trainer_says_it(tmp_path: Path) -> None:
    """Before the first step, once, by the table's name; in the same order nothing is said."""

    def said(order: int, fail: int) -> list[str]:
        ids.clear()
        ids.update(vocabulary(order))
        callbacks = [FailAt(fail), Patient(tmp_path / "v")]
        made = trainer(tmp_path / "o", resume=str(tmp_path / "v"), train_dataset=Reads(), callbacks=callbacks)
        log = Recorder(made)
        with pytest.raises(Boom):
            made.train()
        return [one.message for one in log.of("notice") if "other ids" in one.message]

    assert said(1, 3) == []
    assert said(1, 5) == []
    (words,) = said(2, 7)
    assert words.startswith("Reads.__getitem__.ids: ")


def test_a_loop_says_it(tmp_path: Path) -> None:
    """Whether its data are named at the start or with steps()."""

    def said(order: int, steps: int) -> list[str]:
        ids.clear()
        ids.update(vocabulary(order))
        loader = torch.utils.data.DataLoader(Reads(), batch_size=2)
        ckpt = Checkpointer(
            tmp_path / "v", model=torch.nn.Linear(2, 1), output_dir=tmp_path / "o", save_every="none"
        )
        found: list[Event] = []
        listen(ckpt, found.append)
        ckpt.resume()
        for _ in ckpt.steps(loader, total=steps):
            ckpt.step()
        ckpt.save()
        ckpt.close()
        return [one.message for one in found if "other ids" in one.message]

    assert said(1, 2) == said(1, 4) == []
    (words,) = said(2, 6)
    assert words.startswith("Reads.__getitem__.ids: ")
