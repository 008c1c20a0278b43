"""`vl run --on ray` on a real Ray of two raylets, with a vault on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import ray
from tests.engines.jobs import hand_in, weights

WHY_NOT = ray.why_not()
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


def test_a_lost_raylet(ray_cluster: ray.RayCluster, s3_uri: str, tmp_path: Path, unbroken: str) -> None:
    """The raylet under a job is killed: Ray starts it on the other, which goes on from S3 to the same weights."""
    job = hand_in(tmp_path / "run", "ray", s3_uri, command=("python", "train.py"), engine_env=ray_cluster.env)
    job.until(lambda: job.committed >= 4, "committed")
    before = job.committed
    ray_cluster.lose_the_one_that_runs("vaultlayer_hf.cli")
    waited = job.until(lambda: job.committed > before, "going on")
    print(f"{waited:.0f} s from the kill to the next commit")
    job.until(lambda: job.finished, "finished")
    job.until(lambda: "WEIGHTS" in job.log(), "done")
    assert weights(job.log()) == unbroken
    assert "the run goes on from step" in job.log()
    job.until(lambda: "finished" in job.vl("status").out.lower(), "said to be over", 20)
