"""Jobs of `vl run --on`: handed in as a person would, and what their runs have left."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.run.programs import SCRIPT, environment
from vaultlayer_hf import open_vault
from vaultlayer_hf.errors import ObjectNotFoundError


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def vl(folder: Path, *arguments: str, **more: str) -> Done:
    """Run `vl` in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "vaultlayer_hf.cli", *arguments],
        cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass
class Submitted:
    """A job that an engine has taken.

    Attributes:
        name: ``ENGINE:ID``.
        folder: where it was handed in.
        vault: its URI.
        env: variables that lead to the engine.
    """

    name: str
    folder: Path
    vault: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The engine's name for it."""
        return self.name.partition(":")[2]

    def vl(self, command: str, *arguments: str) -> Done:
        """Run a command of `vl` on it."""
        return vl(self.folder, command, self.name, *arguments, **self.env)

    def log(self) -> str:
        """What it has written, over all its starts."""
        return self.vl("logs").out

    @property
    def committed(self) -> int:
        """The newest committed step; 0: none."""
        try:
            with open_vault(self.vault) as vault:
                return max((commit.step for commit in vault.checkpoints()), default=0)
        except ObjectNotFoundError:
            return 0

    @property
    def finished(self) -> bool:
        """Whether the vault says that the run is over."""
        try:
            with open_vault(self.vault) as vault:
                return vault.state is not None and vault.state.finished is not None
        except ObjectNotFoundError:
            return False

    def until(self, holds: Callable[[], object], what: str, seconds: float = 150.0) -> float:
        """Wait; return for how many seconds. What the job has written is in the error."""
        begin = time.monotonic()
        while not holds():
            if time.monotonic() - begin > seconds:
                status = self.vl("status")
                raise AssertionError(
                    f"not {what} after {seconds:.0f} s:\n{status.out}{status.err}\n{self.log()[-6000:]}"
                )
            time.sleep(0.3)
        return time.monotonic() - begin


def hand_in(
    folder: Path,
    engine: str,
    vault: str,
    *options: str,
    command: tuple[str, ...] = (),
    engine_env: dict[str, str] | None = None,
    **more: str,
) -> Submitted:
    """Write a script into a folder and hand it in to an engine."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    done = vl(
        folder, "run", "--on", engine, "--vault", vault, "--no-spare", "--backoff", "0", *options, "--",
        *(command or (sys.executable, "train.py")), **(engine_env or {}), **more,
    )  # fmt: skip
    assert done.code == 0, done.err
    name = re.search(r"has taken it: vl status (\S+);", done.err)
    assert name is not None, done.err
    return Submitted(name[1], folder, vault, engine_env or {})


def weights(log: str) -> str:
    """Return the digest of the weights with which a run has ended."""
    return re.findall(r"WEIGHTS (\w+)", log)[-1]
