"""The objects of a job on Kubernetes, made of the official client's models.

A pod that ends with 75 was told to end, and one that is drained or preempted is no failure: both are replaced without
counting. An exit code that lasts fails the whole Job. Everything else counts against ``backoffLimit``.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from vaultlayer_hf.run.engines.jobs.base import GO_ON, LASTING, JobRequest, missing_extra, node_variables
from vaultlayer_hf.run.engines.jobs.command import Here, node_line

_PORT = 29400
_CONTAINER = "train"
_GPU = "nvidia.com/gpu"
_QUEUE = "kueue.x-k8s.io/queue-name"


def manifests(request: JobRequest) -> list[dict[str, Any]]:
    """Return the objects of a job, the Job last. Raises MissingExtraError, SettingsError."""
    client = library()
    name = job_name(request)
    several = request.nodes > 1
    here = Here("$JOB_COMPLETION_INDEX", f"{name}-0.{name}", str(_PORT), name)
    labels = {"app": "vaultlayer", **({_QUEUE: request.queue} if request.queue else {})}
    more = request.more
    sizes = {key: more[key] for key in ("cpu", "memory") if key in more}
    if request.gpus.count:
        sizes[_GPU] = str(request.gpus.count)
    claim, _, path = more.get("pvc", "").partition(":")
    # A DataLoader's workers hand batches over in shared memory, of which a container has 64 MB.
    volumes = [client.V1Volume(name="shm", empty_dir=client.V1EmptyDirVolumeSource(medium="Memory"))]
    mounts = [client.V1VolumeMount(name="shm", mount_path="/dev/shm")]
    if claim:
        source = client.V1PersistentVolumeClaimVolumeSource(claim_name=claim)
        volumes.append(client.V1Volume(name="vault", persistent_volume_claim=source))
        mounts.append(client.V1VolumeMount(name="vault", mount_path=path))
    container = client.V1Container(
        name=_CONTAINER,
        image=more["image"],
        command=["sh", "-c", _literal(f"exec {node_line(request, here, timed=True)}")],
        working_dir=more.get("workdir"),
        env=[client.V1EnvVar(name=key, value=value) for key, value in node_variables(request).items()],
        env_from=[client.V1EnvFromSource(secret_ref=client.V1SecretEnvSource(name=more["secret"]))]
        if "secret" in more
        else None,
        resources=client.V1ResourceRequirements(limits=sizes, requests=sizes) if sizes else None,
        volume_mounts=mounts,
    )
    pod = client.V1PodSpec(
        containers=[container],
        restart_policy="Never",  # a pod failure policy wants it
        termination_grace_period_seconds=round(request.grace),
        node_selector=dict(pair.split("=", 1) for pair in more["node-selector"].split(","))
        if "node-selector" in more
        else None,
        service_account_name=more.get("service-account"),
        subdomain=name if several else None,
        volumes=volumes,
    )
    rule, codes = client.V1PodFailurePolicyRule, client.V1PodFailurePolicyOnExitCodesRequirement
    drained = client.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    policy = client.V1PodFailurePolicy(
        rules=[
            rule(
                action="Ignore", on_exit_codes=codes(container_name=_CONTAINER, operator="In", values=[GO_ON])
            ),
            rule(action="Ignore", on_pod_conditions=[drained]),
            rule(
                action="FailJob",
                on_exit_codes=codes(container_name=_CONTAINER, operator="In", values=list(LASTING)),
            ),
        ]
    )
    spec = client.V1JobSpec(
        completions=request.nodes,
        parallelism=request.nodes,
        completion_mode="Indexed",
        backoff_limit=request.max_restarts,
        pod_failure_policy=policy,
        pod_replacement_policy="Failed",  # the next pod starts once the last one is gone
        template=client.V1PodTemplateSpec(
            metadata=client.V1ObjectMeta(labels={**labels, "job": name}), spec=pod
        ),
    )
    metadata = client.V1ObjectMeta(name=name, labels=labels, annotations={"vaultlayer/vault": request.vault})
    found = [client.V1Job(api_version="batch/v1", kind="Job", metadata=metadata, spec=spec)]
    if several:
        service = client.V1ServiceSpec(
            cluster_ip="None",
            selector={"job": name},
            ports=[client.V1ServicePort(name="rendezvous", port=_PORT)],
            publish_not_ready_addresses=True,
        )
        metadata = client.V1ObjectMeta(name=name, labels=labels)
        found.insert(0, client.V1Service(api_version="v1", kind="Service", metadata=metadata, spec=service))
    return [client.ApiClient().sanitize_for_serialization(one) for one in found]


def job_name(request: JobRequest) -> str:
    """Return the Job's name: the same for the same vault, so that a cluster has one job of it at a time."""
    plain = re.sub(r"[^a-z0-9]+", "-", request.name.lower()).strip("-")[:40].rstrip("-")
    return f"{plain}-{sha256(request.vault.encode()).hexdigest()[:8]}"


def _literal(text: str) -> str:
    """Return a text as Kubernetes leaves it to the shell: in a command it replaces ``$(NAME)``, and ``$$`` by ``$``."""
    return re.sub(r"\$(?=[$(])", "$$", text)


def library() -> Any:
    """Return the official client's module. Raises MissingExtraError."""
    try:
        from kubernetes import client
    except ImportError as error:
        raise missing_extra("k8s", "k8s") from error
    return client
