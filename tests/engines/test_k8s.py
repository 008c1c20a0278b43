"""`vl run --on k8s --dry-run`: the manifest, read by the official client's models. No cluster is part of it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.engines.test_requests import REQUEST
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import Gpus
from vaultlayer_hf.run.engines.jobs.k8s import Kubernetes, describe
from vaultlayer_hf.run.engines.jobs.k8s_job import job_name, manifests

kubernetes = pytest.importorskip("kubernetes", reason="needs the official client: pip install kubernetes")
IMAGE = replace(REQUEST, more={"image": "me/train"})
FULL = replace(
    REQUEST,
    nodes=2,
    gpus=Gpus(8),
    spot=True,
    queue="team",
    time_limit=7200.0,
    variables={"VAULTLAYER_KEEP_LAST": "5"},
    more={
        "image": "me/train",
        "secret": "s3-keys",
        "pvc": "claim:/vault",
        "node-selector": "cloud.google.com/gke-spot=true,nvidia.com/gpu.product=A100",
        "service-account": "trainer",
        "memory": "64Gi",
        "workdir": "/app",
    },
)


def _read(manifest: dict, kind: str) -> object:
    """Return a manifest as the client's model, which refuses values that the API's schema doesn't allow."""
    answer = SimpleNamespace(data=json.dumps(manifest))
    return kubernetes.client.ApiClient().deserialize(answer, kind)


@pytest.mark.parametrize("request_", [IMAGE, FULL], ids=["least", "full"])
def test_the_schema_knows_every_field(request_) -> None:
    """Read as the API's models and written again, nothing of the manifest is lost: no field is unknown or misplaced."""
    found = manifests(request_)
    assert [one["kind"] for one in found] == (["Service", "Job"] if request_.nodes > 1 else ["Job"])
    for manifest in found:
        model = _read(manifest, f"V1{manifest['kind']}")
        assert kubernetes.client.ApiClient().sanitize_for_serialization(model) == manifest


def test_what_a_pod_ends_with_decides() -> None:
    """75 and a drained node are replaced without counting, what lasts fails the Job, and the rest counts."""
    spec = manifests(FULL)[-1]["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    by_code = {
        code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", ())
    }
    assert by_code == {75: "Ignore", **dict.fromkeys((1, 2, 4, 5, 70), "FailJob")}
    assert {"type": "DisruptionTarget", "status": "True"} in rules[1]["onPodConditions"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (100, "Failed")
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 300)


def test_what_was_asked_for_is_in_it() -> None:
    """Nodes, GPUs, queue, time limit, volume, keys and the rendezvous by the name of the first pod."""
    service, job = manifests(FULL)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    line = container["command"][-1]
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "8"}
    assert "timeout --foreground --preserve-status --signal=TERM --kill-after=300 6900 python" in line
    name = job["metadata"]["name"]
    assert f'--rdzv-endpoint="{name}-0.{name}:29400"' in line
    assert (pod["subdomain"], service["spec"]["clusterIP"]) == (name, "None")
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert container["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
    assert {"name": "VAULTLAYER_KEEP_LAST", "value": "5"} in container["env"]


def test_what_it_cannot_do() -> None:
    """An image, and labels for spot nodes and kinds of GPUs, must be named; so must a vault that the nodes see."""
    asked = replace(REQUEST, spot=True, gpus=Gpus(8, "A100"), vault="file:///data/vault")
    with pytest.raises(SettingsError) as refused:
        Kubernetes().refuse(asked)
    for word in ("image=", "gke-spot", "gpu.product", "--vault"):
        assert word in str(refused.value)
    Kubernetes().refuse(replace(FULL, vault="file:///vault/run"))


def test_one_job_of_a_vault() -> None:
    """The Job's name follows from the vault, and is one that Kubernetes allows."""
    other = replace(IMAGE, vault="s3://b/y", name="vl-My_Script.v2")
    assert job_name(other) == job_name(replace(other, nodes=2))
    assert job_name(other).rpartition("-")[0] == "vl-my-script-v2"
    assert job_name(IMAGE) != job_name(replace(IMAGE, vault="s3://b/y"))


def test_states() -> None:
    """Running, suspended, failed for a code that lasts, complete: read from a Job's status."""
    failed = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]}}
    assert (describe(failed, "").state, describe(failed, "").detail) == ("stopped", "PodFailurePolicy")
    assert describe({"spec": {"suspend": True}, "status": {}}, "").detail == "Suspended"
    assert describe({"status": {"ready": 1, "failed": 2}}, "n1").restarts == 2
    assert (
        describe({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, "").state == "finished"
    )
    assert describe({}, "").alive
