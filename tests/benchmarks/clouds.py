"""Part i: upload and restore on Azurite, the emulator of Azure Blob Storage, beside Azure's own client and adlfs.

As part a otherwise. Azurite is one Node process that keeps blobs in files: it is slower than any client here. There is
no such part for Google: the double of the tests speaks the XML API that obstore uses, gcsfs speaks the JSON API alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import ours, transfer
from tests.benchmarks.clients import OURS, Client, each, files_of
from tests.benchmarks.measure import Row
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


CLIENTS = [
    Client(
        OURS,
        ("vaultlayer_hf.session.start.resume", "vaultlayer_hf.stores.objects.azure", "blake3"),
        ours.upload,
        ours.download,
    ),
    Client("azure-storage-blob", ("azure.storage.blob",), azure_upload, azure_download),
    Client("adlfs", ("adlfs",), adlfs_upload, adlfs_download),
]


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


def measure(work: Path, megabytes: int, rounds: int, say: transfer.Say) -> list[Row]:
    """Run the part in ``work``; return its rows, none where there is no Azurite."""
    if AzuriteServer.program() is None:
        say(f"part i is left out, there is no Azurite: {INSTALL}")
        return []
    return transfer.measure(
        work, megabytes, rounds, say, clients=CLIENTS, servers={"Azurite": azurite}, section="i"
    )
