"""python -m tests.exact.skip: how long a resume takes to get past a million samples, beyond a fresh start.

The loader is one that accelerate has prepared, as the Trainer's is. It is read up to the position, which is written
as with a checkpoint; then a loader that has seen nothing is to go on from there. Seconds up to its first batch:
fresh (nothing to skip), stock (accelerate's skip_first_batches, which the Trainer calls), ours (reading the file, too).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches

from vaultlayer_hf.state.data.follower import Follower
from vaultlayer_hf.state.data.guard import Guard
from vaultlayer_hf.trainer.data_file import Record, read_record

BATCH = 8


class Numbers(torch.utils.data.Dataset):
    """Each sample is its number, fetched in one go."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return list(torch.tensor(indices))


def _shuffled(samples: int, workers: int) -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(
        Numbers(samples), batch_size=BATCH, shuffle=True, num_workers=workers, collate_fn=torch.stack
    )


def _numbers(shards: list[int]) -> Any:
    for first in shards:
        for number in range(first, first + 10_000):
            yield {"number": number}


def _stream(samples: int, workers: int) -> torch.utils.data.DataLoader[Any]:
    from datasets import IterableDataset

    shards = list(range(0, samples, 10_000))
    data = IterableDataset.from_generator(_numbers, gen_kwargs={"shards": shards})
    return torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=workers)


KINDS = {
    "shuffled, 0 workers": (_shuffled, 0),
    "shuffled, 2 workers": (_shuffled, 2),
    "datasets' iterable, 0 workers": (_stream, 0),
}


def measure(kind: str, samples: int, folder: Path) -> tuple[float, float, float]:
    """Return the seconds to the first batch: fresh, stock, ours. Asserts that ours and stock give the same one."""
    make, workers = KINDS[kind]
    count = samples // BATCH
    accelerator = Accelerator(cpu=True)

    def loader() -> Any:
        torch.manual_seed(3)
        made = accelerator.prepare(make(samples + 20_000, workers))
        made.set_epoch(0)
        return made

    def first_of(batches: Any) -> tuple[float, Any]:
        begin = time.perf_counter()
        batch = next(iter(batches()))
        return time.perf_counter() - begin, batch

    plain = loader()
    fresh, _ = first_of(lambda: plain)
    stocks = loader()
    stock, expected = first_of(lambda: skip_first_batches(stocks, count))

    seen = loader()
    follower = Follower(seen, 0, 1, Guard(_never))
    follower.begin_epoch()
    batches = iter(seen)
    for _ in range(count):
        next(batches)
        follower.batch_done()
    Record(follower.position(), {}).write(folder, 0)

    ours = loader()
    follower = Follower(ours, 0, 1, Guard(_never))

    def reopened() -> Any:
        record = read_record(folder, 0)
        assert not isinstance(record, str)
        follower.resume(record.position)
        follower.begin_epoch()
        return follower.skip(count)

    seconds, batch = first_of(reopened)
    assert _same(batch, expected), "ours goes on at another place"
    return fresh, stock, seconds


def _never(why: str) -> None:
    raise AssertionError(f"the following has ended: {why}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(torch.equal(one[name], other[name]) for name in one)
    return torch.equal(one, other)


def main() -> int:
    """Measure and print. Exit code 1 where ours takes a second or more beyond a fresh start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    samples = parser.parse_args().samples
    slow = False
    print(f"seconds to the first batch behind {samples:,} samples in batches of {BATCH}")
    print(f"{'':31}{'fresh':>8}{'stock':>8}{'ours':>8}  ours beyond fresh")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            fresh, stock, ours = measure(kind, samples, Path(folder))
        slow = slow or ours - fresh >= 1
        print(f"{kind:31}{fresh:8.2f}{stock:8.2f}{ours:8.2f}{ours - fresh:8.2f}", flush=True)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
