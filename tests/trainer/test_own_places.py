"""How often the places are looked at where a script's own objects keep what training changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from vaultlayer_hf.trainer.own_places import OwnPlaces
from vaultlayer_hf.trainer.own_state import OwnState
from vaultlayer_hf.trainer.trained import Trained


def test_a_save_goes_through_a_model_as_often_however_large_it_is() -> None:
    """What is kept of its modules is looked for in a few passes, not in one for each module."""

    class Counted(torch.nn.Sequential):
        def named_modules(self, *args: Any, **kwargs: Any) -> Any:
            passes.append(self)
            return super().named_modules(*args, **kwargs)

    counts, passes = [], list[Any]()
    for size in (2, 20):
        net = Counted(*(torch.nn.Linear(2, 2) for _ in range(size)))
        optimizer = torch.optim.SGD(net.parameters())
        own = OwnState(None, [], Trained(net, optimizer), torch.utils.data.DataLoader([0]), [])
        passes.clear()
        own.state_dict()
        counts.append(len(passes))
    assert counts[0] == counts[1] > 0


def test_each_look_at_the_places_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A begin, a save and a load each go through what is the script's own once: all of them hold up a training."""
    passes = []
    every = OwnPlaces.all
    monkeypatch.setattr(OwnPlaces, "all", lambda self: passes.append(self) or every(self))
    net = torch.nn.Linear(2, 2)
    trained = Trained(net, torch.optim.SGD(net.parameters()))
    own = OwnState(None, [TrainerCallback()], trained, torch.utils.data.DataLoader([0]), [])
    begin = len(passes)
    kept = own.state_dict()
    save = len(passes)
    own.load_state_dict(kept)
    assert (begin, save - begin, len(passes) - save) == (1, 1, 1)
