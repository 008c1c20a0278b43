"""What a loop goes on with is what it saved, also where an object of its own loads only a part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vaultlayer_hf import Checkpointer, errors


class Lenient(torch.nn.Linear):
    """A model whose own load_state_dict leaves its bias out, without a word."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        super().load_state_dict({"weight": state_dict["weight"]}, strict=False)
        return torch.nn.modules.module._IncompatibleKeys([], [])


class Forgetful(torch.optim.AdamW):
    """An optimizer that comes back without the second moments that it has saved."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["exp_avg_sq"].zero_()


def play(tmp_path: Path, model_class: Any, optimizer_class: Any, steps: int) -> int:
    """Go on with a loop for so many steps, and return the step that it went on from."""
    torch.manual_seed(steps)
    model = model_class(4, 4)
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    vault, output = tmp_path / "v", tmp_path / "o"
    with Checkpointer(
        vault, model=model, optimizer=optimizer, output_dir=output, save_every="2 steps"
    ) as ckpt:
        start = ckpt.resume()
        for _ in range(start, steps):
            model(torch.ones(4)).pow(2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            ckpt.step()
    return start


@pytest.mark.parametrize(
    ("model", "optimizer", "words"),
    [
        (Lenient, torch.optim.AdamW, "1 of 2 tensors of the model aren't what was saved, such as bias"),
        (torch.nn.Linear, Forgetful, "2 of 6 tensors of the optimizer's state aren't what was saved"),
    ],
)
def test_what_was_loaded_in_part_is_refused(tmp_path: Path, model: Any, optimizer: Any, words: str) -> None:
    """The error says how much isn't what was saved, before a step is trained."""
    play(tmp_path, model, optimizer, 4)
    with pytest.raises(errors.NotLoadedError, match=words):
        play(tmp_path, model, optimizer, 8)


def test_a_faithful_loop_goes_on(tmp_path: Path) -> None:
    """Objects that load what they saved aren't in the way of anything."""
    play(tmp_path, torch.nn.Linear, torch.optim.AdamW, 4)
    assert play(tmp_path, torch.nn.Linear, torch.optim.AdamW, 8) == 4
