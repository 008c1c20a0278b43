"""The guide to other machines is true: its commands are understood, and what it shows is what is handed in."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme.blocks import of_kind, table_after
from tests.readme.test_commands import shell

LINES = [line for block in of_kind("sh:engines") for line in block.text.splitlines()]
NEEDS = {"k8s": "kubernetes", "sky": "sky"}


def _run(line: str, folder: Path) -> str:
    """Run a command of the guide in a folder with a script; return what it prints, as it would be anywhere."""
    home = folder / "me"
    home.mkdir(exist_ok=True)
    (home / "train.py").write_text("")
    engine = line.split()[3]
    if engine in NEEDS and importlib.util.find_spec(NEEDS[engine]) is None:
        pytest.skip(f"needs the extra {engine}")
    done = subprocess.run(
        ["bash", "-euc", line], cwd=home, capture_output=True, text=True, timeout=60, env=shell(folder)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(sys.executable, "python").replace(str(home), "/home/me")


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[3])
def test_commands_are_understood(line: str, tmp_path: Path) -> None:
    """Each command makes something to hand in, which names the vault and runs `vl run` on the nodes."""
    text = _run(line.replace(" --vault", " --dry-run --vault"), tmp_path)
    assert "s3://bucket/my-run" in text
    assert "run --vault" in text.replace("\n", " ")


@pytest.mark.parametrize("block", of_kind("console:engine"), ids=lambda block: block.text.split()[4])
def test_what_is_shown_is_handed_in(block, tmp_path: Path) -> None:
    """What the guide shows of a job is what --dry-run prints."""
    command, _, shown = block.text.partition("\n")
    assert _run(command[2:], tmp_path) == shown


def test_secret_is_one_that_a_job_takes() -> None:
    """The command makes the Secret that the example of Kubernetes names, and its keys are the store's variables."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    (block,) = of_kind("sh:secret")
    words = [*shlex.split(block.text.replace("\\\n", "")), "--dry-run=client", "-o", "json"]
    made = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
    (job,) = (one.text for one in of_kind("console:engine") if one.text.startswith("$ vl run --on k8s"))
    assert f"--engine-option secret={made['metadata']['name']} " in job
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(made["data"])


def test_every_option_has_its_row() -> None:
    """The table of options knows each option of `vl run` that is for other machines."""
    from vaultlayer_hf.cli import submit

    text = Path(submit.__file__).read_text()
    known = set(re.findall(r'typer\.Option\(\s*"(--[a-z-]+)"', text)) - {
        "--on",
        "--engine-option",
        "--dry-run",
    }
    rows = {name for row in table_after("| option | Slurm") for name in re.findall(r"`(--[a-z-]+)", row[0])}
    assert known <= rows
