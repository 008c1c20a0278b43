"""Data of a loop whose place can't be followed: the loop gets all batches, is told so once, and goes on near there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm

from tests.kit.inside import listen
from tests.kit.odd import ForgetfulRandom
from vaultlayer_hf import Checkpointer, Settings

ROWS = 6


class Rows(Dataset[int]):
    """Numbers, beside a generator."""

    def __init__(self, good: int) -> None:
        self.generator = ForgetfulRandom(good)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> int:
        return index


def _run(folder: Path, good: int, workers: int, stop: int | None = None) -> tuple[list[int], list[str]]:
    """Two epochs, broken off behind ``stop`` steps; return the rows and what was said."""
    ckpt = Checkpointer(
        Settings(vault=str(folder / "vault"), resume_timeout=2.0), output_dir=folder / "output", save_every=1
    )
    said: list[str] = []
    listen(ckpt, lambda event: said.append(event.message))
    ckpt.resume()
    loader = DataLoader(Rows(good), batch_size=1, shuffle=False, num_workers=workers)
    seen: list[int] = []
    for _ in ckpt.epochs(range(2)):
        for batch in ckpt.batches(loader):
            seen.append(int(batch))
            ckpt.step()
            if len(seen) == stop:
                ckpt.close()
                return seen, said
    ckpt.finish()
    return seen, said


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("good", [0, 1, 2, 4, 9])
def test_a_loop_goes_on(tmp_path: Path, good: int, workers: int) -> None:
    """Wherever following ends, no row is lost or given twice, also behind a resume; and it is said once."""
    first, said = _run(tmp_path, good, workers, stop=ROWS + 2)
    assert len([text for text in said if "the place in the data isn't" in text]) == 1, said
    rest, said = _run(tmp_path, 1000, workers)
    assert first + rest == 2 * list(range(ROWS))
    assert any("no state" in text for text in said), said


def _endless(folder: Path, stop: int, *, draws: bool) -> tuple[list[int], list[str]]:
    """A loop over an endless iterator of passes, whose steps draw as dropout does; the rows, and what was said."""

    def cycle() -> Iterator[Any]:
        loader = DataLoader(range(ROWS), batch_size=1, shuffle=draws)
        while True:
            yield from loader

    ckpt = Checkpointer(folder / "vault", output_dir=folder / "output", save_every="none")
    said: list[str] = []
    listen(ckpt, lambda event: said.append(event.message))
    ckpt.resume()
    seen: list[int] = []
    for _, batch in ckpt.steps(cycle(), total=stop):
        seen.append(int(batch))
        if draws:
            torch.rand(())
        ckpt.step()
    ckpt.save()
    ckpt.close()
    return seen, [text for text in said if "draws random numbers on its way" in text]


def test_an_endless_iterator_that_draws_on_its_way_is_said(tmp_path: Path) -> None:
    """Within its first pass it goes on exactly; behind that the order is another one, and that is said."""
    torch.manual_seed(0)
    whole, _ = _endless(tmp_path / "whole", 3 * ROWS, draws=True)
    torch.manual_seed(0)
    first, said = _endless(tmp_path / "broken", ROWS - 2, draws=True)
    rest, said = _endless(tmp_path / "broken", 2 * ROWS + 1, draws=True)
    assert first + rest == whole[: 2 * ROWS + 1]
    assert said == []
    rest, said = _endless(tmp_path / "broken", 3 * ROWS, draws=True)
    assert rest != whole[2 * ROWS + 1 :]
    assert len(said) == 1
    assert _endless(tmp_path / "plain", 2 * ROWS, draws=False)[1] == []
    rest, said = _endless(tmp_path / "plain", 3 * ROWS, draws=False)
    assert rest == [*range(ROWS)]
    assert len(said) == 1, "the opening of each of its passes draws, whatever comes of it"


class GoesOn(DataLoader[Any]):
    """A loader that opens its iterator once, and gives a pass of it each time."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.opened = super().__iter__()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for _ in range(3):
            yield next(self.opened)


def _passes(folder: Path, kind: type, bar: bool, stop: int) -> tuple[list[int], list[str]]:
    """Passes through a loader with a generator of its own, alone or in a bar; the rows, and what was said."""
    order = torch.Generator().manual_seed(3)
    loader = kind(range(ROWS), batch_size=1, shuffle=True, generator=order)
    ckpt = Checkpointer(folder / "vault", output_dir=folder / "output", save_every="none")
    said: list[str] = []
    listen(ckpt, lambda event: said.append(event.message))
    ckpt.resume()
    seen: list[int] = []
    for _ in ckpt.epochs(range(2)):
        for batch in ckpt.batches(tqdm(loader, disable=True) if bar else loader):
            seen.append(int(batch))
            ckpt.step()
            if len(seen) == stop:
                ckpt.save()
                ckpt.close()
                return seen, said
    ckpt.finish()
    return seen, said


def test_a_bar_hides_no_generator(tmp_path: Path) -> None:
    """The order of a loader with a generator of its own goes on, also where the loop goes through a bar around it."""
    whole, _ = _passes(tmp_path / "whole", DataLoader, True, 99)
    first, _ = _passes(tmp_path / "broken", DataLoader, True, ROWS + 2)
    rest, _ = _passes(tmp_path / "broken", DataLoader, True, 99)
    assert first + rest == whole


@pytest.mark.parametrize("bar", [False, True])
def test_a_loader_that_never_begins_anew_is_said(tmp_path: Path, bar: bool) -> None:
    """A pass that goes on has as many batches as were left of it, and it is said that they may be others."""
    first, _ = _passes(tmp_path, GoesOn, bar, 2)
    rest, said = _passes(tmp_path, GoesOn, bar, 99)
    assert (len(first), len(rest)) == (2, 4)
    assert len([text for text in said if "GoesOn goes on with an iterator" in text]) == 1, said


class _NoLength(IterableDataset[int]):
    """A stream whose author has said that it has no length by an error of another kind."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(4))

    def __len__(self) -> int:
        raise NotImplementedError


def test_a_stream_that_refuses_to_tell_its_length(tmp_path: Path) -> None:
    """Whatever its ``__len__`` raises, it has none, and the loop goes on."""
    ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "out", save_every=1)
    ckpt.resume()
    seen = []
    for _ in ckpt.epochs(range(1)):
        for batch in ckpt.batches(DataLoader(_NoLength(), batch_size=1)):
            seen.append(int(batch))
            ckpt.step()
    ckpt.finish()
    assert seen == [0, 1, 2, 3]
