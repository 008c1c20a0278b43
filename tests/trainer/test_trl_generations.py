"""Generations of a checkpoint that was written with another micro-batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from vaultlayer_hf.trainer.trl_generations import fit_generations


def _state(sizes: list[int], step: int, **more: Any) -> dict[str, Any]:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    pieces = [
        {
            "ids": torch.arange(start, start + size),
            "text": [str(start)] * size,
            "all": torch.tensor(8),
            "no": None,
        }
        for start, size in zip(starts, sizes, strict=True)
    ]
    return {"_step": step, "_buffered_inputs": [{**piece, **more} for piece in pieces]}


def _args(pieces: int, rows: int) -> SimpleNamespace:
    return SimpleNamespace(steps_per_generation=pieces, per_device_train_batch_size=rows)


def test_the_same_rows_are_cut_anew() -> None:
    """Two micro-batches of 4 become four of 2 and the other way round: all rows, in order; counts of all stay."""
    for sizes, step, args, after in (([4, 4], 3, _args(4, 2), 6), ([2] * 4, 6, _args(2, 4), 3)):
        found = fit_generations(_state(sizes, step), args)
        pieces = found["_buffered_inputs"]
        assert found["_step"] == after
        assert [len(piece["ids"]) for piece in pieces] == [args.per_device_train_batch_size] * len(pieces)
        assert torch.cat([piece["ids"] for piece in pieces]).tolist() == list(range(8))
        assert all(len(piece["text"]) == len(piece["ids"]) for piece in pieces)
        assert all((piece["all"].item(), piece["no"]) == (8, None) for piece in pieces)


def test_what_has_not_changed_or_is_another_generation_stays() -> None:
    """The same micro-batch, a Trainer that generates nothing, and other sizes of the script's own: nothing is cut."""
    assert fit_generations(_state([4, 4], 3), _args(2, 4)) == {}
    assert fit_generations({"_step": 0, "_buffered_inputs": None}, _args(4, 2)) == {}
    assert fit_generations({"_total_train_tokens": 7}, SimpleNamespace()) == {}
    assert fit_generations(_state([4, 4], 3), _args(4, 4)) == {}


def test_what_cannot_be_cut_is_generated_once_more() -> None:
    """Patches of images are more than rows, so nobody knows where to cut them; the count of steps goes along."""
    found = fit_generations(_state([4, 4], 4, pixel_values=torch.zeros(9, 2)), _args(4, 2))
    assert found == {"_step": 8, "_buffered_inputs": None}
