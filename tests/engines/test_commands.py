"""What a node runs: the command as it was given, under torchrun where there are several ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import vl
from tests.engines.test_requests import REQUEST
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import Gpus
from vaultlayer_hf.run.engines.jobs.command import Here, program, started_once

HERE = Here("$NODE", "$HEAD", "29400", "$JOB", "python")


def test_one_rank_is_started_as_it_is() -> None:
    """On one node without GPUs the command stays what it is, quoted for the shell."""
    assert program(REQUEST, HERE) == ["python", "train.py", "--lr", "'1 e'"]


def test_several_gpus_are_several_ranks() -> None:
    """A Python script on a node with GPUs gets a rank for each."""
    words = program(replace(REQUEST, gpus=Gpus(4)), HERE)
    assert words[:5] == ["python", "-m", "torch.distributed.run", "--nproc-per-node=4", "--standalone"]
    assert words[5:] == ["train.py", "--lr", "'1 e'"]


@pytest.mark.parametrize(
    "command", [["python", "-m", "pack", "x"], ["torchrun", "--nproc-per-node", "1", "-m", "pack", "x"]]
)
def test_several_nodes_find_each_other(command: list[str]) -> None:
    """On several nodes torchrun gets the number of nodes and the rendezvous, whoever has named it."""
    words = program(replace(REQUEST, command=command, nodes=3), HERE)
    assert words[:3] == ["python", "-m", "torch.distributed.run"]
    assert {"--nnodes=3", '--rdzv-endpoint="$HEAD:29400"', '--rdzv-id="$JOB"'} <= set(words)
    assert '--rdzv-conf="is_host=$(($NODE == 0))"' in words, "not guessed from the host's name"
    assert words[-3:] == ["-m", "pack", "x"]
    assert sum(word.startswith("--nproc") for word in words) == 1


@pytest.mark.parametrize(
    ("command", "torchrun", "rest"),
    [
        (["python", "-u", "train.py"], ["python", "-m"], ["train.py"]),
        (
            ["python", "-X", "dev", "-O", "t.py", "-u"],
            ["python", "-m"],
            ["--no-python", "python", "-X", "dev", "-O", "t.py", "-u"],
        ),
        (["/e/bin/python3", "-m", "pack"], ["/e/bin/python3", "-m"], ["-m", "pack"]),
        (["/e/bin/torchrun", "train.py"], ["/e/bin/torchrun", "--nproc-per-node=4"], ["train.py"]),
    ],
)
def test_the_interpreter_that_was_asked_for(command: list[str], torchrun: list[str], rest: list[str]) -> None:
    """Ranks are started by the environment that the command names by a path, and with the interpreter's own options."""
    words = program(replace(REQUEST, command=command, gpus=Gpus(4)), HERE)
    assert (words[:2], words[-len(rest) :]) == (torchrun, rest)


def test_one_process_for_several_gpus_is_said() -> None:
    """A command that isn't known to start a rank for each GPU is started as it is, and that is said."""
    asked = replace(REQUEST, gpus=Gpus(4), command=["bash", "run.sh"])
    assert program(asked, HERE) == ["bash", "run.sh"]
    assert "is started once on each node" in str(started_once(asked))
    for command in (["python", "-u", "train.py"], ["torchrun", "x.py"], ["accelerate", "launch", "x.py"]):
        assert started_once(replace(asked, command=command)) is None


def test_a_rendezvous_of_ones_own_is_kept() -> None:
    """Who has told torchrun where the nodes meet isn't told otherwise."""
    command = ["torchrun", "--nnodes=2", "--rdzv-endpoint=x:1", "train.py"]
    assert program(replace(REQUEST, command=command, nodes=2), HERE) == command


def test_another_launcher_on_several_nodes_is_refused() -> None:
    """A launcher that can't be told where the other nodes are is refused, not started on each node alone."""
    with pytest.raises(SettingsError, match="torchrun"):
        program(replace(REQUEST, command=["accelerate", "launch", "train.py"], nodes=2), HERE)


def test_names_and_arguments_with_odd_characters(tmp_path: Path) -> None:
    """A job's name is one that every engine takes; arguments reach the program as they were given."""
    (tmp_path / "my träin (2).py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    arguments = ["a b", "it's", '"$HOME"', "$(id)", "`id`", "a\nb", "", "*"]
    program = [sys.executable, "my träin (2).py", *arguments]
    done = vl("run", "--vault", "s3://b/x", "--dry-run", "--on", "slurm", "--", *program, cwd=tmp_path)
    assert "#SBATCH --job-name=vl-my-tr-in-2\n" in done.out, done.err
    start = done.out.partition("-- ")[2].partition(" &\nchild=")[0]
    ran = subprocess.run(["bash", "-c", start], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert json.loads(ran.stdout) == arguments, ran.stderr


def test_a_step_to_go_back_to_reaches_the_nodes(tmp_path: Path) -> None:
    """What stands behind the vault's @ is handed on, and isn't part of the vault's name."""
    (tmp_path / "train.py").write_text("")
    program = [sys.executable, "train.py"]
    done = vl(
        "run", "--vault", "s3://b/x@500", "--dry-run", "--on", "ray", "--json", "--", *program, cwd=tmp_path
    )
    assert "--vault s3://b/x@500" in done.out, done.err
    assert '"vault": "s3://b/x"' in done.out
