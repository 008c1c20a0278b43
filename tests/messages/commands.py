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
    "doctor vault --save-every often", "run --grace long train.py", "init nothing.py", "run trian.py",
    "run -- ./train.py", "doctor S3://bucket", "doctor", "doctor vault --model big", "run", "run -- pyhton train.py",
    "run --valt vault train.py", "run --on slrum train.py", "run --vault s3:bucket/x train.py",
    "run --nodes 2 train.py", "run .", "init", "init train.txt", "pull vault full", "pull vault train.py",
    "pull vault missing/deep", "ls out", "ls out/checkpoint-4", "ls train.py", "ls empty", "status train.py",
    "status empty", "logs empty", "report vault --out missing/x.html", "report vault vaut", "push vault me",
    "push vault@best me/model", "pin vault", "copy vault vault", "copy vault full", "diff vault", "demo --steps few",
    "stop", r"ls C:\vault", "verify vault --step 9", "prune vault --keep-every 0 --dry-run",
    "archive vault --name a/b", "show vault@best", "pull vault@", "--verison",
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
        Path("empty").mkdir()
        Path("full").mkdir()
        Path("full", "notes.txt").write_text("mine")
        Path("out", "checkpoint-4").mkdir(parents=True)
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
