"""Run a program that knows nothing of this package: undisturbed, and under `vl run` with a SIGKILL in the middle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT
from tests.servers import die_with_parent

HERE = Path(__file__).parent
TRAINER = (
    *("--output_dir", "out", "--use_cpu", "--max_steps", "10", "--save_steps", "2", "--logging_steps", "1"),
    *("--per_device_train_batch_size", "2", "--report_to", "none", "--disable_tqdm", "True"),
    *("--learning_rate", "1e-2", "--seed", "5"),
)


@dataclass(frozen=True)
class Program:
    """A program and its arguments, run in a folder that holds what ``material.make`` makes.

    Attributes:
        name: how it is called in reports.
        words: behind ``python`` or the launcher.
        weights: the file with its final weights.
        script: copied into the folder; None where it is a module.
        insert: whether it has a loop of its own, which `vl init` edits first.
        die_at: the step at which a rank is killed.
    """

    name: str
    words: tuple[str, ...]
    weights: str
    script: Path | None = None
    insert: bool = False
    die_at: int = 7


SFT = Program(
    "trl.scripts.sft",
    (
        *("-m", "trl.scripts.sft", "--model_name_or_path", "llama", "--dataset_name", "sft", *TRAINER),
        *("--bf16", "False", "--gradient_checkpointing", "False", "--max_length", "64"),
    ),
    "out/model.safetensors",
)
LM = Program(
    "in the style of run_clm.py",
    (
        "run_lm.py",
        "--config_name",
        "llama",
        "--tokenizer_name",
        "llama",
        "--train_file",
        "text.txt",
        *TRAINER,
    ),
    "out/model.safetensors",
    HERE / "run_lm.py",
)
CHECKPOINTING = Program(
    "in the style of by_feature/checkpointing.py",
    ("checkpointing.py", "--train_file", "rows.pt", "--config", "bert"),
    "out/model.pt",
    HERE / "checkpointing.py",
    insert=True,
    die_at=10,
)
PROGRAMS = (SFT, LM, CHECKPOINTING)


@dataclass(frozen=True)
class Compared:
    """What came of it.

    Attributes:
        code: exit code of `vl run`.
        output: what it and the program said.
        same: whether the final weights are those of the undisturbed run, bit by bit.
        edited: whether the program's source was changed.
    """

    code: int
    output: str
    same: bool
    edited: bool


def compare(program: Program, ranks: int, folder: Path) -> Compared:
    """Run a program undisturbed and, in another folder, under `vl run`, where one rank is killed once."""
    from tests.others.material import make

    material = make(folder)
    calm, troubled = folder / "calm", folder / "troubled"
    for place in (calm, troubled):
        place.mkdir()
        for name in ("llama", "bert", "sft", "text.txt", "rows.pt"):
            (place / name).symlink_to(material / name)
        if program.script is not None:
            shutil.copy(program.script, place)
    command = [*launcher(ranks), *program.words]
    done = _run(command, calm)
    if done.returncode:
        raise AssertionError(f"the undisturbed program failed:\n{done.stdout}")
    vl = [sys.executable, "-m", "vaultlayer_hf.cli"]
    if program.insert:
        done = _run([*vl, "init", str(program.words[0]), "--vault", "vault", "--yes"], troubled)
        if done.returncode:
            raise AssertionError(f"vl init failed:\n{done.stdout}")
    fate = {
        "DIE_AT": str(program.die_at),
        "DIE_RANK": str(ranks - 1),
        "DIE_ONCE": str(troubled / "died"),
        "DIE_VAULT": str(troubled / "vault"),
    }
    vault = [] if program.insert else ["--vault", "vault"]
    done = _run([*vl, "run", *vault, "--backoff", "0.1", "--", *command], troubled, **fate)
    if not (troubled / "died").exists():
        raise AssertionError(f"nobody was killed:\n{done.stdout}")
    found = troubled / program.weights
    same = found.exists() and _same(found, calm / program.weights)
    edited = program.script is not None and (
        (troubled / program.script.name).read_bytes() != program.script.read_bytes()
    )
    return Compared(done.returncode, done.stdout, same, edited)


def launcher(ranks: int) -> list[str]:
    """Return what stands before a script or ``-m module``."""
    if ranks == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]


def _run(command: Sequence[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VAULTLAYER_")}
    path = [str(HERE / "fate"), str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return subprocess.run(
        command,
        cwd=folder,
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join(path),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "hf"),
            "TOKENIZERS_PARALLELISM": "false",
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        preexec_fn=die_with_parent,
    )


def _same(one: Path, other: Path) -> bool:
    import torch
    from safetensors.torch import load_file

    first, second = (
        (load_file if one.suffix == ".safetensors" else torch.load)(path) for path in (one, other)
    )
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
