"""Other stores than S3 and this disk: emulators of clouds, and file systems mounted for one test, which needs root."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse import FuseMount
from tests.kit.disks import read_only_at, small_disk_at
from tests.servers import CannedServer, SeaweedServer
from tests.stores.azurite import INSTALL, AzuriteServer
from tests.stores.gateways import GoogleGateway, HubGateway
from tests.stores.hub import HubServer


@pytest.fixture
def fuse_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a FUSE file system that has neither hard links nor an exclusive rename."""
    with _on_fuse(tmp_path) as folder:
        yield folder


@pytest.fixture
def poor_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a FUSE file system that flushes nothing, renames onto no file, and has no hard links."""
    with _on_fuse(tmp_path, "poor") as folder:
        yield folder


@pytest.fixture
def caseless_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a FUSE file system that takes ``a`` and ``A`` for one name."""
    with _on_fuse(tmp_path, "caseless") as folder:
        yield folder


@contextlib.contextmanager
def _on_fuse(place: Path, *kind: str) -> Iterator[Path]:
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("mounting a FUSE file system needs root and /dev/fuse")
    folder = place / "mounted"
    try:
        mounted = FuseMount(place / "behind", folder, *kind)
    except OSError as error:
        pytest.skip(str(error))  # a machine that has the device may forbid the mount all the same
    yield folder
    mounted.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with small_disk_at(tmp_path / "small", "4m") as folder:
        yield folder


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Shows a folder at another place where nothing can be written, not even by root."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()
        yield lambda folder: stack.enter_context(
            read_only_at(tmp_path / f"read-only-{next(numbers)}", folder)
        )


@pytest.fixture
def serve() -> Iterator[Callable[..., CannedServer]]:
    """Starts canned servers, and ends them."""
    servers: list[CannedServer] = []

    def start(answer: Callable[..., tuple[int, dict[str, str], bytes]]) -> CannedServer:
        servers.append(CannedServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzuriteServer]:
    """A running emulator of Azure Blob Storage."""
    if AzuriteServer.program() is None:
        pytest.skip(f"no Azurite here: {INSTALL}")
    server = AzuriteServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def no_azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own Azure configuration is seen."""
    for name in list(os.environ):
        if name.startswith("AZURE_") or name in ("IDENTITY_ENDPOINT", "MSI_ENDPOINT"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path / "absent-azure"))


@pytest.fixture
def az_uri(azurite: AzuriteServer, no_azure: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vault URI on Azurite that nobody has used; variables lead to it."""
    for name, value in azurite.env().items():
        monkeypatch.setenv(name, value)
    container = f"c-{uuid.uuid4().hex[:12]}"
    azurite.make_container(container)
    return f"az://{azurite.account}/{container}/some/where"


@pytest.fixture
def google(s3_server: SeaweedServer) -> Iterator[GoogleGateway]:
    """A double of Google Cloud Storage in front of SeaweedFS."""
    gateway = GoogleGateway(s3_server)
    yield gateway
    gateway.close()


@pytest.fixture
def no_google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own Google configuration is seen."""
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "GCE_METADATA", "CLOUDSDK_")) or name == "STORAGE_EMULATOR_HOST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "absent-gcloud"))


@pytest.fixture
def gs_uri(google: GoogleGateway, no_google: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vault URI on the double of Google Cloud Storage that nobody has used; variables lead to it."""
    monkeypatch.setenv("GOOGLE_BASE_URL", google.endpoint)
    monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN", "token-of-the-tests")
    return f"gs://{google.behind.bucket}/test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def hub(s3_server: SeaweedServer) -> Iterator[HubGateway]:
    """A double of the S3 gateway of Hugging Face Buckets in front of SeaweedFS."""
    gateway = HubGateway(s3_server)
    yield gateway
    gateway.close()


@pytest.fixture
def hf_uri(hub: HubGateway, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vault URI on the double of Hugging Face Buckets that nobody has used; variables lead to it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", hub.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", hub.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", hub.secret_key)
    return f"hf://buckets/{hub.namespace}/{hub.behind.bucket}/test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def the_hub() -> Iterator[HubServer]:
    """A double of the Hugging Face Hub with one private repository."""
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def hub_uri(the_hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A vault URI in a repository of the double of the Hub; variables lead to it."""
    monkeypatch.setenv("HF_ENDPOINT", the_hub.url)
    monkeypatch.setenv("HF_TOKEN", the_hub.token)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "absent-token"))
    return f"hf://{the_hub.repository.name}/some/where"
