"""The commands are true: each is run, and prints what its text shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.readme.blocks import Block, of_kind


def place(block: Block) -> str:
    """A test's name: the file and the line."""
    return block.place


def test_shell_example_reaches_the_server(s3_server, no_aws, tmp_path) -> None:
    """The lines for a server of one's own lead `vl ls` to it, with nothing else set."""
    (block,) = of_kind("sh:server")
    code = (
        block.text.replace("http://127.0.0.1:8333", s3_server.endpoint)
        .replace("my-key", s3_server.access_key)
        .replace("my-secret", s3_server.secret_key)
        .replace("s3://bucket", f"s3://{s3_server.bucket}")
    )
    done = subprocess.run(
        ["bash", "-euc", code], capture_output=True, text=True, timeout=60, env=shell(tmp_path)
    )
    assert done.returncode == 1, done.stderr  # the server has answered: nothing is there yet
    assert "there is no vault" in done.stderr


def test_lifecycle_rule_is_one_that_a_server_takes(s3_server, s3_env) -> None:
    """The rule of the command for what killed uploads leave is accepted, and read back as it is."""
    import botocore.session
    from botocore.config import Config

    (block,) = of_kind("sh:lifecycle")
    words = shlex.split(block.text)
    operation, rules = words[2], json.loads(words[words.index("--lifecycle-configuration") + 1])
    client = botocore.session.Session().create_client(
        "s3", endpoint_url=s3_server.endpoint, config=Config(s3={"addressing_style": "path"})
    )
    where = {"Bucket": s3_server.bucket}
    getattr(client, operation.replace("-", "_"))(**where, LifecycleConfiguration=rules)
    try:
        assert client.get_bucket_lifecycle_configuration(**where)["Rules"] == rules["Rules"]
    finally:
        client.delete_bucket_lifecycle(**where)
        client.close()


@pytest.mark.parametrize("block", of_kind("console:command"), ids=place)
def test_console_example_prints_what_it_shows(block, trained) -> None:
    """The output that the README shows is what the command prints, but for times and sizes."""
    with tempfile.TemporaryDirectory(
        prefix="vl-"
    ) as folder:  # a short path: a long one folds lines elsewhere
        _prints_what_it_shows(block, trained, Path(folder))


def _prints_what_it_shows(block, trained, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "llama")
    shutil.copy(ROOT / "tests" / "run" / "insert" / "scripts" / "step_loop.py", tmp_path / "train.py")
    command, _, shown = block.text.partition("\n")
    assert command.startswith("$ vl ")
    done = subprocess.run(
        ["bash", "-euc", command[2:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=shell(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert same_for_all(done.stdout) == same_for_all(shown)


def shell(folder: Path) -> dict[str, str]:
    """Return an environment in which `vl` is on PATH, whether or not the package is installed."""
    script = folder / "bin" / "vl"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vaultlayer_hf.cli "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def same_for_all(text: str) -> str:
    """Take out what differs from run to run: times, sizes, digests, versions, losses, and the spaces that they need."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\d+(\.\d+)? (s|ms|min|h|days)\b", "SPAN", text)
    text = re.sub(r"(ahead of|behind) this machine", "OFF this machine", text)
    text = re.sub(r"(ok +disk:) \S+", r"\1 FOLDER", text)
    text = re.sub(r"\d+\.\d%", "SHARE", text)
    text = re.sub(r"[0-9a-f]{12}…", "DIGEST", text)
    text = re.sub(r"file:///\S+", "URI", text)
    text = re.sub(r"(claimed the vault on|token 1, on) \S+", r"\1 HOST", text)
    text = re.sub(r"\d+\.\d+\.\d+[\w.+]*", "VERSION", text)
    text = re.sub(r"(packaging) [\d.]+", r"\1 VERSION", text)
    text = re.sub(r"\d+\.\d{4} \(step", "LOSS (step", text)
    text = re.sub(r"\d+(\.\d+)? [kMGT]?B\b", "SIZE", text)
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.strip().splitlines())
