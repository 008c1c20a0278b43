"""SkyPilot: a managed job, which SkyPilot itself recovers on another machine, region or cloud."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from typing import Any

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import (
    GO_ON,
    MAX_RESTARTS,
    Job,
    JobRequest,
    JobState,
    engine_errors,
    missing_extra,
    node_variables,
)
from vaultlayer_hf.run.engines.jobs.command import Here, node_line
from vaultlayer_hf.run.engines.jobs.engine import Engine, OwnOption, paths_of_here

_HERE = Here("$SKYPILOT_NODE_RANK", '$(echo "$SKYPILOT_NODE_IPS" | head -n 1)', "29400", "$SKYPILOT_TASK_ID")
_UNREACHED = 3
"""Exit code of `vl run` that the store can't be reached: elsewhere it may be."""
_KILLED = (137, 143)
"""Those of a `vl run` that was killed, and of one that was told to end before it could answer."""
_WAITING = ("PENDING", "SUBMITTED", "STARTING", "RECOVERING", "DEPRECATED_SUBMITTED")
_RUNNING = ("RUNNING", "CANCELLING")


class Sky(Engine):
    """The API server of SkyPilot that this machine uses; ``--cluster`` names infras of it: ``aws,gcp``."""

    name = "sky"
    copies_folder = True
    own_options: Mapping[str, OwnOption] | None = {
        "setup": OwnOption("commands that prepare a machine: pip install …", r"(?s).+"),
        "workdir": OwnOption("the folder that is copied there; default: this one"),
        "strategy": OwnOption("of recovery: EAGER_NEXT_REGION (SkyPilot's default) or FAILOVER", r"\w+"),
        "cpus": OwnOption("a number of cores: 8, 8+", r"\d+(\.\d+)?\+?"),
        "memory": OwnOption("a number of GB: 32, 32+", r"\d+(\.\d+)?\+?"),
        "disk-size": OwnOption("a number of GB", r"\d+"),
        "image-id": OwnOption("a machine's image, or docker:IMAGE"),
    }

    def cannot(self, request: JobRequest) -> list[str]:
        """Return what SkyPilot can't do."""
        found = []
        if request.queue:
            found.append("it has no queues: leave out --queue")
        if request.max_restarts != MAX_RESTARTS:
            found.append("it recovers as often as it takes: leave out --max-restarts")
        if request.gpus.count and not request.gpus.kind:
            found.append(f"it wants to know the kind of GPU: --gpus A100:{request.gpus.count}")
        return found

    def differs(self, request: JobRequest) -> list[str]:
        """Return what is other than elsewhere."""
        return [
            "the machines get this cloud's own credentials; keys of another store are theirs to have",
            *paths_of_here(request),
        ]

    def manifest(self, request: JobRequest) -> str:
        """Return the task's YAML, which SkyPilot's own code has read and found right."""
        import yaml

        config = task_config(request)
        _validated(config)
        return str(yaml.safe_dump(config, sort_keys=False))

    def submit(self, request: JobRequest) -> Job:
        """Launch the managed job."""
        sky = _library()
        task = _validated(task_config(request))
        with engine_errors("SkyPilot hasn't taken it"):
            numbers, _ = sky.stream_and_get(sky.jobs.launch(task, name=request.name))
        number = numbers[0] if isinstance(numbers, list) else numbers
        return Job(self.name, str(number), request.name, request.vault, request.cluster, time=time.time())

    def state(self, job: Job) -> JobState:
        """Return what the queue of managed jobs says."""
        sky = _library()
        with engine_errors("SkyPilot can't be asked"):
            found = sky.get(sky.jobs.queue(refresh=False, job_ids=[int(job.id)]))
        return describe(found[0]) if found else JobState("unknown", "SkyPilot doesn't know it")

    def logs(self, job: Job, *, follow: bool = False) -> Iterator[str]:
        """Yield what SkyPilot has kept."""
        sky = _library()
        with engine_errors(f"SkyPilot has no logs of {job}"):
            for part in sky.jobs.tail_logs(job_id=int(job.id), follow=follow, preload_content=False):
                yield part or ""

    def end(self, job: Job, state: JobState, *, now: bool) -> str:
        """Cancel the managed job; gracefully, unless ``now``."""
        sky = _library()
        with engine_errors(f"SkyPilot hasn't cancelled {job}"):
            sky.get(sky.jobs.cancel(job_ids=[int(job.id)], graceful=not now))
        return f"{job} is cancelled"


def task_config(request: JobRequest) -> dict[str, Any]:
    """Return the task, as its YAML has it. Pure. Raises SettingsError."""
    more = request.more
    recovery: dict[str, Any] = {
        # Of the codes of `vl run`, these are worth another machine. What it stops for otherwise lasts.
        "max_restarts_on_errors": 0,
        "recover_on_exit_codes": [_UNREACHED, GO_ON, *_KILLED],
    }
    if "strategy" in more:
        recovery["strategy"] = more["strategy"]
    resources: dict[str, Any] = {"use_spot": request.spot, "job_recovery": recovery}
    if request.gpus.count:
        resources["accelerators"] = str(request.gpus)
    for name in ("cpus", "memory", "disk-size", "image-id"):
        if name in more:
            resources[name.replace("-", "_")] = int(more[name]) if name == "disk-size" else more[name]
    infras = [one.strip() for one in (request.cluster or "").split(",") if one.strip()]
    if len(infras) == 1:
        resources["infra"] = infras[0]
    elif infras:
        resources["any_of"] = [{"infra": one} for one in infras]
    found = {
        "name": request.name,
        "num_nodes": request.nodes,
        "workdir": more.get("workdir", "."),
        "resources": resources,
        "envs": node_variables(request),
        "setup": more.get("setup"),
        "run": node_line(request, _HERE, timed=True) + "\n",
    }
    return {name: value for name, value in found.items() if value is not None}


def describe(found: Mapping[str, Any]) -> JobState:
    """Return how a job is from its record in SkyPilot's queue. Pure."""
    status = str(getattr(found["status"], "value", found["status"]))
    where = str(found.get("infra") or found.get("cloud") or "")
    restarts = found.get("recovery_count")
    if status in _WAITING:
        return JobState("waiting", status, where, restarts)
    if status in _RUNNING:
        return JobState("running", status, where, restarts)
    detail = ": ".join(filter(None, (status, found.get("failure_reason"))))
    return JobState("finished" if status == "SUCCEEDED" else "stopped", detail, where, restarts)


def _library() -> Any:
    try:
        import sky
        import sky.jobs
    except ImportError as error:
        raise missing_extra("sky", "sky") from error
    return sky


def _validated(config: dict[str, Any]) -> Any:
    """Return SkyPilot's Task of a configuration. Raises SettingsError with what SkyPilot says of it."""
    sky = _library()
    try:
        return sky.Task.from_yaml_config(copy.deepcopy(config))  # it takes apart what it is given
    except ValueError as error:
        raise SettingsError(f"SkyPilot refuses the task: {' '.join(str(error).split())}") from error
