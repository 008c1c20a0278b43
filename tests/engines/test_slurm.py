"""`vl run --on slurm` on a real Slurm of two nodes, with a vault on a real S3 server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import slurm
from tests.engines.jobs import hand_in, weights
from tests.run.programs import plain

WHY_NOT = slurm.why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.SlurmCluster]:
    """Two nodes."""
    made = slurm.SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        print(made.logs())
        made.close()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the script's run that nothing disturbs, without any of this."""
    return plain(tmp_path_factory.mktemp("plain")).weights


def test_a_lost_node(cluster, s3_uri: str, s3_env: dict[str, str], tmp_path: Path, unbroken: str) -> None:
    """A node dies with all that runs on it: Slurm starts the job on the other, which goes on to the same weights."""
    job = hand_in(tmp_path / "run", "slurm", s3_uri, engine_env=cluster.env, PACE="0.7")
    job.until(lambda: job.committed >= 4, "committed")
    node = cluster.job(job.id)["BatchHost"]
    cluster.lose(node)
    shutil.rmtree(job.folder / "out")  # its disk is gone, too
    before = job.committed
    job.until(lambda: cluster.job(job.id)["Restarts"] == "1", "requeued")
    assert "waiting" in job.vl("status").out or "running" in job.vl("status").out
    waited = job.until(lambda: job.committed > before, "going on")
    print(f"{waited:.0f} s")
    job.until(lambda: job.finished, "finished")
    job.until(lambda: "WEIGHTS" in job.log(), "done")
    assert weights(job.log()) == unbroken
    assert cluster.job(job.id)["BatchHost"] != node
    cluster.start_node(node)
