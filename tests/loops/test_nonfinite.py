"""A loop whose weights or loss become nan: it is said, and its last finite checkpoint stays in the vault."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.kit.inside import listen, session_of
from vaultlayer_hf import Checkpointer, Settings, open_vault
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.loops import folder


@pytest.mark.parametrize("by", ["weights", "loss"])
def test_the_last_finite_checkpoint_stays(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many saves behind the first nan the newest are kept, and the last one ahead of it.

    A save goes through the whole state once for that: training waits for it.
    """
    real, looks = folder.nonfinite_state, list[object]()
    monkeypatch.setattr(folder, "nonfinite_state", lambda *args: (looks.append(args), real(*args))[1])
    model = torch.nn.Linear(2, 1)
    settings = Settings(vault=str(tmp_path / "vault"), keep_last=2)
    ckpt = Checkpointer(settings, model=model, save_every="none", output_dir=tmp_path / "out")
    events: list[Event] = []
    listen(ckpt, events.append)
    for step in range(ckpt.resume(), 7):
        if step >= 3 and by == "weights":
            model.weight.data.fill_(float("nan"))
        ckpt.step(loss=float("inf") if step >= 3 and by == "loss" else 1.0)
        ckpt.save()
        uploader = session_of(ckpt).uploader
        assert uploader is not None
        assert uploader.wait(20)
    assert len(looks) == 7
    with open_vault(tmp_path / "vault") as vault:
        assert [commit.step for commit in vault.checkpoints()] == [3, 6, 7]
    ckpt.close()
    said = [event.message for event in events if "isn't finite" in event.message]
    assert len(said) == 1
    what = "weight is nan" if by == "weights" else "the loss is inf"
    assert said[0].startswith(f"checkpoint-4 isn't finite: {what}")
