"""Kubernetes: a Job, as k8s_job.py makes it, handed in by the official client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Any

from vaultlayer_hf.run.engines.jobs.base import Job, JobRequest, JobState, engine_errors, one_line
from vaultlayer_hf.run.engines.jobs.engine import Engine, OwnOption
from vaultlayer_hf.run.engines.jobs.k8s_job import library, manifests

_NAME = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_PATIENCE = 30.0
"""Seconds that the API server may take."""
_EVERY = 2.0
"""Seconds between two looks for a pod whose log is followed."""


class Kubernetes(Engine):
    """A cluster that the kubeconfig of this machine leads to; ``--cluster`` is one of its contexts."""

    name = "k8s"
    own_options: Mapping[str, OwnOption] | None = {
        "image": OwnOption("the container's image, with the script and this package in it"),
        "namespace": OwnOption("a namespace's name; default: default", _NAME),
        "secret": OwnOption("a Secret's name, whose keys become variables: AWS_ACCESS_KEY_ID, say", _NAME),
        "service-account": OwnOption("a name, for credentials of the cloud without a Secret", _NAME),
        "pvc": OwnOption("NAME:/path: a volume, where the vault may be", rf"{_NAME}:/.*"),
        "node-selector": OwnOption(
            "KEY=VALUE,...: which nodes; spot ones, or a kind of GPU",
            r"[^=,\s]+=[^=,\s]*(,[^=,\s]+=[^=,\s]*)*",
        ),
        "workdir": OwnOption("the working directory in the image: /app", r"/.*"),
        "cpu": OwnOption("cores of each pod: 8, 500m", r"\d+(\.\d+)?m?"),
        "memory": OwnOption("a size for each pod: 64Gi", r"\d+(\.\d+)?([kMGTPE]|[KMGTPE]i)?"),
    }

    def cannot(self, request: JobRequest) -> list[str]:
        """Return what Kubernetes can't do."""
        found = []
        if "image" not in request.more:
            found.append(
                "it runs images: --engine-option image=REPOSITORY/NAME, with the script and this package in it"
            )
        selected = "node-selector" in request.more
        if request.spot and not selected:
            found.append(
                "each provider has a label of its own for spot nodes: --engine-option "
                "node-selector=cloud.google.com/gke-spot=true (EKS: eks.amazonaws.com/capacityType=SPOT)"
            )
        if request.gpus.kind and not selected:
            found.append(
                "each cluster has labels of its own for kinds of GPUs: --gpus "
                f"{request.gpus.count} --engine-option node-selector=nvidia.com/gpu.product=…"
            )
        return found

    def differs(self, request: JobRequest) -> list[str]:
        """Return what is other than elsewhere."""
        return ["it counts neither evictions nor ends with 75 against --max-restarts"]

    def mounted(self, request: JobRequest) -> bool:
        """Tell whether the vault lies on the volume."""
        _, _, path = request.more.get("pvc", "").partition(":")
        return bool(path) and PurePosixPath(request.vault.removeprefix("file://")).is_relative_to(path)

    def manifest(self, request: JobRequest) -> str:
        """Return the YAML of the Job, and of the Service by which several nodes find each other."""
        import yaml

        return "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in manifests(request))

    def submit(self, request: JobRequest) -> Job:
        """Create the Service and the Job; a Job of this vault that has ended, or was stopped, makes room for it."""
        client, api = _client(request.cluster)
        space = request.more.get("namespace", "default")
        found = manifests(request)
        name = found[-1]["metadata"]["name"]
        with _asking(client):
            for one in found[:-1]:
                try:
                    client.CoreV1Api(api).create_namespaced_service(space, one, _request_timeout=_PATIENCE)
                except client.ApiException as error:
                    if error.status != 409:
                        raise
            batch = client.BatchV1Api(api)
            try:
                batch.create_namespaced_job(space, found[-1], _request_timeout=_PATIENCE)
            except client.ApiException as error:
                if error.status != 409 or not _make_room(client, batch, space, name):
                    raise
                batch.create_namespaced_job(space, found[-1], _request_timeout=_PATIENCE)
        return Job(
            self.name, f"{space}/{name}", request.name, request.vault, request.cluster, time=time.time()
        )

    def state(self, job: Job) -> JobState:
        """Return what the Job's status says."""
        client, api = _client(job.cluster)
        space, name = _split(job)
        with _asking(client):
            try:
                found = client.BatchV1Api(api).read_namespaced_job(name, space, _request_timeout=_PATIENCE)
            except client.ApiException as error:
                if error.status == 404:
                    return JobState("unknown", "there is no such Job any more")
                raise
            pods = _pods(client, api, job)
        nodes = ",".join(sorted({pod.spec.node_name for pod in pods if pod.spec.node_name}))
        return describe(api.sanitize_for_serialization(found), nodes)

    def logs(self, job: Job, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the first node's newest pod; with ``follow``, those of the pods that replace it, too."""
        client, api = _client(job.cluster)
        space, _ = _split(job)
        shown: set[str] = set()
        while True:
            ended = not follow or not self.state(job).alive
            with _asking(client):
                for pod in _pods(client, api, job):
                    name = pod.metadata.name
                    if name in shown or pod.status.phase == "Pending":
                        continue
                    shown.add(name)
                    answer = client.CoreV1Api(api).read_namespaced_pod_log(
                        name, space, follow=follow, _preload_content=False
                    )
                    for part in answer.stream():
                        yield part.decode(errors="replace")
            if ended:
                return
            time.sleep(_EVERY)

    def end(self, job: Job, state: JobState, *, now: bool) -> str:
        """Suspend the Job, which sends SIGTERM to its pods and replaces none of them; with ``now``, delete it."""
        client, api = _client(job.cluster)
        space, name = _split(job)
        with _asking(client):
            batch = client.BatchV1Api(api)
            if now:
                options = client.V1DeleteOptions(propagation_policy="Background", grace_period_seconds=0)
                batch.delete_namespaced_job(name, space, body=options, _request_timeout=_PATIENCE)
                return f"{job} is deleted"
            batch.patch_namespaced_job(name, space, {"spec": {"suspend": True}}, _request_timeout=_PATIENCE)
        return f"{job} is told to save and end"


def _make_room(client: Any, batch: Any, space: str, name: str) -> bool:
    """Delete a Job that has ended, and wait until it is gone; False where it lives. Raises ApiException."""
    found = batch.read_namespaced_job(name, space, _request_timeout=_PATIENCE)
    if describe(client.ApiClient().sanitize_for_serialization(found), "").alive:
        return False
    options = client.V1DeleteOptions(propagation_policy="Foreground")
    batch.delete_namespaced_job(name, space, body=options, _request_timeout=_PATIENCE)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            batch.read_namespaced_job(name, space, _request_timeout=_PATIENCE)
        except client.ApiException as error:
            if error.status == 404:
                return True
            raise
        time.sleep(_EVERY / 4)
    return False


def describe(job: Mapping[str, Any], nodes: str) -> JobState:
    """Return how a job is from the Job as the API server has it. Pure."""
    status = job.get("status") or {}
    true = [one for one in status.get("conditions") or () if one.get("status") == "True"]
    said = {one["type"]: ": ".join(filter(None, (one.get("reason"), one.get("message")))) for one in true}
    restarts = status.get("failed") or 0
    if "Complete" in said or "SuccessCriteriaMet" in said:
        return JobState("finished", "Complete", nodes, restarts)
    if "Failed" in said or "FailureTarget" in said:
        return JobState("stopped", said.get("Failed") or said["FailureTarget"], nodes, restarts)
    if (job.get("spec") or {}).get("suspend"):
        if status.get("active") or status.get("terminating"):
            return JobState("running", "Suspended: its pods are told to save and end", nodes, restarts)
        return JobState("stopped", "Suspended", nodes, restarts)
    if status.get("ready"):
        return JobState("running", "", nodes, restarts)
    return JobState("waiting", "no pod is ready yet", nodes, restarts)


def _split(job: Job) -> tuple[str, str]:
    space, sign, name = job.id.partition("/")
    return (space, name) if sign else ("default", space)


def _pods(client: Any, api: Any, job: Job) -> list[Any]:
    """Return the pods of a job's first node, the oldest first."""
    space, name = _split(job)
    label = f"job-name={name},batch.kubernetes.io/job-completion-index=0"
    found = (
        client.CoreV1Api(api)
        .list_namespaced_pod(space, label_selector=label, _request_timeout=_PATIENCE)
        .items
    )
    return sorted(found, key=lambda pod: pod.metadata.creation_timestamp)


def _client(context: str | None) -> tuple[Any, Any]:
    """Return the client's module, and a connection. Raises MissingExtraError, EngineError."""
    client = library()
    from kubernetes import config

    with engine_errors("no cluster is known here"):
        return client, config.new_client_from_config(context=context)


def _asking(client: Any) -> AbstractContextManager[None]:
    """Return a block in which what the API server or the network says becomes EngineError."""

    def sentence(error: Exception) -> str | None:
        if isinstance(error, client.ApiException):
            exists = " (a Job of this vault is there already)" if error.status == 409 else ""
            said = one_line(getattr(error, "body", "") or error.reason)
            return f"the API server answers {error.status}{exists}: {said}"
        if isinstance(error, OSError) or type(error).__module__.startswith("urllib3"):
            return f"the API server can't be reached: {one_line(error)}"
        return None

    return engine_errors(sentence)
