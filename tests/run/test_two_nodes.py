"""A training over two nodes, each under a `vl run` of its own, which sees the deaths of its own rank only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.run.programs import SCRIPT, finish, start
from tests.servers import free_ports


@pytest.mark.slow
def test_memory_that_runs_out_on_one_node(tmp_path: Path) -> None:
    """Memory runs out on one node in its first step: both go on with half the micro-batch."""
    (port,) = free_ports(1)
    begun = []
    for node, largest in enumerate(("2", "4")):
        folder = tmp_path / f"node-{node}"
        folder.mkdir()
        (folder / "train.py").write_text(SCRIPT)
        launcher = [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes=2",
                "--nproc-per-node=1",
                "--rdzv-id=x",
            ),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1"),
        ]
        process = start(
            folder, *launcher, "train.py", options=("--vault", f"file://{tmp_path}/vault"), LARGEST=largest
        )
        begun.append((process, folder))
    first, second = (finish(process, folder, 240) for process, folder in begun)
    assert (first.code, second.code) == (0, 0), first.err[-3000:] + second.err[-3000:]
    assert (first.causes[0], second.causes[0]) == ("memory", "killed")
    for ran in (first, second):
        # Which node has which rank is torchrun's to say, at each start anew.
        trained = [
            note
            for number in range(2, len(ran.causes) + 1)
            for rank in (0, 1)
            for note in ran.notes(number, "train", rank)
        ]
        assert (trained[-1]["micro_batch"], trained[-1]["accumulation"]) == (2, 2)
        assert {note["micro_batch"] for note in trained} == {2}, "never beside another size"
