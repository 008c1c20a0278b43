"""A script with our own Trainer under `vl run`, by every launcher: its vault is followed and its ranks are watched."""

from __future__ import annotations

import sys

import pytest

from tests.run.programs import SCRIPT, finish, start, torchrun

OWN = "from vaultlayer_hf import Trainer\n" + SCRIPT.replace(" Trainer,", "").replace(
    "callbacks=[Fate()])", 'callbacks=[Fate()], resume="own")'
)
"""It brings transformers by importing our Trainer, as the shortest example of the README does."""
KILL = {"FATE": "7 os.kill(os.getpid(), 9)", "FATE_ONCE": "killed"}
LAUNCHERS = {
    "bash": ["bash", "-c", f"{sys.executable} train.py"],
    "torchrun": [*torchrun(2), "train.py"],
    "accelerate": [
        *(
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--num_processes",
            "2",
            "--multi_gpu",
            "train.py",
        )
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_own_trainer_is_followed(launcher: str, tmp_path) -> None:
    """The second attempt goes on, each rank is watched, and nobody says that nothing is kept."""
    (tmp_path / "train.py").write_text(OWN)
    ran = finish(start(tmp_path, *LAUNCHERS[launcher], **KILL), tmp_path)
    print(ran.err[-6000:])
    assert ran.code == 0
    assert "nothing is kept" not in ran.err
    assert ran.causes == ["killed", "finished"]
    for rank in (0, 1) if launcher in ("torchrun", "accelerate") else (0,):
        (train,) = ran.notes(2, "train", rank)
        assert train["vault"] == f"file://{tmp_path / 'own'}"
        assert train["micro_batch"] == 4
    assert ran.notes(1, "vault"), "what happened to its vault was noted"
