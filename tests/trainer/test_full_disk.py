"""A full disk under output_dir costs the checkpoint that is being written, on all ranks alike, and never the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.trainer.kit import STEPS, Do, Patient, Recorder, big_model, judged_by, steps_of, trainer, weights
from vaultlayer_hf import VaultLayerCallback, open_vault, resumable

KINDS = ["resume", "callback"]


def _run(
    kind: str, out: Path, vault: Path, cls: Any = transformers.Trainer, **more: Any
) -> tuple[Any, Recorder]:
    """A Trainer whose checkpoints are 6.4 MB, with resume= or with the callback alone; and what it tells."""
    if kind == "resume":
        run = trainer(out, cls=resumable(cls), model=big_model(), resume=vault, **more)
        return run, Recorder(run)
    callback = VaultLayerCallback(vault)
    run = trainer(out, cls=cls, model=big_model(), **more)
    run.add_callback(callback)
    return run, Recorder(callback)


def _fill(disk: Path, left: int) -> None:
    """Leave so many bytes on a disk."""
    space = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"x" * (space.f_bavail * space.f_frsize - left))


def _same_as_unbroken(run: Any, folder: Path) -> bool:
    expected = trainer(folder, cls=transformers.Trainer, model=big_model())
    expected.train()
    return weights(run.model) == weights(expected.model)


def _verified(vault: Path) -> list[int]:
    with open_vault(vault) as opened:
        return [commit.step for commit in opened.checkpoints() if opened.verify(commit).ok]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [0, 2**20, 7 * 2**19])
def test_a_full_disk_costs_that_checkpoint(kind: str, left: int, small_disk: Path, tmp_path: Path) -> None:
    """No room for any of a checkpoint, for its model, or for its optimizer: that is said with what fills the disk,
    nothing torn is left, training goes on to the same weights, and the next save is committed."""
    vault, out = tmp_path / "vault", small_disk / "out"
    there: list[bool] = []

    def change(state: Any) -> None:
        if state.global_step == 0:
            _fill(small_disk, left)
        elif state.global_step == 3:
            there.append((out / "checkpoint-2").exists())
            (small_disk / "ballast").unlink()

    run, recorder = _run(kind, out, vault, callbacks=[Patient(vault), Do(on_step_begin=change)])
    assert run.train().global_step == STEPS
    assert there == [False]
    lost = recorder.of("abandon")
    assert [event.fields["step"] for event in lost] == [2]
    assert "the disk is full" in lost[0].message
    assert "elsewhere" in lost[0].message
    assert _verified(vault) == steps_of(vault) == [4, 6, 8]
    assert _same_as_unbroken(run, tmp_path / "unbroken")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_vault_holds_makes_room(kind: str, small_disk: Path, tmp_path: Path) -> None:
    """Where local copies of committed checkpoints fill the disk they are given up, and the save is done once more."""
    vault, out = tmp_path / "vault", small_disk / "out"
    fill = Do(on_step_begin=lambda state: state.global_step == 3 and _fill(small_disk, 2**20))
    run, recorder = _run(kind, out, vault, callbacks=[Patient(vault), fill])
    assert run.train().global_step == STEPS
    assert recorder.of("abandon") == []
    assert "written again" in recorder.of("trouble")[0].message
    assert _verified(vault) == steps_of(vault) == [4, 6, 8]  # the vault keeps three
    assert _same_as_unbroken(run, tmp_path / "unbroken")


def _full_at_4(disk: Path) -> Callable[[Any], None]:
    """What fills a disk ahead of the save of step 4, and makes room behind it."""

    def change(state: Any) -> None:
        if state.global_step == 3:
            _fill(disk, 0)
        elif state.global_step == 4:
            (disk / "ballast").unlink()

    return change


def _lost_best(recorder: Recorder) -> list[str]:
    return [event.message for event in recorder.of("notice") if "couldn't be saved" in event.message]


@pytest.mark.parametrize("kind", KINDS)
def test_a_best_checkpoint_that_is_lost_is_not_the_best(kind: str, small_disk: Path, tmp_path: Path) -> None:
    """Where there is no room for the best one, the best of those that could be saved is loaded, and that is said."""
    vault, out = tmp_path / "vault", small_disk / "out"

    more = judged_by(
        {2: 3.0, 4: 1.0, 6: 2.0, 8: 4.0}, Patient(vault), Do(on_step_begin=_full_at_4(small_disk))
    )
    run, recorder = _run(kind, out, vault, **more)
    assert run.train().global_step == STEPS
    assert [event.fields["step"] for event in recorder.of("abandon")] == [4]
    state = run.state
    assert (state.best_metric, state.best_global_step) == (2.0, 6)
    assert state.best_model_checkpoint == str(out / "checkpoint-6")
    assert _lost_best(recorder) == [
        "the best (loss 1 at step 4) couldn't be saved: load_best_model_at_end takes checkpoint-6 (loss 2)"
    ]
    assert weights(run.model) == weights(type(run.model).from_pretrained(out / "checkpoint-6"))


def test_a_better_one_than_that_which_is_lost_is_all_that_counts(small_disk: Path, tmp_path: Path) -> None:
    """A later checkpoint that is better than the lost one is loaded, and nothing is left to say."""
    vault = tmp_path / "vault"

    more = judged_by(
        {2: 3.0, 4: 2.0, 6: 1.0, 8: 4.0}, Patient(vault), Do(on_step_begin=_full_at_4(small_disk))
    )
    run, recorder = _run("resume", small_disk / "out", vault, **more)
    run.train()
    assert [event.fields["step"] for event in recorder.of("abandon")] == [4]
    assert run.state.best_global_step == 6
    assert _lost_best(recorder) == []


def test_no_checkpoint_at_all_is_said_of_the_best(small_disk: Path, tmp_path: Path) -> None:
    """Where no save had room, the model stays as the last step has left it, and that is said."""
    fill = Do(on_step_begin=lambda state: state.global_step == 0 and _fill(small_disk, 0))
    more = judged_by({2: 3.0, 4: 1.0, 6: 2.0, 8: 4.0}, fill)
    run, recorder = _run("resume", small_disk / "out", tmp_path / "vault", **more)
    run.train()
    assert run.state.best_model_checkpoint is None
    (said,) = _lost_best(recorder)
    assert "(loss 1 at step 4)" in said
    assert "the model stays as its last step has left it" in said


class _Mistaken(transformers.Trainer):
    """A Trainer whose save has a mistake in it."""

    def _save(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("a mistake of the script's")


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_in_a_save_is_raised(kind: str, tmp_path: Path) -> None:
    """An error in a save that isn't the disk's ends the training, as with the stock Trainer."""
    run, _ = _run(kind, tmp_path / "out", tmp_path / "vault", cls=_Mistaken)
    with pytest.raises(ValueError, match="a mistake of the script's"):
        run.train()
    run.callback_handler.pop_callback(VaultLayerCallback).close()
    assert steps_of(tmp_path / "vault") == []
    assert "_save_checkpoint" not in vars(run)
