"""Servers of others that speak S3, each started and ended here; their data are in memory or in a temporary folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tests.servers import die_with_parent, free_ports


def moto(port: int, folder: Path) -> list[str] | None:
    """The command of moto's server, which programs against AWS are tested with; None: it isn't installed."""
    if find_spec("moto") is None or find_spec("flask") is None:
        return None
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def s3rver(port: int, folder: Path) -> list[str] | None:
    """The command of s3rver (npm), which keeps objects in a folder; None: it isn't installed."""
    beside = Path(sys.prefix) / "s3rver" / "node_modules" / ".bin" / "s3rver"
    program = str(beside) if beside.exists() else shutil.which("s3rver")
    if program is None:
        return None
    options = ["--directory", str(folder), "--address", "127.0.0.1", "--port", str(port), "--silent"]
    return [program, *options, "--configure-bucket", OtherServer.bucket]


INSTALL = {
    moto: "pip install 'moto[server,s3]'",
    s3rver: "npm install --prefix VENV/s3rver s3rver, with VENV the environment that runs the tests",
}


class OtherServer:
    """One such server, with a bucket.

    Attributes:
        endpoint: its URL.
    """

    bucket = "vault"

    def __init__(self, command: Callable[[int, Path], list[str] | None]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vaultlayer-other-"))
        port = free_ports(1)[0]
        self.endpoint = f"http://127.0.0.1:{port}"
        asked = command(port, self.folder)
        assert asked is not None
        in_main = threading.current_thread() is threading.main_thread()
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                asked,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent if in_main else None,
            )
        deadline = time.monotonic() + 60
        while True:
            request = urllib.request.Request(f"{self.endpoint}/{self.bucket}", method="PUT")
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return
            except urllib.error.HTTPError as answer:
                answer.close()
                if answer.code in (403, 409):  # it wants a signature, or has the bucket: it is up
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise
            time.sleep(0.1)

    def close(self) -> None:
        """End it and remove its data."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def env(self) -> dict[str, str]:
        """AWS_* variables that lead a client here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "S3RVER",
            "AWS_SECRET_ACCESS_KEY": "S3RVER",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
