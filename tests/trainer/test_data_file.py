"""The record beside a Trainer's checkpoint, as a later start reads it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.trainer.data_file import Record, newest_loss, read_record, record_of


def test_a_loss_that_is_nan_is_the_one_of_its_step(tmp_path: Path) -> None:
    """A newest loss of nan, which equals nothing, not itself either, is no sign of another checkpoint's record."""
    history = [{"step": 10, "loss": math.nan}]
    Record(None, {"world size": 1, "step": 10, "loss": newest_loss(history)}).write(tmp_path, 0)
    read = newest_loss(json.loads(json.dumps(history)))
    assert isinstance(record_of(tmp_path, Ranks(), 10, read), Record)
    assert record_of(tmp_path, Ranks(), 10, 2.5) == "its place in the data is of step 10"


@pytest.mark.parametrize("device", ["cuda:7", "cuda:0", "xpu:1", "mps"])
def test_a_tensor_of_a_device_that_is_not_there(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script's tensor that was on a GPU comes back on a machine with fewer of them, or none, and so does the rest."""
    own = {"values": {"Averages": {"mean": ("tensor", torch.arange(3.0))}}}
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: device)
        Record(None, {"step": 4, "own": own}).write(tmp_path, 0)
    record = read_record(tmp_path, 0)
    assert isinstance(record, Record), record
    kind, mean = record.likeness["own"]["values"]["Averages"]["mean"]
    assert (kind, mean.tolist(), record.likeness["step"]) == ("tensor", [0.0, 1.0, 2.0], 4)
    assert mean.device.type == ("cuda" if "cuda" in device and torch.cuda.is_available() else "cpu")
