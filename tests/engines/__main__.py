"""`python -m tests.engines`: the time from a failure to the first new step, beside what each engine takes alone.

Alone: the same failure under a job that does nothing but write down when it starts.
"""

from __future__ import annotations

import shlex
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.engines import ray, slurm
from tests.engines.jobs import hand_in
from tests.servers import SeaweedServer
from vaultlayer_hf.run.journal import read_lines

_PATIENCE = 180.0
"""Seconds."""


def main() -> None:
    """Measure all that can run here, and print the table row by row."""
    print("| engine | what fails | the engine alone | to the first new step |\n|---|---|---|---|", flush=True)
    server = SeaweedServer()
    server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="vlengines-") as name:
            if not slurm.why_not():
                _slurm(Path(name) / "slurm", server)
            if not ray.why_not():
                _print(_ray_row(Path(name) / "ray", server))
    finally:
        server.close()


def _print(row: list[str]) -> None:
    print("| " + " | ".join(row) + " |", flush=True)


def _slurm(folder: Path, server: SeaweedServer) -> None:
    cluster = slurm.SlurmCluster(folder / "cluster")
    try:
        cluster.start()
        for what in ("the node", "a requeue by the scheduler"):
            _print(_slurm_row(folder, server, cluster, what))
    finally:
        cluster.close()


def _slurm_row(folder: Path, server: SeaweedServer, cluster: slurm.SlurmCluster, what: str) -> list[str]:
    starts, script, run = (folder / f"{name}-{uuid.uuid4().hex[:6]}" for name in ("starts", "script", "run"))
    line = f"date +%s.%N >> {shlex.quote(str(starts))}"
    script.write_text(f"#!/bin/bash\n#SBATCH --requeue --output=/dev/null\n{line}\nsleep 600\n")
    number = cluster.call("sbatch", "--parsable", str(script)).strip()
    alone = _between(lambda: _times(starts), lambda: _fail(cluster, number, what))
    cluster.call("scancel", "--signal=KILL", "--full", number)
    for node in cluster.nodes:
        cluster.start_node(node)
    job = hand_in(
        run, "slurm", _vault(server), "--grace", "25", engine_env=cluster.env, PACE="0.7", **server.env()
    )
    first = _between(lambda: _steps(run), lambda: _fail(cluster, job.id, what), ready=3)
    job.vl("stop", "--now")
    for node in cluster.nodes:
        cluster.start_node(node)
    return ["Slurm", what, f"{alone:.0f} s", f"{first:.0f} s"]


def _fail(cluster: slurm.SlurmCluster, number: str, what: str) -> None:
    if what != "the node":
        cluster.call("scontrol", "requeue", number)
        return
    cluster.lose(cluster.job(number)["BatchHost"])


def _ray_row(folder: Path, server: SeaweedServer) -> list[str]:
    from ray.job_submission import JobSubmissionClient

    cluster = ray.RayCluster({**server.env(), "PACE": "0.7"})
    try:
        cluster.start()
        folder.mkdir()
        starts = folder / "starts"
        line = f"sh -c 'date +%s.%N >> {starts}; exec sleep 654'"
        driver = "python -m vaultlayer_hf.run.engines.jobs.ray_driver --max-restarts=9 --"
        client = JobSubmissionClient(cluster.env["RAY_ADDRESS"])
        number = client.submit_job(entrypoint=f"{driver} {shlex.quote(line)}")
        lost: list[str] = []
        alone = _between(lambda: _times(starts), lambda: lost.append(cluster.lose_the_one_that_runs("654")))
        client.stop_job(number)
        cluster.start_node(lost[0])
        job = hand_in(
            folder / "run", "ray", _vault(server), command=("python", "train.py"), engine_env=cluster.env
        )
        homes = cluster.folder
        first = _between(
            lambda: _steps(homes), lambda: cluster.lose_the_one_that_runs("vaultlayer_hf.cli"), ready=3
        )
        job.vl("stop")
        return ["Ray", "the raylet", f"{alone:.0f} s", f"{first:.0f} s"]
    finally:
        cluster.close()


def _vault(server: SeaweedServer) -> str:
    return f"s3://{server.bucket}/{uuid.uuid4().hex[:10]}"


def _times(file: Path) -> list[tuple[str, float]]:
    """Return the starts of a job that does nothing else: a name for each, and when."""
    lines = file.read_text().split() if file.exists() else []
    return [(str(number), float(line)) for number, line in enumerate(lines)]


def _steps(folder: Path) -> list[tuple[str, float]]:
    """Return when steps were trained, with the attempt's folder."""
    return [
        (str(notes.parent), line["time"])
        for notes in folder.glob("**/.vl/attempt-*/rank-0.jsonl")
        for line in read_lines(notes)
        if line["kind"] == "log"
    ]


def _between(
    seen: Callable[[], list[tuple[str, float]]], fail: Callable[[], object], ready: int = 1
) -> float:
    """Wait until something was seen, let it fail, and return the seconds to the first that another start has seen."""
    end = time.time() + _PATIENCE
    while len(before := seen()) < ready:
        assert time.time() < end, "it hasn't begun"
        time.sleep(0.2)
    known = {name for name, _ in before}
    begin = time.time()
    fail()
    while not (later := [moment for name, moment in seen() if name not in known and moment > begin]):
        assert time.time() < end + _PATIENCE, "it hasn't begun again"
        time.sleep(0.2)
    return min(later) - begin


if __name__ == "__main__":
    main()
