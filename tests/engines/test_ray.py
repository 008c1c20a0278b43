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


def test_ray_train(ray_cluster: ray.RayCluster, tmp_path: Path) -> None:
    """Under Ray Train's TorchTrainer a worker loses its node, which comes back: the weights are those of torchrun."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    program = "tests.engines.train_with_ray"
    unbroken.mkdir()
    broken.mkdir()
    call = {
        "env": environment(**ray.QUIET),
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "text": True,
    }
    whole = [*torchrun(2), "-m", program, str(unbroken)]
    subprocess.run(whole, cwd=unbroken, **call, stderr=subprocess.DEVNULL, timeout=200, check=True)
    trains = [sys.executable, "-m", program, str(broken), ray_cluster.address]
    with subprocess.Popen(trains, cwd=broken, **call, stderr=subprocess.STDOUT) as process:
        ray_cluster.start_node(ray_cluster.await_loss(240))
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said[-6000:]
    assert (broken / "killed").exists()
    assert (broken / "weights").read_text() == (unbroken / "weights").read_text()
    assert "the run goes on from step" in said
