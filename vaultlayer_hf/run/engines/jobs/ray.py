"""Ray: a job of its Jobs API. What it runs on the cluster is ray_driver.py: a task on each node, retried by Ray."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vaultlayer_hf.run.engines.jobs.base import (
    EngineError,
    Job,
    JobRequest,
    JobState,
    engine_errors,
    missing_extra,
    node_variables,
    one_line,
)
from vaultlayer_hf.run.engines.jobs.command import Here, node_line
from vaultlayer_hf.run.engines.jobs.engine import Engine, OwnOption, paths_of_here

_DRIVER = "ray_driver"
_HERE = Here("$VL_NODE", "$VL_HEAD", "$VL_PORT", "$VL_JOB")
"""ray_driver.py sets these for each node."""
_STATES = {"PENDING": "waiting", "RUNNING": "running", "SUCCEEDED": "finished"}
_EVERY = 1.0
"""Seconds between two looks at a log that is followed."""


class Ray(Engine):
    """A running cluster: ``--cluster`` is its dashboard's address, else ``RAY_ADDRESS``, else this machine's."""

    name = "ray"
    copies_folder = True
    own_options: Mapping[str, OwnOption] | None = {
        "working-dir": OwnOption("the folder that is copied to the nodes; default: this one"),
        "cpus": OwnOption("a number for each node; default 1", r"\d+(\.\d+)?"),
        "pip": OwnOption("packages that Ray installs first, with commas between them"),
    }

    def cannot(self, request: JobRequest) -> list[str]:
        """Return what Ray can't do."""
        found = []
        if request.spot:
            found.append(
                "its machines are there already: whether they are spot ones was decided with the cluster"
            )
        if request.queue:
            found.append("it has no queues: leave out --queue")
        return found

    def differs(self, request: JobRequest) -> list[str]:
        """Return what is other than elsewhere."""
        return [
            "every node needs this package, and credentials of its own: Ray shows a job's variables to all who see its "
            "dashboard, so none are handed over",
            *paths_of_here(request),
        ]

    def manifest(self, request: JobRequest) -> str:
        """Return what the Jobs API is sent, as JSON."""
        return json.dumps(submission(request), indent=2) + "\n"

    def submit(self, request: JobRequest) -> Job:
        """Hand the job to the Jobs API, which copies the working directory."""
        client = _client(request.cluster)
        with engine_errors("Ray hasn't taken it"):
            number = client.submit_job(**submission(request))
        return Job(self.name, number, request.name, request.vault, request.cluster, time=time.time())

    def state(self, job: Job) -> JobState:
        """Return what the Jobs API says."""
        client = _client(job.cluster)
        try:
            with engine_errors("Ray can't be asked"):
                found = client.get_job_info(job.id)
        except EngineError as error:
            if "does not exist" in str(error):
                return JobState("unknown", "Ray doesn't know it")
            raise
        return describe(str(getattr(found.status, "value", found.status)), found.message or "")

    def logs(self, job: Job, *, follow: bool = False) -> Iterator[str]:
        """Yield what the job's driver has written: all nodes' output."""
        client = _client(job.cluster)
        shown = 0
        while True:
            ended = not follow or not self.state(job).alive
            with engine_errors(f"Ray has no logs of {job}"):
                text = client.get_job_logs(job.id)
            yield text[shown:]
            shown = len(text)
            if ended:
                return
            time.sleep(_EVERY)

    def end(self, job: Job, state: JobState, *, now: bool) -> str:
        """Stop the driver. Its tasks end with it, and what they run gets SIGTERM, saves and ends."""
        client = _client(job.cluster)
        with engine_errors(f"Ray hasn't stopped {job}"):
            client.stop_job(job.id)
        return f"{job} is told to save and end" + (": Ray can't end it more quickly" if now else "")


def describe(status: str, message: str) -> JobState:
    """Return how a job is from what the Jobs API says; of one that failed, without the end of its log. Pure."""
    said = "" if status in _STATES else one_line(message.partition(", last available logs")[0])
    return JobState(_STATES.get(status, "stopped"), ": ".join(filter(None, (status, said))))


def submission(request: JobRequest) -> dict[str, Any]:
    """Return the arguments of ``JobSubmissionClient.submit_job``. Pure. Raises SettingsError."""
    more = request.more
    words = [
        *("python", "-m", f"{__package__}.{_DRIVER}"),
        *(f"--nodes={request.nodes}", f"--gpus={request.gpus.count}", f"--cpus={more.get('cpus', '1')}"),
        *(f"--max-restarts={request.max_restarts}", f"--grace={request.grace:.0f}"),
        *((f"--gpu-kind={request.gpus.kind}",) if request.gpus.kind else ()),
        *("--", node_line(request, _HERE, timed=True)),
    ]
    folder = more.get("working-dir", str(request.folder))
    environment: dict[str, Any] = {
        "working_dir": folder,
        "excludes": [*_run_folder_in(request.home, folder), "/.git/"],
        "env_vars": node_variables(request),
    }
    if "pip" in more:
        environment["pip"] = [one.strip() for one in more["pip"].split(",")]
    return {
        "entrypoint": shlex.join(words),
        "runtime_env": environment,
        "metadata": {"name": request.name, "vault": request.vault},
    }


def _run_folder_in(home: Path, folder: str) -> list[str]:
    """Return the run folder's place in the folder that is copied, as Ray leaves it out; none where it isn't in it."""
    whole = Path(folder).absolute()
    return [f"/{home.relative_to(whole)}/"] if whole in home.parents else []


def _client(address: str | None) -> Any:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise missing_extra("ray", "ray") from error
    with engine_errors(f"no Ray cluster answers{f' at {address}' if address else ''}"):
        return JobSubmissionClient(address)
