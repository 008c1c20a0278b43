"""`vl run --on k8s --dry-run`: the manifest, read by the official client's models. No cluster is part of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.conftest import Done, vl
from tests.engines.test_requests import REQUEST
from tests.servers import CannedServer
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import LASTING, Gpus
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
    assert by_code == {75: "Ignore", **dict.fromkeys(LASTING, "FailJob")}
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


def test_a_command_reaches_the_shell_as_it_is() -> None:
    """Kubernetes replaces $(NAME) and $$ in a command: what a script is given stays as it was written."""
    line = manifests(replace(IMAGE, command=["python", "t.py", "a$$b", "$(VAULTLAYER_GRACE)", "$5"]))[-1][
        "spec"
    ]
    text = line["template"]["spec"]["containers"][0]["command"][-1]
    assert text.endswith("""python t.py 'a$$$b' '$$(VAULTLAYER_GRACE)' '$5'""")


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
    assert describe({"spec": {"suspend": True}, "status": {"terminating": 1}}, "").alive, "it saves"
    assert describe({"status": {"ready": 1, "failed": 2}}, "n1").restarts == 2
    assert (
        describe({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, "").state == "finished"
    )
    assert describe({}, "").alive


class _Jobs:
    """What an API server does with Jobs, as far as the life of one needs it: it keeps them, one of a name."""

    def __init__(self) -> None:
        self.kept: dict[str, dict] = {}

    def answer(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, dict, bytes]:
        name = path.partition("?")[0].rpartition("/")[2]
        if name == "pods":
            return self._reply(200, {"kind": "PodList", "items": []})
        if method == "POST":
            made = json.loads(body)
            name = made["metadata"]["name"]
            if name in self.kept:
                return self._reply(409, {"message": f'jobs.batch "{name}" already exists'})
            self.kept[name] = made
        if name not in self.kept:
            return self._reply(404, {"message": "not found"})
        if method == "PATCH":
            self.kept[name]["spec"].update(json.loads(body)["spec"])
        return self._reply(200, self.kept.pop(name) if method == "DELETE" else self.kept[name])

    @staticmethod
    def _reply(status: int, found: dict) -> tuple[int, dict, bytes]:
        return status, {"Content-Type": "application/json"}, json.dumps(found).encode()


def test_the_same_command_goes_on_behind_a_stop(tmp_path: Path) -> None:
    """A Job of the vault that lives keeps a second one away; one that was stopped makes room for the same command."""
    server = CannedServer(_Jobs().answer)
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server.endpoint}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x",
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))

    def call(*arguments: str) -> Done:
        return vl(*arguments, cwd=tmp_path, KUBECONFIG=str(tmp_path / "config"))

    command = [
        "run",
        "--on",
        "k8s",
        "--engine-option",
        "image=me/train",
        "--vault",
        "s3://b/x",
        "--",
        "python",
        "t.py",
    ]
    try:
        first, second = call(*command), call(*command)
        assert (first.code, second.code, "is there already" in second.err) == (0, 1, True), (
            first.err + second.err
        )
        assert "is waiting on this vault, too" in second.err
        stopped = call("stop")
        assert "told to save and end" in stopped.out, stopped.err
        assert "has ended already: Suspended" in call("stop").out
        assert call(*command).code == 0
        assert [method for method, _ in server.requests].count("DELETE") == 1
    finally:
        server.close()
