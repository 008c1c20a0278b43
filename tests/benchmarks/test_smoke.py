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
