"""What the clouds' metadata servers say, asked over HTTP from a server that answers as they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_ports
from tests.session.stop.metadata import MetadataServer
from vaultlayer_hf.session.stop.clouds import detect, sources


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    """A running server to which the variables lead; a proxy is set that nobody may ask."""
    with MetadataServer() as made:
        for name, value in {**made.env, "http_proxy": "http://127.0.0.1:9"}.items():
            monkeypatch.setenv(name, value)
        yield made


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_nothing_is_announced(server: MetadataServer, cloud: str) -> None:
    """Where nothing stands nothing is found, and no request lacks what the real server asks for."""
    source = sources(cloud)[0]
    assert source.look() == source.look() == []
    assert server.refused == []


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_aws_interrupts(server: MetadataServer, action: str) -> None:
    """A spot instance-action of any kind ends the process at the time that it names; IMDSv2 tokens are renewed."""
    deadline = int(time.time()) + 120
    source = sources("aws")[0]
    assert source.look() == []
    server.action = {"action": action, "time": iso(deadline)}
    server.expire_tokens()
    (notice,) = source.look()
    assert (notice.deadline, notice.stops) == (deadline, True)
    assert f"{action} this instance" in notice.what
    assert server.requests["/latest/api/token"] == 2


def test_aws_recommends(server: MetadataServer) -> None:
    """A rebalance recommendation asks for a save, and stops nothing."""
    server.rebalance = {"noticeTime": iso(time.time())}
    (notice,) = sources("aws")[0].look()
    assert (notice.deadline, notice.stops) == (None, False)


def test_gcp_preempts(server: MetadataServer) -> None:
    """A preempted VM is ended, and when isn't said: the watch takes the grace that the settings name."""
    server.preempted = "TRUE"
    (notice,) = sources("gcp")[0].look()
    assert (notice.deadline, notice.stops) == (None, True)


@pytest.mark.parametrize("event", ["MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"])
def test_gcp_maintains(server: MetadataServer, event: str) -> None:
    """Host maintenance asks for a save: when the VM ends, if it does, isn't said, and SIGTERM will tell."""
    server.maintenance = event
    (notice,) = sources("gcp")[0].look()
    assert (notice.deadline, notice.stops) == (None, False)


def event(kind: str, resources: list[str], start: str) -> dict[str, Any]:
    """A scheduled event as Azure words it."""
    return {
        "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": resources,
        "EventStatus": "Scheduled" if start else "Started",
        "NotBefore": start,
        "Description": "",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    }


@pytest.mark.parametrize(
    ("kind", "stops"),
    [("Preempt", True), ("Terminate", True), ("Reboot", True), ("Redeploy", True), ("Freeze", False)],
)
def test_azure_schedules(server: MetadataServer, kind: str, stops: bool) -> None:
    """Events that end the VM end the process at their time; a freeze asks for a save."""
    start = int(time.time()) + 30
    server.events = [
        event(kind, [server.vm], format_datetime(datetime.fromtimestamp(start, UTC), usegmt=True))
    ]
    (notice,) = sources("azure")[0].look()
    assert (notice.deadline, notice.stops) == (start if stops else None, stops)


def test_azure_schedules_for_others(server: MetadataServer) -> None:
    """A VM sees the events of its whole scale set: those of other VMs are none of its business."""
    server.events = [event("Preempt", ["vm-1", "vm-2"], "")]
    assert sources("azure")[0].look() == []
    server.events.append(event("Preempt", ["vm-1", server.vm], ""))
    (notice,) = sources("azure")[0].look()
    assert notice.deadline is not None
    assert notice.deadline <= time.time()


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, cloud: str) -> None:
    """A server that isn't there is an OSError, soon, which the watch lives with."""
    port = free_ports(1)[0]
    for name in ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "GCE_METADATA_HOST", "VAULTLAYER_AZURE_METADATA"):
        monkeypatch.setenv(name, f"127.0.0.1:{port}")
    with pytest.raises(OSError, match=r"refused|timed out"):
        sources(cloud)[0].look()


FIRMWARE = {
    "aws": {"sys_vendor": "Amazon EC2", "product_name": "g5.xlarge"},
    "gcp": {"sys_vendor": "Google", "product_name": "Google Compute Engine"},
    "azure": {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"},
    None: {
        "sys_vendor": "Microsoft Corporation",
        "product_name": "Virtual Machine",
        "chassis_asset_tag": "1",
    },
}


@pytest.mark.parametrize("cloud", FIRMWARE)
def test_where_this_is(tmp_path: Path, cloud: str | None) -> None:
    """The firmware tells the clouds apart, and a Hyper-V machine of one's own from Azure; nobody is asked."""
    for name, text in FIRMWARE[cloud].items():
        (tmp_path / name).write_text(f"{text}\n")
    assert detect(tmp_path) == cloud
    assert detect(tmp_path / "absent") is None


def test_aws_is_left_alone_where_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_EC2_METADATA_DISABLED is respected; by name the user has the last word."""
    monkeypatch.setattr("vaultlayer_hf.session.stop.clouds.detect", lambda: "aws")
    assert [source.name for source in sources("auto")] == ["AWS"]
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert sources("auto") == sources("none") == []
    assert [source.name for source in sources("aws,gcp")] == ["AWS", "GCP"]
