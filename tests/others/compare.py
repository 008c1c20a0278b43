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
from tests.others.material import FILES, make
from tests.others.programs import SCRIPTS, Program
from tests.servers import die_with_parent

FATE = Path(__file__).parent / "fate"
LIMIT = 280
"""Seconds that a program may take, within the 300 of a test."""


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

    @property
    def good(self) -> bool:
        """Whether it ended well with those weights."""
        return self.code == 0 and self.same


def compare(program: Program, ranks: int, folder: Path, *, empty: bool = False) -> Compared:
    """Run a program undisturbed and, in another folder, under `vl run`, where one rank is killed once.

    ``empty``: what it had written goes with it; the vault stays.
    """
    return run_killed(program, ranks, folder, run_plain(program, ranks, folder), empty=empty)


def run_plain(program: Program, ranks: int, folder: Path, *, limit: float = LIMIT) -> Path:
    """Run a program undisturbed; return the file with its final weights. Raises AssertionError, TimeoutExpired.

    Without anything of ours, two ranks on CPUs hang at their end once in some hundred runs: it is run once more then.
    """
    place = _place(program, folder, "calm")
    try:
        done = _run(_command(program, ranks), place, dict(program.variables), limit * 0.4)
    except subprocess.TimeoutExpired:
        place = _place(program, folder, "calm again")
        done = _run(_command(program, ranks), place, dict(program.variables), limit * 0.4)
    if done.returncode or not (place / program.weights).exists():
        raise AssertionError(f"the undisturbed program failed:\n{done.stdout}")
    return place / program.weights


def run_killed(
    program: Program, ranks: int, folder: Path, calm: Path, *, empty: bool, limit: float = LIMIT
) -> Compared:
    """Run it under `vl run`, where one rank is killed once; ``calm`` is what ``run_plain`` returned.

    ``limit``: seconds. Raises AssertionError, TimeoutExpired.
    """
    troubled = _place(program, folder, "emptied" if empty else "killed")
    vl = [sys.executable, "-m", "vaultlayer_hf.cli"]
    if program.insert:
        done = _run([*vl, "init", str(program.words[0]), "--vault", "vault", "--yes"], troubled, {}, limit)
        if done.returncode:
            raise AssertionError(f"vl init failed:\n{done.stdout}")
    fate = {
        "DIE_AT": str(program.die_at),
        "DIE_RANK": str(ranks - 1),
        "DIE_ONCE": str(troubled / "died"),
        "DIE_VAULT": str(troubled / "vault"),
        "DIE_EMPTY": str(troubled / program.weights.partition("/")[0]) if empty else "",
        **dict(program.variables),
    }
    vault = [] if program.insert else ["--vault", "vault"]
    done = _run(
        [*vl, "run", *vault, "--backoff", "0.1", "--", *_command(program, ranks)], troubled, fate, limit
    )
    if not (troubled / "died").exists():
        raise AssertionError(f"nobody was killed:\n{done.stdout}")
    found = troubled / program.weights
    same = found.exists() and _same(found, calm)
    edited = program.script is not None and (
        (troubled / program.script.name).read_bytes() != program.script.read_bytes()
    )
    return Compared(done.returncode, done.stdout, same, edited)


def _place(program: Program, folder: Path, name: str) -> Path:
    """Make a folder to run a program in; the material is made once for all of them."""
    material = folder / "material"
    if not material.exists():
        material.mkdir(parents=True)
        make(material)
    place = folder / name
    place.mkdir()
    for file in FILES:
        (place / file).symlink_to(material / file)
    for path in sorted(SCRIPTS.iterdir()):
        if path == program.script or path.suffix == ".yaml" or path.name == "rewards.py":
            shutil.copy(path, place)
    return place


def _command(program: Program, ranks: int) -> list[str]:
    if program.own:
        return list(program.words)
    if ranks == 1:
        return [sys.executable, *program.words]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, *program.words]


def _run(
    command: Sequence[str], folder: Path, variables: dict[str, str], limit: float
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VAULTLAYER_")}
    path = [str(FATE), str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return subprocess.run(
        command,
        cwd=folder,
        env={
            **environment,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")]),
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
        timeout=limit,
        preexec_fn=die_with_parent,
    )


def _same(one: Path, other: Path) -> bool:
    import torch
    from safetensors.torch import load_file

    first, second = (
        (load_file if one.suffix == ".safetensors" else torch.load)(path) for path in (one, other)
    )
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
