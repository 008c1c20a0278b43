"""The benchmark itself works; what it measures is no test's business."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.benchmarks.google import parts_of


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CR LF", "LF"])
@pytest.mark.parametrize("data", [b"\r", b"\n", b"a\r\n", b"\r\n\r\n", b"", b"\n\nab\r"])
def test_the_double_of_google_keeps_every_byte_of_an_upload(data: bytes, end: bytes) -> None:
    """Whatever a file ends with, what comes back is that file: a checkpoint's last byte is a CR one time in 256."""
    head = end.join([b"", b"Content-Type: application/json", b"", b'{"name": "a"}', b"--==0=="])
    body = b"--==0==" + head + end.join([b"", b"Content-Type: a/b", b"", data, b"--==0==--"])
    assert parts_of('multipart/related; boundary="==0=="', body) == (b'{"name": "a"}', data)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_row(tmp_path: Path) -> None:
    """The one command measures every part against every installed client and leaves nothing behind."""
    if importlib.util.find_spec("s3fs") is None:
        pytest.skip("the other clients aren't installed: pip install -e '.[bench]'")
    work = tmp_path / "w"  # a path of more than 107 characters is too long for the server's socket
    work.mkdir()
    rows_file = tmp_path / "rows.json"
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        "--quick",
        "--folder",
        str(work),
        "--json",
        str(rows_file),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(rows_file.read_text())
    seen = {(row["section"], row["measure"].split(",")[-1].strip(), row["who"]) for row in rows}
    clients = ["vaultlayer_hf", "obstore bare", "s3fs", "boto3", "s3torchconnector"]
    assert {("a", server, who) for server in ("SeaweedFS", "null sink") for who in clients} <= seen
    assert {who for section, _, who in seen if section == "b"} == {
        "stock Trainer",
        "folder vault",
        "S3 vault",
    }
    assert {who for section, _, who in seen if section == "c"} >= {"thread + nice", "process"}
    assert len([row for row in rows if row["section"] == "d"]) == 4
    assert "vaultlayer_hf" in done.stdout  # the table was printed
    assert not list(work.iterdir())
