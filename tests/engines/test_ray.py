"""`vl run --on ray` on a real Ray of two raylets, with a vault on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import ray
from tests.engines.jobs import hand_in, weights
from tests.run.programs import plain

WHY_NOT = ray.why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture
def cluster(s3_env: dict[str, str]) -> Iterator[ray.RayCluster]:
    """Two raylets whose jobs know the S3 server."""
    # A job of Ray has the variables of the node, not of who hands it in.
    made = ray.RayCluster({**s3_env, "PACE": "0.7"})
    try:
        yield made
    finally:
        print(made.logs())
        made.close()


def test_a_lost_raylet(cluster: ray.RayCluster, s3_uri: str, tmp_path: Path) -> None:
    """The raylet under a job is killed: Ray starts it on the other, which goes on from S3 to the same weights."""
    whole = plain(tmp_path / "plain")
    job = hand_in(tmp_path / "run", "ray", s3_uri, command=("python", "train.py"), engine_env=cluster.env)
    job.until(lambda: job.committed >= 4, "committed")
    before = job.committed
    cluster.lose_the_one_that_trains()
    waited = job.until(lambda: job.committed > before, "going on")
    print(f"{waited:.0f} s from the kill to the next commit")
    job.until(lambda: job.finished, "finished")
    job.until(lambda: "WEIGHTS" in job.log(), "done")
    assert weights(job.log()) == whole.weights
    assert "the run goes on from step" in job.log()
    job.until(lambda: "finished" in job.vl("status").out.lower(), "said to be over", 20)
