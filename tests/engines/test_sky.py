"""`vl run --on sky --dry-run`: the managed job, read by SkyPilot's own code. No cloud is part of the tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.engines.test_requests import REQUEST
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import Gpus
from vaultlayer_hf.run.engines.jobs.sky import Sky, describe, task_config

FULL = replace(
    REQUEST, nodes=2, gpus=Gpus(8, "A100"), spot=True, cluster="aws,gcp/us-central1", time_limit=7200.0,
    more={"setup": "pip install vaultlayer-hf", "strategy": "FAILOVER", "cpus": "8+", "disk-size": "200"},
)  # fmt: skip


def test_what_was_asked_for_is_in_it() -> None:
    """Spot, clouds, GPUs, and the exit codes that are worth another machine."""
    found = task_config(FULL)
    resources = found["resources"]
    assert (found["num_nodes"], resources["accelerators"], resources["use_spot"]) == (2, "A100:8", True)
    assert resources["any_of"] == [{"infra": "aws"}, {"infra": "gcp/us-central1"}]
    assert resources["job_recovery"] == {
        "max_restarts_on_errors": 0, "recover_on_exit_codes": [3, 75, 137, 143], "strategy": "FAILOVER",
    }  # fmt: skip
    assert "SKYPILOT_NODE_IPS" in found["run"]
    assert found["run"].startswith("timeout --foreground")


def test_what_it_cannot_do() -> None:
    """A queue, a bound on recoveries, GPUs without a kind, a vault on this disk: refused before submission."""
    asked = replace(REQUEST, gpus=Gpus(8), queue="x", max_restarts=3, vault="file:///data/vault")
    with pytest.raises(SettingsError) as refused:
        Sky().refuse(asked)
    for word in ("--queue", "--max-restarts", "A100:8", "--vault"):
        assert word in str(refused.value)


def test_states() -> None:
    """A job that is being recovered waits; one that has failed says why."""
    assert describe({"status": "RECOVERING", "recovery_count": 2, "infra": "AWS"}).alive
    failed = describe({"status": "FAILED", "failure_reason": "exit code 5"})
    assert (failed.state, failed.detail) == ("stopped", "FAILED: exit code 5")


@pytest.mark.parametrize("asked", [REQUEST, FULL], ids=["least", "full"])
@pytest.mark.filterwarnings("ignore")  # of SkyPilot's own
def test_skypilot_reads_it(asked) -> None:
    """SkyPilot's own code reads the YAML that --dry-run prints, and understands every option as it was meant."""
    sky = pytest.importorskip("sky", reason="needs SkyPilot: pip install skypilot", exc_type=ImportError)
    import yaml

    task = sky.Task.from_yaml_config(yaml.safe_load(Sky().manifest(asked)))
    assert task.num_nodes == asked.nodes
    resources = list(task.resources)
    assert {one.use_spot for one in resources} == {asked.spot}
    assert all(one.job_recovery["recover_on_exit_codes"] == [3, 75, 137, 143] for one in resources)
    assert len(resources) == (2 if asked is FULL else 1)
