"""A real SIGKILL, then a start on an emptied output_dir: the same final weights, for every kind of Trainer."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.trainer.kit import STEPS, steps_of

TRAIN = "tests.trainer.programs:train"


def weights_in(output: str) -> str:
    """The digest that a program has printed; it must have trained all steps."""
    name, digest, step = output.strip().splitlines()[-1].split()
    assert (name, step) == ("WEIGHTS", str(STEPS))
    return digest


@pytest.mark.parametrize("kind", ["plain", "alone", "seq2seq", "lora", "sft", "sft_lora"])
def test_killed_and_resumed_to_the_same_weights(kind: str, tmp_path: Path, forks: ForkServer) -> None:
    """Killed at step 5 of 8 and started again on an empty disk, a run ends bit-identical to an unbroken one."""
    if "sft" in kind:
        pytest.importorskip("trl")
    if "lora" in kind:
        pytest.importorskip("peft")
    vault, here = str(tmp_path / "vault"), tmp_path / "out"
    unbroken = {"kind": kind, "output_dir": str(tmp_path / "unbroken"), "vault": str(tmp_path / "other")}
    expected = weights_in(forks.run(TRAIN, unbroken, tmp_path / "log-0").output)

    run = {"kind": kind, "output_dir": str(here), "vault": vault}
    killed = forks.run(TRAIN, {**run, "kill_at": 5, "committed": 4}, tmp_path / "log-1")
    assert killed.code == -signal.SIGKILL
    shutil.rmtree(here)

    done = forks.run(TRAIN, run, tmp_path / "log-2")
    assert "the run goes on from step 4" in done.errors
    assert weights_in(done.output) == expected
    assert steps_of(vault)[-1] == STEPS


def test_killed_on_s3(tmp_path: Path, forks: ForkServer, s3_uri: str, s3_env: dict[str, str]) -> None:
    """The same with the vault on a real S3 server."""
    unbroken = {"kind": "plain", "output_dir": str(tmp_path / "unbroken"), "vault": None}
    expected = weights_in(forks.run(TRAIN, unbroken, tmp_path / "log-0").output)
    first = {
        "kind": "plain",
        "output_dir": str(tmp_path / "a"),
        "vault": s3_uri,
        "kill_at": 5,
        "committed": 4,
    }
    assert forks.run(TRAIN, first, tmp_path / "log-1", env=s3_env).code == -signal.SIGKILL
    second = {"kind": "plain", "output_dir": str(tmp_path / "b"), "vault": s3_uri}
    assert weights_in(forks.run(TRAIN, second, tmp_path / "log-2", env=s3_env).output) == expected
    assert steps_of(s3_uri)[-1] == STEPS


def test_callback_alone_uploads_what_is_under_way_when_the_script_fails(
    tmp_path: Path, forks: ForkServer, s3_uri: str, s3_env: dict[str, str]
) -> None:
    """A script with the callback alone that ends with an exception still commits what it has saved before."""
    run = {"kind": "alone", "output_dir": str(tmp_path / "a"), "vault": s3_uri, "fail_at": 5}
    failed = forks.run(TRAIN, run, tmp_path / "log", env=s3_env)
    assert failed.code == 1
    assert "Boom" in failed.errors
    assert steps_of(s3_uri)[-1] == 4
