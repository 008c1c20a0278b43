"""How large the state is that a save would copy."""

from __future__ import annotations

import torch

from vaultlayer_hf.state.capture.stepped import is_small, size_of


class Part(torch.Tensor):
    """A tensor whose bytes are elsewhere, as a shard's or a quantized one's are."""


def test_a_state_that_is_not_plain_is_never_small() -> None:
    """Plain tensors are small below the bound, shared storages counted once; shards may be of something large."""
    one = torch.zeros(8)
    assert size_of([one, one.view(2, 4)]) == 32
    assert is_small([one, torch.nn.Parameter(one)], 33)
    assert not is_small([one, torch.zeros(1)], 33)
    assert not is_small([one, torch.zeros(1).as_subclass(Part)], 1000)
