"""What the README says of `vl run`: its example is run, its table of causes compared with the code."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid

from tests.readme.blocks import of_kind, table_after
from tests.readme.test_commands import shell
from tests.run.programs import SCRIPT, environment
from vaultlayer_hf.run.decide.cause import Cause

KILL = """import time
from vaultlayer_hf import open_vault
while 6 not in [commit.step for commit in open_vault(os.environ["VAULTLAYER_VAULT"]).checkpoints()]:
    time.sleep(0.05)
os.kill(os.getpid(), 9)
"""
"""The end of the example's first attempt, once the checkpoint of step 6 is committed."""


def said(text: str) -> list[str]:
    """The lines that `vl run` itself says, without what differs from run to run: on a busy machine a start is cold."""
    lines = [line for line in text.splitlines() if line.startswith("[vl]") and "start is cold" not in line]
    return [re.sub(r"\d+", "N", re.sub(r"s3://\S+", "URI", line)) for line in lines]


def test_example_is_killed_and_goes_on(s3_server, s3_env, tmp_path) -> None:
    """The command, word for word but for the bucket and for the kill, says what the README shows."""
    (block,) = of_kind("console:run")
    command, _, shown = block.text.partition("\n")
    (tmp_path / "train.py").write_text(SCRIPT)
    code = command[2:].replace("s3://bucket", f"s3://{s3_server.bucket}/{uuid.uuid4().hex[:8]}")
    path = shell(tmp_path)["PATH"]
    fate = {"FATE": f"7 {KILL}", "FATE_ONCE": "killed"}
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(PATH=path, **fate),
    )
    assert done.returncode == 0, done.stderr
    # Whether an interpreter is ready ahead of the end of so short a run is the machine's business.
    assert [line for line in said(done.stderr) if "an interpreter is kept ready" not in line] == said(shown)


def test_table_of_causes_is_that_of_the_code() -> None:
    """Each cause has its row, and there is none that the code doesn't know."""
    names = [
        name for row in table_after("| cause | decision |") for name in re.findall(r"`([\w-]+)`", row[0])
    ]
    assert sorted(names) == sorted(cause.value for cause in Cause)
