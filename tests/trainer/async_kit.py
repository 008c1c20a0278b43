"""What the tests of saves beside the training share: settings that ask for them, and what such a save has come to."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.kit import Recorder
from tests.trainer.test_unchanged import timeless
from vaultlayer_hf import Settings
from vaultlayer_hf.state.capture import copying

OURS = {"vaultlayer_data_0.pt", "vaultlayer_digests_0.json", "vaultlayer_asked.json"}
ADDED = "vaultlayer_added"
MARKS = [
    pytest.mark.usefixtures("copies_of_small_states", "no_time_in_the_arguments"),
    pytest.mark.filterwarnings(
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
        "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
        "ignore:mtime may not be reliable:UserWarning",
    ),
]
"""Of the files whose trainings are small, and compared with stock's bytes."""


def contents(output_dir: Path) -> dict[str, str]:
    """A digest of each file of each checkpoint, but for ours; of a trainer state without what a clock has measured."""
    found = {}
    for path in sorted(output_dir.glob("checkpoint-*/**/*")):
        if not path.is_file() or path.name in OURS or path.parent.name == ADDED:
            continue
        data = path.read_bytes()
        if path.name == "trainer_state.json":
            state = json.loads(data)
            state["log_history"] = timeless(state["log_history"])
            data = json.dumps(state).encode()
        found[str(path.relative_to(output_dir))] = hashlib.sha256(data).hexdigest()
    return found


def asked(vault: Path) -> Settings:
    """Settings that ask for saves beside the training."""
    return Settings(vault=str(vault), async_save="auto", keep_last=None)


def lost_saves(heard: Recorder) -> list[str]:
    """What was said of saves that came to nothing, but for those that a newer one overtook before its upload."""
    return [event.message for event in heard.of("abandon") if "is newer" not in event.message]


def local(output_dir: Path) -> list[int]:
    """Steps of the checkpoint folders."""
    return sorted(int(path.name.partition("-")[2]) for path in output_dir.glob("checkpoint-*"))


def slow_copy(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.3) -> None:
    """Have each copy beside the training begin late, behind the next forward and backward pass."""
    run = copying.StateCopy.run

    def late(self: copying.StateCopy, pairs: Any) -> None:
        time.sleep(seconds)
        run(self, pairs)

    monkeypatch.setattr(copying.StateCopy, "run", late)
