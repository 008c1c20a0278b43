"""What the tests of saves beside the training share: settings that ask for them, and what such a save has come to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.trainer.kit import Recorder
from tests.trainer.test_unchanged import timeless
from vaultlayer_hf import Settings

OURS = "vaultlayer_"
"""What the names of our files and folders in a checkpoint begin with."""
MARKS = [
    pytest.mark.usefixtures("copies_of_small_states", "no_time_in_the_arguments"),
    pytest.mark.filterwarnings(
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
        "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
        "ignore:mtime may not be reliable:UserWarning",
    ),
]
"""Of the files whose trainings are small, and compared with stock's bytes."""


def contents(output_dir: Path, but: Collection[str] = ()) -> dict[str, str]:
    """A digest of each of stock's files of each checkpoint; of a trainer state without what a clock has measured.

    ``but``: names of files that are left out.
    """
    found = {}
    for path in sorted(output_dir.glob("checkpoint-*/**/*")):
        ours = path.name.startswith(OURS) or path.parent.name.startswith(OURS)
        if not path.is_file() or ours or path.name in but:
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
