"""Type checkers know ``resume=``: the package says that it is typed."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from tests import ROOT
from vaultlayer_hf import Trainer

PROGRAM = """
from transformers import Seq2SeqTrainer, TrainingArguments
from vaultlayer_hf import Trainer, resumable

args = TrainingArguments("out")
Trainer(model=None, args=args, train_dataset=None, resume="s3://bucket/run").train()
Trainer(model=None, args=args, resune="s3://bucket/run")  # wrong


class Mine(Trainer):
    def more(self) -> int:
        return 1


Mine(model=None, args=args, resume=True).more()
Theirs = resumable(Seq2SeqTrainer)
Theirs(model=None, args=args, resume="s3://bucket/run").evaluate(max_length=3)
Theirs(model=None, args=args, resume=3.5)  # wrong
Theirs(nonsense=1)  # wrong
"""
COMMANDS = {
    "mypy": [sys.executable, "-m", "mypy", "--no-error-summary", "--no-incremental"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.slow  # a checker reads all of transformers and torch
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_resume_is_a_known_argument(checker: str, tmp_path: Path) -> None:
    """mypy and pyright accept resume= on Trainer, on subclasses and on resumable(…), and still find mistakes."""
    command = COMMANDS[checker]
    if shutil.which(command[0]) is None or (
        checker == "mypy" and subprocess.run([*command, "--version"], capture_output=True).returncode
    ):
        pytest.skip(f"{checker} isn't installed")
    (tmp_path / "script.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-transformers.*]\nfollow_imports = silent\n")
    # As if installed from a wheel: a type checker doesn't follow the import hook of an editable install.
    installed = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "script.py"], capture_output=True, text=True, cwd=tmp_path, timeout=280, env=installed
    )
    wrong = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
    found = {
        int(line.split("script.py:")[1].split(":")[0])
        for line in done.stdout.splitlines()
        if "error" in line and "script.py:" in line
    }
    assert found == wrong, done.stdout


@pytest.mark.skipif(
    transformers.__version__ < "5", reason="older ones have further arguments, on their way out"
)
def test_checkers_are_told_the_true_arguments() -> None:
    """What type checkers are told of Trainer's arguments is what the installed transformers takes."""
    source = inspect.getsource(sys.modules[Trainer.__module__])
    told = source[source.index("class Trainer(transformers.Trainer)") :]
    for name in inspect.signature(Trainer.__init__).parameters:
        assert f" {name}:" in told or name == "self"
