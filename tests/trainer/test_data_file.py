"""The record beside a Trainer's checkpoint, as a later start reads it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.trainer.data_file import Record, newest_loss, record_of


def test_a_loss_that_is_nan_is_the_one_of_its_step(tmp_path: Path) -> None:
    """A newest loss of nan, which equals nothing, not itself either, is no sign of another checkpoint's record."""
    history = [{"step": 10, "loss": math.nan}]
    Record(None, {"world size": 1, "step": 10, "loss": newest_loss(history)}).write(tmp_path, 0)
    read = newest_loss(json.loads(json.dumps(history)))
    assert isinstance(record_of(tmp_path, Ranks(), 10, read), Record)
    assert record_of(tmp_path, Ranks(), 10, 2.5) == "its place in the data is of step 10"
