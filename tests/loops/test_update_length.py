"""Ranks are told how many steps they may be apart: as many as an update has."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.kit.inside import session_of
from tests.loops.broken_off import Training


def test_how_far_ranks_may_be_apart(tmp_path: Path) -> None:
    """As many steps as the longer one of the last two updates had; as many as can be, until one is over."""
    training = Training(tmp_path, every=1000)
    training.ckpt.resume()
    found = []
    for step in range(1, 15):
        training.gather(torch.tensor([step]))
        if step % 4 == 0 or step > 9:
            training.optimizer.step()
        training.ckpt.step()
        found.append(session_of(training.ckpt).ranks.apart)
    training.ckpt.close()
    assert found == [32, 32, 32, 4, 4, 4, 4, 4, 4, 4, 2, 1, 1, 1]


def test_how_far_ranks_may_be_apart_without_an_optimizer(tmp_path: Path) -> None:
    """Of a loop in which no optimizer is ever seen, a stop doesn't wait for more steps for long."""
    training = Training(tmp_path, every=1000)
    training.ckpt.resume()
    found = []
    for step in range(1, 41):
        training.gather(torch.tensor([step]))
        training.ckpt.step()
        found.append(session_of(training.ckpt).ranks.apart)
    training.ckpt.close()
    assert found == [32] * 31 + [1] * 9
