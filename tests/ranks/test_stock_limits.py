"""What stock transformers of the oldest supported version can't do on CPUs, without this package in the training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers

from tests.forks import ForkServer
from tests.ranks.launch import Ranks

OLD = int(transformers.__version__.split(".")[0]) < 5


@pytest.mark.skipif(not OLD, reason="transformers 5 can, and the other tests here show it")
def test_transformers_4_cant_resume_several_ranks(forks: ForkServer, tmp_path: Path) -> None:
    """Its own error at a resume of two ranks, the reason why whole runs are left out here; gone, they can come in."""
    ranks = Ranks(forks, tmp_path, [tmp_path / "output"] * 2, max_steps=2)
    ranks.start().succeed()
    group = ranks.start(max_steps=4, resume_from=str(tmp_path / "output" / "checkpoint-2"))
    assert all(group.wait(agents=False))
    assert re.search(r"don't know how to restore data location .*tagged with cpu:\d", group.errors()), (
        group.errors()
    )
