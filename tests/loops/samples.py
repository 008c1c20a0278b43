"""The data of the loops under test: fixed random samples, with indices or as a stream, augmented or not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset, IterableDataset

WIDTH = 32
"""Numbers in a sample."""


class Samples(Dataset[torch.Tensor]):
    """Fixed random samples; with ``augment`` each is disturbed anew whenever it is fetched."""

    def __init__(self, count: int, augment: bool) -> None:
        self.rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(7))
        self.augment = augment

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not self.augment:
            return self.rows[index]
        noise = torch.randn(WIDTH) * random.random() * numpy.random.rand()
        return self.rows[index] + 0.1 * noise


class Stream(IterableDataset[torch.Tensor]):
    """The same without indices: in each pass in another order, split among workers; with ``augment`` as above."""

    def __init__(self, count: int, augment: bool) -> None:
        self.samples, self.passes = Samples(count, augment), 0

    def order(self) -> list[int]:
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(self.passes))
        info = torch.utils.data.get_worker_info()
        found: list[int] = (order if info is None else order[info.id :: info.num_workers]).tolist()
        return found

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = self.order()
        self.passes += 1
        for index in order:
            yield self.samples[index]


class Telling(Stream):
    """One that tells where it is."""

    at = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = self.order()
        while self.at < len(order):
            self.at += 1
            yield self.samples[order[self.at - 1]]
        self.passes, self.at = self.passes + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.passes, self.at = state["passes"], state["at"]


DATA: dict[str, Any] = {"samples": Samples, "stream": Stream, "telling": Telling}
