"""The clients that are compared, each used as its users use it: a folder goes up, the same folder comes down.

Every client is a pair of functions ``upload(folder, prefix)`` and ``download(prefix, folder)``; endpoint and
credentials come from AWS_* variables, ``prefix`` is a key prefix in the bucket. Libraries are imported by
``load``, so that a client that isn't installed is left out and imports aren't measured. Where a library moves
single files only, files go one after the other or four at a time, whichever was faster for it.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.servers import BUCKET

Move = Callable[[str, Path], None]


@dataclass(frozen=True)
class Client:
    """A client: its functions for one prefix and one local folder, and the modules that it needs."""

    name: str
    needs: tuple[str, ...]
    upload: Move
    download: Move

    def load(self) -> bool:
        """Import what the client needs; False where it isn't installed."""
        try:
            for name in self.needs:
                if name == "s5cmd":
                    if s5cmd() is None:
                        return False
                else:
                    importlib.import_module(name)
        except ImportError:
            return False
        return True


def files_of(folder: Path) -> list[str]:
    """Return the relative paths of a folder's files, the largest first."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(p.relative_to(folder)) for p in sorted(files, key=lambda p: -p.stat().st_size)]


def each(action: Callable[[str], Any], names: list[str], threads: int) -> None:
    """Call ``action`` with each name, on that many threads."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(action, names))


def boto_client() -> Any:
    """Return a client with path-style addresses, which servers without a domain name need."""
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(s3={"addressing_style": "path"}))


def listed(prefix: str) -> list[str]:
    """Return the names below a prefix, for clients without a folder download of their own."""
    import obstore

    names = [item["path"] for page in obstore.list(bare_store(), prefix) for item in page]
    return [name.removeprefix(prefix + "/") for name in names]


def boto3_upload(prefix: str, folder: Path) -> None:
    client = boto_client()
    each(lambda name: client.upload_file(str(folder / name), BUCKET, f"{prefix}/{name}"), files_of(folder), 1)


def boto3_download(prefix: str, folder: Path) -> None:
    client = boto_client()
    each(lambda name: client.download_file(BUCKET, f"{prefix}/{name}", str(folder / name)), listed(prefix), 1)


def crt_transfer(prefix: str, folder: Path, up: bool) -> None:
    """Move a folder with the CRT's transfer manager.

    The same engine as boto3's ``preferred_transfer_client="crt"``, set up as the AWS command line does it: boto3
    itself insists on TLS there, which neither server of the benchmark speaks.
    """
    from botocore.config import Config
    from botocore.session import Session
    from s3transfer.crt import (
        BotocoreCRTCredentialsWrapper,
        BotocoreCRTRequestSerializer,
        CRTTransferManager,
        create_s3_crt_client,
    )

    session = Session()
    credentials = BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
    where = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
    config = Config(s3={"addressing_style": "path"})
    serializer = BotocoreCRTRequestSerializer(session, {**where, "config": config})
    with CRTTransferManager(
        create_s3_crt_client("us-east-1", credentials, use_ssl=False), serializer
    ) as manager:
        for name in files_of(folder) if up else listed(prefix):
            if up:
                manager.upload(str(folder / name), BUCKET, f"{prefix}/{name}", None, [])
            else:
                manager.download(BUCKET, f"{prefix}/{name}", str(folder / name), None, [])


def s3fs_system() -> Any:
    import s3fs

    return s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], skip_instance_cache=True)


def s3fs_upload(prefix: str, folder: Path) -> None:
    s3fs_system().put(f"{folder}/", f"{BUCKET}/{prefix}/", recursive=True)


def s3fs_download(prefix: str, folder: Path) -> None:
    s3fs_system().get(f"{BUCKET}/{prefix}/", f"{folder}/", recursive=True)


def s5cmd() -> str | None:
    """Return the path of the s5cmd binary, or None."""
    return shutil.which("s5cmd", path=str(Path(sys.executable).parent)) or shutil.which("s5cmd")


def s5cmd_copy(source: str, target: str) -> None:
    binary = s5cmd()
    assert binary
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    subprocess.run([binary, "--endpoint-url", endpoint, "--log", "error", "cp", source, target], check=True)


