"""The notices of AWS, GCP and Azure: what to ask their metadata servers, and what their answers mean.

- AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html and
  rebalance-recommendations.html, through IMDSv2 (a token by PUT, then GET).
- GCP: https://cloud.google.com/compute/docs/instances/create-use-spot (``preempted``) and
  https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice (``maintenance-event``).
- Azure: https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events.

The standard library's HTTP is enough for three requests, and no other client comes with all supported versions of
what this package needs. Proxies are never asked: metadata servers are on the link.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol

from vaultlayer_hf.session.stop.notice import Notice

_TIMEOUT = 2.0
"""Seconds that a metadata server has to answer: it is on this very host."""
_TOKEN_SECONDS = 21600
"""How long a token of AWS is asked to last: the longest that it grants."""
_LIMIT = 2**20
"""Bytes of an answer that are read at most."""
_DMI = Path("/sys/class/dmi/id")
_AZURE_CHASSIS = "7783-7084-3265-9085-8269-3286-77"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NoticeSource(Protocol):
    """Where notices of one cloud come from.

    Attributes:
        name: of the cloud.
        interval: seconds between two looks, as its documentation recommends.
    """

    name: str
    interval: float

    def look(self) -> list[Notice]:
        """Return the notices that stand now. Raises OSError, ValueError where no answer can be had."""
        ...


class Aws:
    """Spot interruptions and rebalance recommendations. ``AWS_EC2_METADATA_SERVICE_ENDPOINT`` leads elsewhere."""

    name, interval = "AWS", 5.0

    def __init__(self) -> None:
        self._base = _base(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "http://169.254.169.254")
        self._token: str | None = None

    def look(self) -> list[Notice]:
        found = []
        action = self._get("/latest/meta-data/spot/instance-action")
        if action:
            said = json.loads(action)
            what = f"AWS will {said['action']} this instance at {said['time']} (spot/instance-action)"
            found.append(Notice("AWS", what, _iso(said["time"])))
        if self._get("/latest/meta-data/events/recommendations/rebalance"):
            what = "AWS says that this instance is likely to be interrupted (rebalance recommendation)"
            found.append(Notice("AWS", what, stops=False))
        return found

    def _get(self, path: str) -> str | None:
        """Return what there is, None where there is nothing; a token that has expired is renewed once."""
        status, text = self._ask_with_token(path)
        if status == 401:
            self._token = None
            status, text = self._ask_with_token(path)
        return _found(status, text)

    def _ask_with_token(self, path: str) -> tuple[int, str]:
        if self._token is None:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
            status, token = _ask(f"{self._base}/latest/api/token", ttl, method="PUT")
            if status != 200:
                raise OSError(f"no IMDSv2 token: HTTP {status}")
            self._token = token
        return _ask(f"{self._base}{path}", {"X-aws-ec2-metadata-token": self._token})


class Gcp:
    """Preemption of spot VMs, and host maintenance. ``GCE_METADATA_HOST`` leads elsewhere."""

    name, interval = "GCP", 2.0

    def __init__(self) -> None:
        self._base = _base(os.environ.get("GCE_METADATA_HOST"), "http://169.254.169.254")

    def look(self) -> list[Notice]:
        found = []
        if self._get("preempted") == "TRUE":
            found.append(Notice("GCP", "GCP has preempted this VM, and ends it soon (instance/preempted)"))
        event = self._get("maintenance-event")
        if event in ("MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"):
            # A minute ahead, or an hour for VMs with GPUs, and which isn't said: SIGTERM will tell when.
            found.append(Notice("GCP", f"GCP announces host maintenance ({event})", stops=False))
        return found

    def _get(self, path: str) -> str:
        url = f"{self._base}/computeMetadata/v1/instance/{path}"
        return (_found(*_ask(url, {"Metadata-Flavor": "Google"})) or "").strip()


class Azure:
    """Scheduled Events for this VM. ``VAULTLAYER_AZURE_METADATA`` leads elsewhere."""

    name, interval = "Azure", 2.0

    def __init__(self) -> None:
        self._base = _base(os.environ.get("VAULTLAYER_AZURE_METADATA"), "http://169.254.169.254")
        self._vm: str | None = None

    def look(self) -> list[Notice]:
        if self._vm is None:
            self._vm = self._get("instance/compute/name?api-version=2021-02-01&format=text").strip()
        said = json.loads(self._get("scheduledevents?api-version=2020-07-01") or "{}")
        found = []
        for event in said.get("Events", []):
            # A VM sees the events of all in its scale set or availability set.
            if self._vm and self._vm not in event.get("Resources", [self._vm]):
                continue
            kind, start = event["EventType"], event.get("NotBefore") or ""
            deadline = parsedate_to_datetime(start).timestamp() if start else time.time()
            what = f"Azure announces {kind} of this VM, not before {start or 'now'} (Scheduled Events)"
            stops = kind in ("Preempt", "Terminate", "Reboot", "Redeploy")
            found.append(Notice("Azure", what, deadline if stops else None, stops=stops))
        return found

    def _get(self, path: str) -> str:
        return _found(*_ask(f"{self._base}/metadata/{path}", {"Metadata": "true"})) or ""


_MAKE: dict[str, Callable[[], NoticeSource]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


def sources(wanted: str) -> list[NoticeSource]:
    """Return where to look for notices: ``auto``, ``none``, or names of clouds. Asks nobody."""
    if wanted == "auto":
        found = detect()
        if found == "aws" and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            found = None
        return [_MAKE[found]()] if found else []
    names = [] if wanted == "none" else [name.strip() for name in wanted.split(",")]
    return [_MAKE[name]() for name in names]


def detect(folder: Path = _DMI) -> str | None:
    """Return in which cloud this machine is, by what its firmware says, without a request; None: in none."""

    def says(name: str) -> str:
        try:
            return (folder / name).read_text().strip()
        except (OSError, ValueError):
            return ""

    if says("sys_vendor") == "Amazon EC2" or "amazon" in says("bios_version"):  # Nitro, Xen
        return "aws"
    if says("product_name") == "Google Compute Engine":
        return "gcp"
    # The chassis tells Azure from other machines of Microsoft's hypervisor.
    return "azure" if says("chassis_asset_tag") == _AZURE_CHASSIS else None


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with _opener.open(request, timeout=_TIMEOUT) as answer:
            return answer.status, answer.read(_LIMIT).decode()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, ""


def _found(status: int, text: str) -> str | None:
    if status == 404:
        return None
    if status != 200:
        raise OSError(f"the metadata server answers HTTP {status}")
    return text


def _base(given: str | None, usual: str) -> str:
    base = (given or usual).rstrip("/")
    return base if "://" in base else f"http://{base}"


def _iso(text: Any) -> float:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
