"""``VAULT@STEP`` goes back to that step once: the same command, started again, goes on from what came since."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vault.vaults import TrainersFiles, a_session, start, train
from vaultlayer_hf import NoSuchCheckpointError, open_vault
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training


def steps(vault: str) -> list[tuple[int, bool]]:
    """Return (step, left behind) of each live checkpoint, oldest first."""
    with open_vault(vault) as opened:
        return [(commit.step, commit.left_behind) for commit in opened.checkpoints()]


def test_the_same_command_goes_on_behind_what_it_went_back_to(tmp_path: Path) -> None:
    """Going back names what it leaves, keeps it through restarts, and happens once; a restart says where it goes on."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4, 5, keep_last=1, keep_every=1)
    back = train(f"{vault}@2", output, 3, 6, keep_last=1)
    assert "goes back to step 2 and leaves checkpoint-4 (log entry 3), checkpoint-5" in back.reasons("notice")
    again = train(f"{vault}@2", output, 8, keep_last=1)
    assert "went back to step 2 before, and goes on" in again.reasons("notice")
    assert f"once more, fork it: Settings(vault='a new one', fork='file://{vault}@2')" in again.reasons(
        "notice"
    )
    assert "step 6" in again.reasons("restore")
    plain = train(vault, output, 10, keep_last=1)
    assert "step 8" in plain.reasons("restore")
    assert [pair for pair in steps(vault) if pair[1]] == [(4, True), (5, True)]
    assert not plain.reasons("walk-back")


def test_another_step_is_gone_back_to_at_once(tmp_path: Path) -> None:
    """Another STEP than before goes back again, to the newest checkpoint of that step."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4, keep_last=None)
    train(f"{vault}@2", output, 3, 4, 6, keep_last=None)
    path, heard = start(f"{vault}@3", output, keep_last=None)
    assert path == output / "checkpoint-3"
    assert "leaves checkpoint-4 (log entry 6), checkpoint-6 (log entry 7) behind" in heard.reasons("notice")


def test_going_back_that_died_before_its_first_commit(tmp_path: Path) -> None:
    """Nothing committed since: the same command goes back again, and nothing of the other line is gone on from."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4)
    for _ in range(2):
        path, heard = start(f"{vault}@2", output)
        assert path == output / "checkpoint-2"
        assert "goes back to step 2" in heard.reasons("notice")


def test_a_step_can_be_gone_back_to_again_by_force(tmp_path: Path) -> None:
    """What restarts a training may have it go back to a step whatever was trained since."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4)
    train(f"{vault}@2", output, 6)
    session, _ = a_session(vault, output, at_step=2)
    training = Training(session)
    try:
        assert resume(session, TrainersFiles()) == output / "checkpoint-2"
    finally:
        training.close()


def test_a_step_of_an_empty_vault_is_an_error(tmp_path: Path) -> None:
    """A mistyped vault with @STEP starts nothing at step 0, and leaves no claim there."""
    vault = tmp_path / "typo"
    with pytest.raises(NoSuchCheckpointError, match="typo is empty, so it has no checkpoint of step 40"):
        start(f"{vault}@40", tmp_path / "output")
    assert not list(vault.rglob("*.json"))


def test_a_step_that_was_retired_since_is_still_the_one(tmp_path: Path) -> None:
    """The same command goes on also once retention has taken the step that it went back to."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4, keep_last=None)
    train(f"{vault}@2", output, 6, keep_last=1)
    train(f"{vault}@2", output, 8, 10, keep_last=1)
    assert 2 not in [step for step, _ in steps(vault)]
    again = train(f"{vault}@2", output, 12, keep_last=1)
    assert "went back to @2 before, and goes on" in again.reasons("notice")
    assert "step 10" in again.reasons("restore")


def test_the_best_is_gone_back_to_once(tmp_path: Path) -> None:
    """@best is what is the best at the first start, and the next one goes on, although another one is the best then."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4, best=2, keep_last=None)
    back = train(f"{vault}@best", output, 6, best=6, keep_last=None)
    assert "goes back to step 2 and leaves checkpoint-4" in back.reasons("notice")
    again = train(f"{vault}@best", output, 8, best=6, keep_last=None)
    assert "went back to step 2 before" in again.reasons("notice")
    assert "step 6" in again.reasons("restore")
    path, _ = start(f"{vault}@best", output, keep_last=None)
    assert path == output / "checkpoint-8"


def test_steps_that_were_trained_twice_are_named_once(tmp_path: Path) -> None:
    """What a vault has instead of a step that isn't there is listed by steps, also where the run has gone back."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4, keep_last=None)
    train(f"{vault}@2", output, 4, 6, keep_last=None)
    with pytest.raises(NoSuchCheckpointError, match=r"it has: 2, 4, 6[.]"):
        start(f"{vault}@5", output)


def test_a_best_that_nobody_has_named_is_an_error(tmp_path: Path) -> None:
    """A run without a metric has no best checkpoint, which is said with what there is."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4)
    with pytest.raises(NoSuchCheckpointError, match=r"knows no best checkpoint.*it has: 2, 4"):
        start(f"{vault}@best", output)


def test_a_mistyped_vault_is_answered_with_what_is_near_it(tmp_path: Path) -> None:
    """Beside a folder that is none the error names the vault that may have been meant."""
    train(str(tmp_path / "my-vault"), tmp_path / "output", 2)
    with pytest.raises(NoSuchCheckpointError, match=r"did you mean .*my-vault@2\?"):
        start(f"{tmp_path / 'my-valut'}@2", tmp_path / "other")
