"""Azurite, Microsoft's emulator of Azure Blob Storage, started and ended here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

from tests.servers import die_with_parent, free_ports

INSTALL = "npm install --prefix VENV/azurite azurite, with VENV the environment that runs the tests"


class AzuriteServer:
    """One ``azurite-blob`` with containers made on demand.

    Attributes:
        account, key: of its only account; published by Microsoft, no secret.
        endpoint: URL of that account.
    """

    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vaultlayer-azurite-"))
        self.port = free_ports(1)[0]
        self.endpoint = f"http://127.0.0.1:{self.port}/{self.account}"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program() -> str | None:
        """The azurite-blob beside the environment that runs the tests, else the first on PATH; None: none."""
        beside = Path(sys.prefix) / "azurite" / "node_modules" / ".bin" / "azurite-blob"
        return str(beside) if beside.exists() else shutil.which("azurite-blob")

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = self.program()
        assert program is not None
        in_main = threading.current_thread() is threading.main_thread()
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    "--silent",
                    "--skipApiVersionCheck",
                    "--disableTelemetry",
                    "--location",
                    str(self.folder),
                    "--blobPort",
                    str(self.port),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent if in_main else None,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.make_container(f"ready-{uuid.uuid4().hex}")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise
            time.sleep(0.1)

    def close(self) -> None:
        """End it and remove its data."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_container(self, name: str) -> None:
        """Make a container; obstore can't."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in sorted(headers.items()))
        signed += f"/{self.account}/{self.account}/{name}\nrestype:container"
        headers["Authorization"] = f"SharedKey {self.account}:{self._signature(signed)}"
        request = urllib.request.Request(
            f"{self.endpoint}/{name}?restype=container",
            method="PUT",
            headers={**headers, "Content-Length": "0"},
        )
        with urllib.request.urlopen(request, timeout=5):
            pass

    def sas(self, container: str, permissions: str = "racwdl", seconds: float = 3600) -> str:
        """Return a shared access signature of a container (Azurite refuses batches to those of an account)."""
        until = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        version, protocol, place = "2018-11-09", "https,http", f"/blob/{self.account}/{container}"
        signed = [permissions, "", until, place, "", "", protocol, version, "c", "", "", "", "", "", ""]
        parts = {"sp": permissions, "se": until, "spr": protocol, "sv": version, "sr": "c"}
        return urllib.parse.urlencode({**parts, "sig": self._signature("\n".join(signed))})

    def _signature(self, signed: str) -> str:
        made = hmac.new(base64.b64decode(self.key), signed.encode(), hashlib.sha256)
        return base64.b64encode(made.digest()).decode()

    def env(self) -> dict[str, str]:
        """AZURE_* variables that lead a client here."""
        return {"AZURE_STORAGE_ENDPOINT": self.endpoint, "AZURE_STORAGE_KEY": self.key}
