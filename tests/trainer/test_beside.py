"""Files that a script writes into output_dir beside the checkpoints: an empty disk lacks them, and that is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, trainer
from vaultlayer_hf.session.save.beside import names_beside


class Writes(TrainerCallback):
    """Writes a table on the way, and what it was started with at its begin."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (Path(args.output_dir) / "begin.json").write_text("{}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with (Path(args.output_dir) / "table.csv").open("a") as file:
            file.write(f"{state.global_step}\n")


def said(run: Any, steps: int | None = None) -> list[str]:
    """Train, and return what is said of such files."""
    log = Recorder(run)
    if steps is None:
        run.train()
    else:
        with pytest.raises(Boom):
            run.train()
    return [one.message for one in log.of("notice") if "the script had written" in one.message]


def test_files_that_an_empty_disk_lacks_are_said(tmp_path: Path) -> None:
    """Once, at the first step, by their names; on the same disk, or where the script writes them again, nothing is."""

    def start(fail: int) -> Any:
        callbacks = [Writes(), FailAt(fail), Patient(tmp_path / "v")]
        return trainer(tmp_path / "o", resume=str(tmp_path / "v"), callbacks=callbacks)

    assert said(start(3), 3) == []
    assert said(start(5), 5) == [], "on the same disk"
    shutil.rmtree(tmp_path / "o")
    (words,) = said(start(7), 7)
    assert words.startswith("table.csv: the script had written these into its output folder by checkpoint-4")
    assert "begin.json" not in words


def test_what_is_looked_at(tmp_path: Path) -> None:
    """Neither checkpoints nor what is hidden, nor the card that TRL writes; some of very many; no folder is fine."""
    assert names_beside(tmp_path / "none") == []
    for name in ("checkpoint-2", ".hidden", "best", "log.txt", "README.md"):
        (tmp_path / name).mkdir()
    assert names_beside(tmp_path) == ["best", "log.txt"]
    for number in range(400):
        (tmp_path / f"n{number}").mkdir()
    assert len(names_beside(tmp_path)) <= 64
