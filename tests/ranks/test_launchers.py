"""The real launchers: torchrun on one node and on two with networks and disks of their own, accelerate launch."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ranks.checks import live, resumed_from_newest, same_run
from tests.ranks.launch import Group
from tests.ranks.launchers import Launched, Network, networks

pytestmark = pytest.mark.slow


@pytest.fixture
def two_networks() -> Iterator[list[Network]]:
    """Two hosts: network namespaces, which take root; without it the test skips."""
    try:
        with networks(2) as made:
            yield made
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"network namespaces need root and iproute2: {error}")


def test_torchrun_killed_whole_and_one_rank(
    tmp_path: Path, reference: Callable[[str, int], Group], chance: random.Random
) -> None:
    """Under torchrun: the agent with all its ranks killed, then one rank alone; resumed on emptied disks, exactly."""
    launched = Launched(tmp_path, [tmp_path / "output"] * 2, [2], vault=str(tmp_path / "vault"), pace=0.2)
    first = launched.start()
    first.await_note(0, step=chance.randint(1, 5))
    first.kill()
    first.wait()
    shutil.rmtree(tmp_path / "output", ignore_errors=True)
    second = launched.start()
    second.await_note(1, step=chance.randint(6, 9))
    second.worker(1).kill()
    assert any(second.wait())
    shutil.rmtree(tmp_path / "output", ignore_errors=True)
    launched.start().succeed()
    same_run(reference("ddp", 2), launched.attempts)
    resumed_from_newest(launched.attempts)
    assert live(tmp_path / "vault")[-1].step == 10


@pytest.mark.parametrize("each", [False, True])
def test_two_nodes_with_networks_and_disks_of_their_own(
    tmp_path: Path,
    reference: Callable[[str, int], Group],
    chance: random.Random,
    two_networks: list[Network],
    each: bool,
) -> None:
    """Both nodes killed, then one; resumed on two empty disks, then on one new node while the other kept its files.

    With ``each`` off the nodes send each other what both load.
    """
    outputs = [tmp_path / "node-0", tmp_path / "node-1"]
    launched = Launched(
        tmp_path,
        outputs,
        [1, 1],
        two_networks,
        vault=str(tmp_path / "vault"),
        pace=0.2,
        save_on_each_node=each,
        passing=not each,
    )
    first = launched.start()
    first.await_note(0, event="commit")
    first.await_note(0, step=chance.randint(3, 5))
    first.kill()
    first.wait()
    for output in outputs:
        shutil.rmtree(output, ignore_errors=True)
    second = launched.start()
    second.await_note(1, step=chance.randint(5, 8))
    for rank in range(2):
        assert ("by way of other nodes" in second.events(rank, "restore")[0]) == (not each)
    gone = chance.randrange(2)
    second.kill(gone)
    deadline = time.monotonic() + 60
    while second.processes(1 - gone) and time.monotonic() < deadline:
        time.sleep(0.1)  # the other node's agent ends when its worker has lost the connection
    second.kill()
    second.wait()
    shutil.rmtree(outputs[gone], ignore_errors=True)
    launched.start().succeed()
    same_run(reference("ddp", 2), launched.attempts)
    resumed_from_newest(launched.attempts)
    assert live(tmp_path / "vault")[-1].step == 10


def test_accelerate_launch(
    tmp_path: Path, reference: Callable[[str, int], Group], chance: random.Random
) -> None:
    """``accelerate launch --multi_gpu --num_processes 2`` with use_cpu=True: two gloo ranks, killed and resumed."""
    launched = Launched(tmp_path, [tmp_path / "output"] * 2, [2], vault=str(tmp_path / "vault"), pace=0.2)

    def start() -> None:
        launch, spec = launched.write_spec()
        port = 20000 + random.SystemRandom().randrange(20000)
        launch.add(
            [
                *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
                *("--main_process_port", str(port), "--mixed_precision", "no", "--dynamo_backend", "no"),
                *("--num_machines", "1", "-m", "tests.ranks.train_ranks", str(spec)),
            ],
            {"HF_HOME": str(tmp_path / "hf"), "ACCELERATE_CONFIG_FILE": os.devnull},
        )

    start()
    launched.attempts[0].await_note(0, step=chance.randint(3, 8))
    launched.attempts[0].kill()
    launched.attempts[0].wait()
    shutil.rmtree(tmp_path / "output", ignore_errors=True)
    start()
    launched.attempts[1].succeed()
    same_run(reference("ddp", 2), launched.attempts)
    resumed_from_newest(launched.attempts)
