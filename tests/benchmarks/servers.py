"""Start and stop the two servers of the benchmark, on 127.0.0.1: a real SeaweedFS and the null sink."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import SeaweedServer, die_with_parent, free_ports

BUCKET = SeaweedServer.bucket


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables by which every client finds a server and its credentials."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": SeaweedServer.access_key,
        "AWS_SECRET_ACCESS_KEY": SeaweedServer.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Run a SeaweedFS with an S3 endpoint and credentials over ``folder``, which is removed at the end."""
    server = SeaweedServer(folder)
    try:
        server.start()
        yield server.endpoint
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def null_sink(folder: Path, seed: Path, *, modest: bool = False) -> Iterator[str]:
    """Run the null sink, which serves downloads from ``seed``; its log lies in ``folder``.

    ``modest`` gives it the lowest priority, since a real server would take nothing from this machine's cores.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.benchmarks.sink", str(port), str(seed)]
    with open(folder / "sink.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    if modest:
        os.setpriority(os.PRIO_PROCESS, process.pid, 19)  # threads that it starts from now on inherit it
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(endpoint, timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the sink did not start: {(folder / 'sink.log').read_text()}"
                    ) from None
                time.sleep(0.05)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)
