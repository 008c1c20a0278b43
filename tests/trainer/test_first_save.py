"""What a process's first save would take longer for is done by then, beside the training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.kit import Do, trainer

_TABLE = "_checkpoint_conversion_mapping_cache"


def test_the_table_of_names_is_there_before_the_first_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' table of its architectures' names is made behind the first step, and not on this thread."""
    names: Any = pytest.importorskip("transformers.conversion_mapping")
    if not hasattr(names, _TABLE):
        pytest.skip("this transformers has no such table")
    monkeypatch.setattr(names, _TABLE, None)
    waited: list[float] = []

    def wait(state: Any) -> None:
        begin = time.monotonic()
        while state.global_step > 1 and getattr(names, _TABLE) is None and time.monotonic() < begin + 60:
            time.sleep(0.01)
        waited.append(time.monotonic() - begin)

    made = trainer(
        tmp_path / "o",
        resume=str(tmp_path / "v"),
        save_strategy="no",
        max_steps=3,
        callbacks=[Do(on_step_begin=wait)],
    )
    made.train()
    assert getattr(names, _TABLE) is not None
    assert max(waited) < 60
