"""`vl run --on slurm` on a real Slurm of two nodes, with a vault on a real S3 server."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests import ROOT
from tests.engines import slurm
from tests.engines.jobs import hand_in, weights
from tests.engines.slurm import until
from tests.engines.test_requests import REQUEST
from tests.run.programs import plain, torchrun
from vaultlayer_hf.run.engines.jobs.slurm_script import log_file, script

WHY_NOT = slurm.why_not()
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


def test_a_lost_node(
    slurm_cluster, s3_uri: str, s3_env: dict[str, str], tmp_path: Path, unbroken: str
) -> None:
    """A node dies with all that runs on it: Slurm starts the job on the other, which goes on to the same weights."""
    job = hand_in(tmp_path / "run", "slurm", s3_uri, engine_env=slurm_cluster.env, PACE="0.7")
    job.until(lambda: job.committed >= 4, "committed")
    node = slurm_cluster.job(job.id)["BatchHost"]
    slurm_cluster.lose(node)
    shutil.rmtree(job.folder / "out")  # its disk is gone, too
    before = job.committed
    job.until(lambda: slurm_cluster.job(job.id)["Restarts"] == "1", "requeued")
    assert "waiting" in job.vl("status").out or "running" in job.vl("status").out
    waited = job.until(lambda: job.committed > before, "going on")
    print(f"{waited:.0f} s")
    job.until(lambda: job.finished, "finished")
    job.until(lambda: "WEIGHTS" in job.log(), "done")
    assert weights(job.log()) == unbroken
    assert slurm_cluster.job(job.id)["BatchHost"] != node
    slurm_cluster.start_node(node)


def test_two_nodes_requeued(slurm_cluster, s3_uri: str, s3_env: dict[str, str], tmp_path: Path) -> None:
    """torchrun over two nodes, requeued by the scheduler in the middle, ends with the weights of an unbroken run."""
    whole = plain(tmp_path / "plain", *torchrun(2), "train.py")
    job = hand_in(
        tmp_path / "it's 50% of $HOME",
        "slurm",
        s3_uri,
        "--nodes",
        "2",
        "--grace",
        "25",
        engine_env=slurm_cluster.env,
        PACE="1.5",
    )
    job.until(lambda: job.committed >= 2, "committed")
    assert slurm_cluster.job(job.id)["NodeList"] == "n[1-2]"
    slurm_cluster.call("scontrol", "requeue", job.id)
    job.until(lambda: job.finished, "finished")
    job.until(lambda: "WEIGHTS" in job.log(), "done")
    assert weights(job.log()) == whole.weights
    assert slurm_cluster.job(job.id)["Restarts"] == "1"
    assert "the run goes on from step" in job.log()


def test_nodes_have_all_of_their_grace(slurm_cluster, tmp_path: Path) -> None:
    """Told to end, several nodes save for as long as their grace lasts, whatever Slurm's patience with a step is."""
    request = replace(REQUEST, nodes=2, folder=tmp_path, home=tmp_path, module="tests.engines.slow_to_end")
    (tmp_path / "job.sh").write_text(script(replace(request, command=["python", "train.py"])))
    with slurm_cluster.changed("KillWait=30", "KillWait=3"):
        environment = {"PYTHONPATH": str(ROOT)}
        number = slurm_cluster.call("sbatch", "--parsable", str(tmp_path / "job.sh"), **environment).strip()
        log = log_file(tmp_path, number)
        until(lambda: log.exists() and log.read_text().count("begins") == 2, 60, "begun")
        slurm_cluster.call("scontrol", "update", f"JobId={number}", "Requeue=0")
        slurm_cluster.call("scancel", "--batch", "--signal=TERM", number)
        until(lambda: slurm_cluster.job(number)["JobState"] == "FAILED", 60, "ended")
    assert (log.read_text().count("saved"), slurm_cluster.job(number)["ExitCode"]) == (2, "75:0")


def test_the_time_limit_and_a_stop(
    slurm_cluster, s3_uri: str, s3_env: dict[str, str], tmp_path: Path, unbroken: str
) -> None:
    """Ahead of its time limit a job saves and is started again; told to stop, it saves, and stays away."""
    # Slow enough that the first start meets its limit, and that the second is there to be stopped.
    slow = "2 os.environ['PACE'] = '9'"
    options = ("--time-limit", "2min", "--grace", "60")
    job = hand_in(
        tmp_path / "run", "slurm", s3_uri, *options, engine_env=slurm_cluster.env, FATE=slow, PACE="2"
    )
    job.until(lambda: job.committed >= 2, "committed")
    job.until(lambda: slurm_cluster.job(job.id)["Restarts"] == "1", "started again")
    told = job.committed
    assert 2 < told < 12, "it saved where it was told to"
    job.until(lambda: f"goes on from step {told}" in job.log(), "going on")
    done = job.vl("stop")
    assert (done.code, "save and end" in done.out) == (0, True), done.err
    job.until(lambda: slurm_cluster.job(job.id)["JobState"] == "FAILED", "stopped")
    assert slurm_cluster.job(job.id)["ExitCode"] == "75:0"
    again = hand_in(tmp_path / "run", "slurm", s3_uri, engine_env=slurm_cluster.env)
    again.until(lambda: "WEIGHTS" in again.log(), "finished")
    assert weights(again.log()) == unbroken
