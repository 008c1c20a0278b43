"""Parameters that the optimizer trains and the model doesn't have are said at the first save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.kit import Recorder, trainer
from vaultlayer_hf import Trainer


class Headed(Trainer):
    """A Trainer whose loss has a head of its own."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        head = torch.nn.Linear(16, 1)
        self.optimizer = torch.optim.AdamW([*self.model.parameters(), *head.parameters()], lr=0.01)
        return self.optimizer


@pytest.mark.parametrize(("cls", "said"), [(Headed, 1), (Trainer, 0)])
def test_parameters_outside_the_model_are_said(cls: Any, said: int, tmp_path: Path) -> None:
    """A head beside the model is said once, with the fix; a Trainer as it comes is not spoken of."""
    run = trainer(tmp_path / "a", cls=cls, resume=tmp_path / "vault")
    seen = Recorder(run)
    run.train()
    found = [event.message for event in seen.of("inexact") if "that the model doesn't have" in event.message]
    assert len(found) == said
    assert all("trains 2 parameter(s) (17 values)" in message for message in found)
