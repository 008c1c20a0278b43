"""On every kind of store a Trainer that is killed goes on to the weights of an unbroken run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.trainer.kit import STEPS, steps_of
from tests.trainer.test_kill import TRAIN, weights_in

pytestmark = pytest.mark.slow

STORES = ["az_uri", "gs_uri", "hf_uri", "hub_uri"]
"""Fixtures that give the URI of an unused vault, and set the variables that lead to it."""


@pytest.mark.parametrize("store", STORES)
def test_killed_and_resumed(
    store: str, tmp_path: Path, forks: ForkServer, request: pytest.FixtureRequest
) -> None:
    """Killed at step 5 of 8 and started again on another disk, a run ends bit-identical to an unbroken one."""
    uri: str = request.getfixturevalue(store)
    program = "tests.stores.hub:train" if store == "hub_uri" else TRAIN
    env = dict(os.environ)
    unbroken = {"kind": "plain", "output_dir": str(tmp_path / "unbroken"), "vault": None}
    expected = weights_in(forks.run(TRAIN, unbroken, tmp_path / "log-0").output)
    first = {"kind": "plain", "output_dir": str(tmp_path / "a"), "vault": uri, "kill_at": 5, "committed": 4}
    assert forks.run(program, first, tmp_path / "log-1", env=env).code == -signal.SIGKILL
    second = {"kind": "plain", "output_dir": str(tmp_path / "b"), "vault": uri}
    done = forks.run(program, second, tmp_path / "log-2", env=env)
    assert "the run goes on from step 4" in done.errors
    assert weights_in(done.output) == expected
    assert steps_of(uri)[-1] == STEPS
