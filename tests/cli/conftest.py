"""A real vault, written by a real training run, for the commands to look at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forks import ForkServer


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self):
        """What it printed, parsed."""
        return json.loads(self.out)


_forks: list[ForkServer] = []


@pytest.fixture(scope="session", autouse=True)
def _fork_server(forks: ForkServer) -> Iterator[None]:
    """Let ``vl`` fork."""
    _forks.append(forks)
    yield
    _forks.clear()


def vl(*arguments: str, cwd: Path | None = None, **environment: str) -> Done:
    """Run `vl` as a process of its own, as a person would; a forked one where the fork server runs."""
    variables = {**os.environ, "COLUMNS": "120", **environment}
    if _forks:
        with tempfile.TemporaryDirectory() as folder:
            call = {"arguments": list(arguments), "cwd": str(cwd or Path.cwd()), "environment": variables}
            outcome = _forks[0].run("tests.cli.forked:run", call, Path(folder), timeout=280)
            return Done(outcome.code, outcome.output, outcome.errors)
    done = subprocess.run(
        [sys.executable, "-m", "vaultlayer_hf.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env=variables,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, forks: ForkServer) -> Path:
    """A folder vault of a finished run with checkpoints at steps 20, 40 and 60. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    call = {"output": str(folder / "output"), "vault": str(folder / "vault")}
    done = forks.run("tests.cli.trained_run:train", call, folder, timeout=200)
    assert done.code == 0, done.errors
    return folder / "vault"


@pytest.fixture
def vault(trained, tmp_path) -> Path:
    """A copy of that vault, to damage."""
    shutil.copytree(trained, tmp_path / "vault")
    return tmp_path / "vault"