def connector(prefix: str) -> Any:
    from s3torchconnector import S3Checkpoint, S3ClientConfig

    return S3Checkpoint(
        region="us-east-1",
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        s3client_config=S3ClientConfig(force_path_style=True),
    )


def connector_upload(prefix: str, folder: Path) -> None:
    checkpoint = connector(prefix)

    def put(name: str) -> None:
        with (
            open(folder / name, "rb") as source,
            checkpoint.writer(f"s3://{BUCKET}/{prefix}/{name}") as target,
        ):
            shutil.copyfileobj(source, target, 8 << 20)

    each(put, files_of(folder), 4)


def connector_download(prefix: str, folder: Path) -> None:
    checkpoint = connector(prefix)

    def get(name: str) -> None:
        with (
            open(folder / name, "wb") as target,
            checkpoint.reader(f"s3://{BUCKET}/{prefix}/{name}") as source,
        ):
            shutil.copyfileobj(source, target, 8 << 20)

    each(get, listed(prefix), 4)


def bare_store() -> Any:
    from obstore.store import S3Store

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    return S3Store(BUCKET, endpoint=endpoint, client_options={"allow_http": True})


def obstore_upload(prefix: str, folder: Path) -> None:
    import obstore

    store = bare_store()
    each(lambda name: obstore.put(store, f"{prefix}/{name}", folder / name), files_of(folder), 4)


def obstore_download(prefix: str, folder: Path) -> None:
    import obstore

    store = bare_store()

    def get(name: str) -> None:
        with open(folder / name, "wb") as target:
            for chunk in obstore.get(store, f"{prefix}/{name}").stream(min_chunk_size=8 << 20):
                target.write(chunk)

    each(get, listed(prefix), 4)


RIVALS = [
    Client("obstore bare", ("obstore",), obstore_upload, obstore_download),
    Client("s5cmd", ("s5cmd",), lambda p, f: s5cmd_copy(f"{f}/", f"s3://{BUCKET}/{p}/"),
           lambda p, f: s5cmd_copy(f"s3://{BUCKET}/{p}/*", f"{f}/")),
    Client("s3torchconnector", ("s3torchconnector",), connector_upload, connector_download),
    Client("boto3 + crt", ("boto3", "awscrt"), lambda p, f: crt_transfer(p, f, True),
           lambda p, f: crt_transfer(p, f, False)),
    Client("boto3", ("boto3",), boto3_upload, boto3_download),
    Client("s3fs", ("s3fs",), s3fs_upload, s3fs_download),
]  # fmt: skip
OURS = "vaultlayer_hf"
SIGNED, ENCRYPTED = f"{OURS} signed", f"{OURS} encrypted"
_DER = bytes.fromhex("302e020100300506032b657004220420") + bytes(range(32))
_SIGNER = f"-----BEGIN PRIVATE KEY-----\n{b64encode(_DER).decode()}\n-----END PRIVATE KEY-----\n"
"""An ed25519 key that anybody knows: what signing costs doesn't depend on it."""


def all_clients() -> list[Client]:
    """Return ours and the others, in the order in which a round takes them."""
    return [*_ours()[:1], *RIVALS]


def sealed_clients() -> list[Client]:
    """Return ours with neither key, with the one that signs, and with the one that encrypts."""
    return _ours()


def _ours() -> list[Client]:
    from tests.benchmarks import ours

    needs = (
        "vaultlayer_hf.session.start.resume",
        "vaultlayer_hf.stores.objects.s3",
        "blake3",
        "botocore.session",
    )
    ways = [Client(OURS, needs, ours.upload, ours.download)]
    for name, variable, value in (
        (SIGNED, "VAULTLAYER_SIGNING_KEY", _SIGNER),
        (ENCRYPTED, "VAULTLAYER_ENCRYPTION_KEY", "01" * 32),
    ):
        up, down = (ours.sealed(move, variable, value) for move in (ours.upload, ours.download))
        ways.append(Client(name, (*needs, "cryptography.hazmat.primitives.ciphers.aead"), up, down))
    return ways
