"""Loops under the real launchers, two ranks, on a folder and on S3: killed, resumed on an empty disk."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import live, same_run
from tests.ranks.launch import Ranks
from tests.ranks.launchers import Launched
from tests.servers import free_ports

PROGRAM = "tests.loops.killed_loop"
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--master-port={port}"],
    "accelerate": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--main_process_port", "{port}", "--mixed_precision", "no", "--dynamo_backend", "no"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "form", "store"), [("torchrun", "steps", "folder"), ("accelerate", "accelerate", "s3")]
)
def test_two_ranks(
    forks: ForkServer,
    tmp_path: Path,
    chance: random.Random,
    s3_uri: str,
    s3_env: dict[str, str],
    launcher: str,
    form: str,
    store: str,
) -> None:
    """SIGKILL of the whole tree at a random step, the disk emptied, the same command again: bit-identical."""
    common = {"form": form, "steps": 10, "rows": 24}
    reference = Ranks(
        forks, tmp_path / "reference", [tmp_path / "stock"] * 2, program=f"{PROGRAM}:train", **common
    ).start()
    reference.succeed()
    vault = s3_uri if store == "s3" else str(tmp_path / "vault")
    launched = Launched(tmp_path, [tmp_path / "output"] * 2, [2], vault=vault, pace=0.2, **common)

    def start() -> None:
        launch, spec = launched.write_spec()
        words = [word.format(port=free_ports(1)[0]) for word in LAUNCHERS[launcher]]
        env = {"HF_HOME": str(tmp_path / "hf"), "ACCELERATE_CONFIG_FILE": os.devnull, **s3_env}
        launch.add([sys.executable, "-m", *words, "-m", PROGRAM, str(spec)], env)

    start()
    launched.attempts[0].await_note(0, step=chance.randint(3, 8))
    launched.attempts[0].kill()
    launched.attempts[0].wait()
    shutil.rmtree(tmp_path / "output", ignore_errors=True)
    start()
    launched.attempts[1].succeed()
    assert launched.attempts[1].started(0) in (2, 4, 6, 8)
    same_run(reference, launched.attempts)
    assert live(vault)[-1].step == 10
