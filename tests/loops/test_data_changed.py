"""A loop's place in its data where something has changed, and loaders that the script uses on its own, too."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.kit.inside import data_of, listen
from vaultlayer_hf import Checkpointer, ResumeError, Settings

ROWS, BATCH = 12, 2


class Noisy(Dataset[torch.Tensor]):
    """Numbers, each with a random part: whole ones are told apart by rounding down."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        return index + torch.rand((), dtype=torch.float64)


def _loader(workers: int = 2, persistent: bool = True) -> Any:
    torch.manual_seed(1)
    return DataLoader(
        Noisy(), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=persistent
    )


def _given(folder: Path) -> tuple[Checkpointer, list[str]]:
    ckpt = Checkpointer(
        Settings(vault=str(folder / "vault"), resume_timeout=2.0), output_dir=folder / "output", save_every=1
    )
    said: list[str] = []
    listen(ckpt, lambda event: said.append(event.message) if event.kind == "inexact" else None)
    ckpt.resume()
    return ckpt, said


def _passes(
    ckpt: Checkpointer, loader: Any, stop: int | None = None, limit: int | None = None
) -> list[list[float]]:
    """Two passes, each left behind ``limit`` batches; broken off behind ``stop`` steps."""
    seen: list[list[float]] = []
    for _ in ckpt.epochs(range(2)):
        for number, batch in enumerate(ckpt.batches(loader), ckpt.batches_done):
            if number == limit:
                break
            seen.append(batch.tolist())
            ckpt.step()
            if len(seen) == stop:
                ckpt.close()
                return seen
    ckpt.finish()
    return seen


def test_another_number_of_workers(tmp_path: Path) -> None:
    """What they draw is other than it would have been, which is said; no sample is given twice or left out."""
    first = _passes(_given(tmp_path)[0], _loader(), stop=4)
    ckpt, said = _given(tmp_path)
    rest = _passes(ckpt, _loader(workers=1))[:2]
    assert len(said) == 1
    assert "worker processes: 2 then, 1 now" in said[0]
    assert sorted(int(value) for batch in first + rest for value in batch) == list(range(ROWS))


def _epochs(tmp_path: Path, size: int, until: int) -> list[str]:
    """Go through epochs, a save at each end, with batches of a size; return what is said."""
    torch.manual_seed(1)
    loader: Any = DataLoader(Noisy(), batch_size=size, shuffle=True)
    ckpt = Checkpointer(tmp_path / "v", output_dir=tmp_path / "o", save_every="none")
    said: list[str] = []
    listen(ckpt, lambda event: said.append(f"{event.kind}: {event.message}"))
    ckpt.resume()
    for _ in ckpt.epochs(range(until)):
        for _ in ckpt.batches(loader):
            ckpt.step()
        ckpt.save()
    ckpt.close()
    return [text for text in said if "batch size" in text]


def test_another_batch_size_at_the_end_of_an_epoch_is_said(tmp_path: Path) -> None:
    """As in the middle of one; that no samples are left out needs no word there. Once, and not of the same size."""
    assert _epochs(tmp_path, 2, 1) == []
    assert _epochs(tmp_path, 2, 2) == []
    said = _epochs(tmp_path, 4, 4)
    assert said == ["notice: batch size: 2 then, 4 now: this start's holds from here on"]


@pytest.mark.parametrize("stop", [3, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 5))])
def test_persistent_workers_of_a_pass_that_was_left(tmp_path: Path, stop: int) -> None:
    """Batches that were fetched for a pass that the script has left are behind the next one's random numbers."""
    whole = _passes(_given(tmp_path / "whole")[0], _loader(), limit=3)
    assert len(whole) == 6
    first = _passes(_given(tmp_path)[0], _loader(), stop=stop, limit=3)
    ckpt, said = _given(tmp_path)
    newest = ckpt.resume()
    rest = _passes(ckpt, _loader(), limit=3)
    assert first == whole[:stop]
    assert rest == whole[newest:]
    assert said == []


def test_a_loader_that_the_script_uses_as_well(tmp_path: Path) -> None:
    """Ahead of the loop, between its steps and behind it, the script's own passes are plain batches."""
    loader = _loader()
    before = next(iter(loader))
    ckpt, _ = _given(tmp_path)
    _passes(ckpt, loader)
    assert [type(batch) for batch in loader] == [type(before)] * (ROWS // BATCH)
    loader = _loader()
    ckpt, _ = _given(tmp_path / "other")
    _passes(ckpt, loader)
    assert [type(batch) for batch in loader] == [type(before)] * (ROWS // BATCH)


@pytest.mark.parametrize("own", [False, True])
def test_workers_of_a_loader_that_is_dropped_are_told_to_end(tmp_path: Path, monkeypatch, own: bool) -> None:
    """They end by themselves when the garbage collector finds the loader, also where the script had started them."""
    loader = _loader()
    if own:
        next(iter(loader))
    ckpt, _ = _given(tmp_path)
    _passes(ckpt, loader)
    workers = list(loader._iterator._workers)
    # A worker that isn't told looks every 5 s whether it is to end: it is killed by then.
    killed: list[Any] = []
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 1.0)
    for worker in workers:
        monkeypatch.setattr(worker, "terminate", lambda: killed.append(1))
    del loader, ckpt
    gc.collect()
    for worker in workers:
        worker.join(30)
    assert killed == []


def test_workers_that_the_script_has_started(tmp_path: Path) -> None:
    """What persistent workers draw that run already can't be known, which is said; the order of the samples holds."""

    def started() -> Any:
        loader = _loader()
        next(iter(loader))
        return loader

    first = _passes(_given(tmp_path)[0], started(), stop=4)
    ckpt, said = _given(tmp_path)
    rest = _passes(ckpt, started())[:2]
    assert len(said) == 1
    assert "the script had started the loader's worker processes before" in said[0]
    assert sorted(int(value) for batch in first + rest for value in batch) == list(range(ROWS))


def test_a_place_of_another_format(tmp_path: Path) -> None:
    """What another version has written is an error that says what to do, before anything is trained."""
    ckpt, _ = _given(tmp_path)
    place = data_of(ckpt)
    state = place.state_dict()
    ckpt.close()
    with pytest.raises(ResumeError, match="go on with the version that wrote it"):
        place.load_state_dict({**state, "format": 99}, None, 1)


def test_another_order(tmp_path: Path) -> None:
    """An order that the script draws without a seed at each start isn't the one that was left: that is a warning."""
    orders = list(range(ROWS)), list(reversed(range(ROWS)))
    ckpt, _ = _given(tmp_path)
    _passes(ckpt, DataLoader(Noisy(), batch_size=BATCH, sampler=orders[0]), stop=2)
    ckpt, said = _given(tmp_path)
    _passes(ckpt, DataLoader(Noisy(), batch_size=BATCH, sampler=orders[1]))
    assert any("the data's order isn't" in message for message in said)
