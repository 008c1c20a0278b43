"""What the command line says of commands that can't be meant, and of what isn't there."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from tests.messages.situations import begin, situation
from tests.vault.vaults import train
from vaultlayer_hf.cli import app

CHAPTER = "The command line"
WRONG = (
    "ls", "lss vault", "ls --jsn vault", "ls vaut", "show vault@3", "pull vaut", "pull vault@newst", "verify vault@3",
    "verify vault@2 --step 4", "logs vault --attempt 2", "logs vault@2", "logs", "status", "status vault@2",
    "report vault --out x.pdf", "prune vault", "prune vault --dry-run --keep-last few", "pin vault@3", "why vault@3",
    "diff vault@2 vault@3", "archive vaut", "archive vault@2", "archive vault --undo",
    "doctor vault --save-every often", "run --grace long train.py", "init nothing.py",
    "run trian.py", "run -- ./train.py", "doctor S3://bucket",
)  # fmt: skip


@functools.cache
def _trained() -> Path:
    """A vault with checkpoints of steps 2 and 4."""
    folder = Path(tempfile.mkdtemp(prefix="vl"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    train(str(folder / "vault"), folder / "out", 2, 4)
    return folder / "vault"


def _register(line: str) -> None:
    def say(folder: Path) -> list[str]:
        shutil.copytree(_trained(), "vault")
        begin()
        Path("train.py").write_text("print(1)\n")
        done = CliRunner().invoke(app, line.split(), env={"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"})
        return [f"exit code {done.exit_code}", *(text for text in done.output.splitlines() if text.strip())]

    def inside(folder: Path) -> list[str]:
        before = Path.cwd()
        os.chdir(folder)
        try:
            return say(folder)
        finally:
            os.chdir(before)

    situation(CHAPTER, f"vl {line}")(inside)


for _line in WRONG:
    _register(_line)
