"""One run from engine to engine on one vault: one command each, nothing about a resume, no engine undoes another."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.engines import ray, slurm
from tests.engines.jobs import Submitted, hand_in, weights
from tests.run.programs import SCRIPT, finish, start

WHY_NOT = slurm.why_not() or ray.why_not()
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


def _signal_all(pid: int, number: signal.Signals) -> None:
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.send_signal(number)


def test_from_here_to_slurm_to_ray(
    slurm_cluster: slurm.SlurmCluster,
    ray_cluster: ray.RayCluster,
    s3_uri: str,
    s3_env: dict[str, str],
    tmp_path: Path,
    unbroken: str,
) -> None:
    """A run begun here goes on under Slurm, then under Ray, to the same weights; who was left behind is fenced."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "train.py").write_text(SCRIPT)
    local = start(here, sys.executable, "train.py", options=("--vault", s3_uri), PACE="0.7")
    view = Submitted("local", here, s3_uri)
    view.until(lambda: view.committed >= 2, "committed here")
    _signal_all(local.pid, signal.SIGSTOP)  # as if its machine slept
    first = view.committed

    waits = f"8 while not os.path.exists('{tmp_path}/go'): time.sleep(0.2)"
    second = hand_in(
        tmp_path / "slurm", "slurm", s3_uri, engine_env=slurm_cluster.env, PACE="0.7", FATE=waits
    )
    second.until(lambda: second.committed >= 8, "going on under Slurm")
    assert first < 8
    _signal_all(local.pid, signal.SIGCONT)
    assert finish(local, here).code == 4, "the one that slept is fenced, and says so"

    reached = second.committed
    third = hand_in(
        tmp_path / "ray", "ray", s3_uri, command=("python", "train.py"), engine_env=ray_cluster.env
    )
    third.until(lambda: third.finished, "finished under Ray")
    third.until(lambda: "WEIGHTS" in third.log(), "done")
    assert weights(third.log()) == unbroken
    assert f"the run goes on from step {reached}" in third.log()
    (tmp_path / "go").touch()
    second.until(lambda: slurm_cluster.job(second.id)["JobState"] == "FAILED", "fenced under Slurm")
    assert slurm_cluster.job(second.id)["ExitCode"] == "4:0"
    assert slurm_cluster.job(second.id)["Restarts"] == "0", "a fenced job isn't started again"
