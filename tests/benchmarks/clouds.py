"""Parts i and j: upload and restore on what stands for other clouds here, beside those clouds' own clients.

As part a otherwise. Azurite, the emulator of Azure Blob Storage, is one Node process that keeps blobs in files. For
Google Cloud Storage nothing speaks both APIs, the XML API of obstore and the JSON API of Google's own clients: a small
server of ours does, in front of SeaweedFS (google.py). Both are slower than any client here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import ours, transfer
from tests.benchmarks.clients import OURS, Client, each, files_of
from tests.benchmarks.measure import ROOT, Row
from tests.servers import SeaweedServer, die_with_parent
from tests.stores.azurite import INSTALL, AzuriteServer

CONTAINER = "bench"
_AT_ONCE = 8
"""Parts of one file that Azure's own client moves at a time: as many as ours."""


def container() -> Any:
    """Return Azure's own client of the container."""
    from azure.storage.blob import ContainerClient

    return ContainerClient.from_connection_string(os.environ["BENCH_AZURE"], CONTAINER)


def azure_upload(prefix: str, folder: Path) -> None:
    client = container()

    def put(name: str) -> None:
        with open(folder / name, "rb") as source:
            client.upload_blob(f"{prefix}/{name}", source, overwrite=True, max_concurrency=_AT_ONCE)

    each(put, files_of(folder), 1)


def azure_download(prefix: str, folder: Path) -> None:
    client = container()

    def get(name: str) -> None:
        with open(folder / name.removeprefix(f"{prefix}/"), "wb") as target:
            client.download_blob(name, max_concurrency=_AT_ONCE).readinto(target)

    each(get, list(client.list_blob_names(name_starts_with=f"{prefix}/")), 1)


def adlfs_system() -> Any:
    from adlfs import AzureBlobFileSystem

    return AzureBlobFileSystem(connection_string=os.environ["BENCH_AZURE"], skip_instance_cache=True)


def adlfs_upload(prefix: str, folder: Path) -> None:
    adlfs_system().put(f"{folder}/", f"{CONTAINER}/{prefix}/", recursive=True)


def adlfs_download(prefix: str, folder: Path) -> None:
    adlfs_system().get(f"{CONTAINER}/{prefix}/", f"{folder}/", recursive=True)


def gcsfs_system() -> Any:
    from gcsfs import GCSFileSystem

    return GCSFileSystem(
        endpoint_url=os.environ["BENCH_GOOGLE"], token="anon", project="bench", skip_instance_cache=True
    )


def gcsfs_upload(prefix: str, folder: Path) -> None:
    gcsfs_system().put(f"{folder}/", f"{SeaweedServer.bucket}/{prefix}/", recursive=True)


def gcsfs_download(prefix: str, folder: Path) -> None:
    gcsfs_system().get(f"{SeaweedServer.bucket}/{prefix}/", f"{folder}/", recursive=True)


def google_bucket() -> Any:
    """Return Google's own client of the bucket; without its checksums, which the double gives none to compare with."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client as GoogleClient

    where = {"api_endpoint": os.environ["BENCH_GOOGLE"]}
    return GoogleClient("bench", AnonymousCredentials(), client_options=where).bucket(SeaweedServer.bucket)


def google_upload(prefix: str, folder: Path) -> None:
    bucket = google_bucket()
    each(
        lambda name: bucket.blob(f"{prefix}/{name}").upload_from_filename(str(folder / name), checksum=None),
        files_of(folder),
        4,
    )


def google_download(prefix: str, folder: Path) -> None:
    bucket = google_bucket()
    names = [blob.name.removeprefix(f"{prefix}/") for blob in bucket.list_blobs(prefix=f"{prefix}/")]
    each(
        lambda name: bucket.blob(f"{prefix}/{name}").download_to_filename(str(folder / name), checksum=None),
        names,
        4,
    )


def _ours(provider: str) -> Client:
    needs = ("vaultlayer_hf.session.start.resume", f"vaultlayer_hf.stores.objects.{provider}", "blake3")
    return Client(OURS, needs, ours.upload, ours.download)


AZURE = [
    _ours("azure"),
    Client("azure-storage-blob", ("azure.storage.blob",), azure_upload, azure_download),
    Client("adlfs", ("adlfs",), adlfs_upload, adlfs_download),
]
GOOGLE = [
    _ours("google"),
    Client("google-cloud-storage", ("google.cloud.storage",), google_upload, google_download),
    Client("gcsfs", ("gcsfs",), gcsfs_upload, gcsfs_download),
]


def clients_here() -> list[Client] | None:
    """Return the clients of the server that this process's variables lead to; None: those of part a."""
    return AZURE if "BENCH_AZURE" in os.environ else GOOGLE if "BENCH_GOOGLE" in os.environ else None


@contextmanager
def azurite(folder: Path) -> Iterator[dict[str, str]]:
    """Run an Azurite with an empty container; give the variables by which every client finds it."""
    server = AzuriteServer()
    server.start()
    try:
        server.make_container(CONTAINER)
        account = f"AccountName={server.account};AccountKey={server.key};BlobEndpoint={server.endpoint};"
        yield {
            **server.env(),
            "BENCH_VAULTS": f"az://{server.account}/{CONTAINER}",
            "BENCH_AZURE": f"DefaultEndpointsProtocol=http;{account}",
        }
    finally:
        server.close()


@contextmanager
def google_double(folder: Path) -> Iterator[dict[str, str]]:
    """Run the double of Google Cloud Storage over ``folder``; give the variables by which every client finds it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.google", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        endpoint = process.stdout.readline().strip()
        if not endpoint:
            raise RuntimeError("the double of Google Cloud Storage did not start")
        yield {
            "GOOGLE_BASE_URL": endpoint,
            "CLOUDSDK_AUTH_ACCESS_TOKEN": "token-of-the-tests",
            "BENCH_VAULTS": f"gs://{SeaweedServer.bucket}",
            "BENCH_GOOGLE": endpoint,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # else it asks another service of Google first
        }
    finally:
        process.stdin.close()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def measure_azure(work: Path, megabytes: int, rounds: int, say: transfer.Say) -> list[Row]:
    """Run part i in ``work``; return its rows, none where there is no Azurite."""
    if AzuriteServer.program() is None:
        say(f"part i is left out, there is no Azurite: {INSTALL}")
        return []
    return transfer.measure(
        work, megabytes, rounds, say, clients=AZURE, servers={"Azurite": azurite}, section="i"
    )


def measure_google(work: Path, megabytes: int, rounds: int, say: transfer.Say) -> list[Row]:
    """Run part j in ``work``; return its rows."""
    servers = {"double of Google Cloud Storage": google_double}
    return transfer.measure(work, megabytes, rounds, say, clients=GOOGLE, servers=servers, section="j")
