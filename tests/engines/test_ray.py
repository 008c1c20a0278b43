"""`vl run --on ray` on a real Ray of two raylets, with a vault on a real S3 server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import ray
from tests.engines.jobs import hand_in, weights
from tests.run.programs import environment, plain, torchrun

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


def test_two_nodes(ray_cluster: ray.RayCluster, s3_uri: str, tmp_path: Path) -> None:
    """torchrun over two raylets, one of which is killed and comes back, ends with the weights of an unbroken run."""
    whole = plain(tmp_path / "plain", *torchrun(2), "train.py")
    job = hand_in(
        tmp_path / "run",
        "ray",
        s3_uri,
        "--nodes",
        "2",
        command=("python", "train.py"),
        engine_env=ray_cluster.env,
    )
    job.until(lambda: job.committed >= 4, "committed")
    before = job.committed
    lost = ray_cluster.lose_the_one_that_runs("vaultlayer_hf.cli")
    ray_cluster.start_node(lost)
    job.until(lambda: job.committed > before, "going on")
    job.until(lambda: job.finished, "finished")
    job.until(lambda: "WEIGHTS" in job.log(), "done")
    assert weights(job.log()) == whole.weights
    assert "all nodes are started again" in job.log()


def test_ray_train(tmp_path: Path) -> None:
    """Under Ray Train's TorchTrainer a killed worker costs a restart by Ray: it goes on, to the same weights."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.train_with_ray", str(tmp_path)],
        cwd=tmp_path, env=environment(**ray.QUIET, HOME=str(tmp_path)), capture_output=True, text=True, timeout=400,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    assert (tmp_path / "broken" / "killed").exists()
    ended = [(tmp_path / name / "weights").read_text() for name in ("unbroken", "broken")]
    assert ended[0] == ended[1]
    assert "the run goes on from step" in done.stdout + done.stderr
