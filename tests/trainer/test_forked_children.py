"""Children that a script forks while it trains: they end as without us, and leave the training to their parent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.trainer.kit import steps_of


@pytest.mark.parametrize("mode", ["trainer", "async", "loop", "loops"])
def test_they_end_and_leave_the_training_alone(tmp_path: Path, mode: str) -> None:
    """``terminate()`` ends them, a pool's too; one that exits or fails within a training ends nothing of ours."""
    command = [sys.executable, "-m", "tests.trainer.forking", mode]
    done = subprocess.run(
        [*command, str(tmp_path / "vault"), str(tmp_path / "output")],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["exit"], found["raise"], found["left"]) == (7, 1, []), done.stderr
    if mode != "async":
        assert found["interrupted once"] is None, "Ctrl-C means the training"
        assert found["ended"] == [-signal.SIGTERM, -signal.SIGTERM, 1]
        assert found["blocked"] == 0
    assert steps_of(tmp_path / "vault") == [4, 8]
    said = [line for line in done.stderr.splitlines() if "[vaultlayer]" in line]
    assert not [line for line in said if "given up" in line or "lost" in line or "preempt" in line], said
    assert sum("run finished at step 8" in line for line in said) == 1
