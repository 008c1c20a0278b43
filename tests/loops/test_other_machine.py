"""A loop goes on where the same model is held in another way: compiled or not, its frozen part in another dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vaultlayer_hf import Checkpointer, WrongModelError

FORMS = {
    "plain": lambda made: made,
    "whole": lambda made: torch.compile(made, backend="eager"),
    "layer": lambda made: torch.nn.Sequential(torch.compile(made[0], backend="eager"), *made[1:]),
}
"""How a model may be compiled: not, all of it, or layer by layer; each puts other parts into its tensors' names."""


def net(*, frozen: Any = None) -> torch.nn.Sequential:
    """A model of two layers; ``frozen``: the dtype of the first one, which isn't trained then."""
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    if frozen is not None:
        made[0].to(frozen).requires_grad_(False)
    return made


def train(folder: Path, model: Any, steps: int, average: Any = None) -> int:
    """Train up to a step, and return the one that it has begun behind."""
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    ckpt = Checkpointer(
        folder / "vault", model=model, optimizer=optimizer, output_dir=folder / "out", save_every="2 steps"
    )
    if average is not None:
        ckpt.add("average", average)
    start = ckpt.resume()
    for _ in range(start, steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(4, 4)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ckpt.step(loss=loss)
    ckpt.finish()
    return start


@pytest.mark.parametrize("then", FORMS)
@pytest.mark.parametrize("now", FORMS)
def test_compiled_or_not(then: str, now: str, tmp_path: Path) -> None:
    """Whatever was compiled at the save, and is at the start, the weights are those of an unbroken run; so is an
    added model."""
    unbroken = net()
    train(tmp_path / "unbroken", unbroken, 4)
    train(tmp_path, FORMS[then](net()), 2, FORMS[then](net()))
    resumed = net()
    assert train(tmp_path, FORMS[now](resumed), 4, FORMS[now](net())) == 2
    assert all(torch.equal(*pair) for pair in zip(unbroken.parameters(), resumed.parameters(), strict=True))


def test_a_frozen_part_may_have_another_dtype(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It goes on, with one line that says what is other than it was; the same of a trained part is refused."""
    train(tmp_path, net(frozen=torch.float32), 2)
    caplog.clear()
    assert train(tmp_path, net(frozen=torch.bfloat16), 4) == 2
    said = [text for text in caplog.messages if "aren't trained" in text]
    assert len(said) == 1
    assert "0.weight is 4x4 float32 in the checkpoint, 4x4 bfloat16 in the model" in said[0]
    with pytest.raises(WrongModelError, match=r"0\.weight"):
        train(tmp_path, net().to(torch.float64), 6)
