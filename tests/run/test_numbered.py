"""Which of a script's vaults a training has: the one of its output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaultlayer_hf.run.inside.numbered import Stage, numbered, pick_number, stage_of
from vaultlayer_hf.session.settings import Settings


def number_of(
    folder: str, *stages: Stage, used: set[int] | None = None, here: bool = True
) -> tuple[int, str | None]:
    """The number that is picked where these are the vaults, and the folder that may be another training's."""
    known = dict(enumerate(stages, 1))
    return pick_number(folder, used or set(), known.get, lambda _: here)


OVER, UNDER_WAY = Stage("out", True), Stage("out", False)


@pytest.mark.parametrize(
    ("folder", "stages", "used", "number"),
    [
        ("out", (), (), 1),
        ("out", (UNDER_WAY,), (), 1),
        ("out", (OVER,), (), 1),  # it stays over
        ("out2", (OVER,), (), 2),  # the first stage is skipped
        ("out2", (OVER, Stage("out2", False)), (), 2),
        ("out3", (OVER, Stage("out2", True)), (), 3),
        ("out2", (UNDER_WAY,), (), 1),  # a folder that is named anew: the run goes on
        ("other", (OVER, UNDER_WAY), (), 2),
        ("out2", (Stage(None, True),), (), 1),  # of an earlier release: by its number
        ("out", (Stage(None, True), Stage(None, False)), (1,), 2),
        ("out", (OVER, OVER), (1,), 2),  # two that share a folder: by their order
        ("out", (OVER,), (1,), 2),
        ("b", (Stage("a", False), Stage("b", False)), (), 2),
    ],
)
def test_the_vault_of_a_folder(
    folder: str, stages: tuple[Stage, ...], used: tuple[int, ...], number: int
) -> None:
    """Its own, else the first that may be its own; never one that is over in another folder."""
    assert number_of(folder, *stages, used=set(used))[0] == number


@pytest.mark.parametrize(
    ("then", "now", "here", "same"),
    [
        ("runs/2026-11-30_19-47-26", "runs/2026-12-01_08-00-00", True, True),
        ("runs/20261130-194726", "runs/20261201-080000", True, True),
        ("runs/Nov30_19-47-26", "runs/Dec01_08-00-00", True, True),
        ("/tmp/tmpab12cd_x", "/tmp/tmpzzzzzzzz", True, True),
        ("run-3f2a9c41", "run-00ffab12", True, True),
        ("job-1234567", "job-7654321", True, True),
        ("stage1", "stage2", True, False),
        ("lora-r16", "lora-r32", True, False),
        ("out/lr0.0001", "out/lr0.0003", True, False),
        ("out/lr0.000001", "out/lr0.000003", True, False),
        ("ctx1024", "ctx2048", True, False),
        ("seed-1234", "seed-5678", True, False),
        ("/old/disk/out", "/new/disk/out", False, True),
        ("/data/one/out", "/data/two/out", True, False),
        ("one/out", "two/out", False, False),
    ],
)
def test_folders_of_one_training(then: str, now: str, here: bool, same: bool) -> None:
    """What a script makes anew at each start, and where a machine has its disks, makes no other training.

    Where it may be another one, which goes on from a run that isn't over, its folder is told.
    """
    assert number_of(now, Stage(then, False), here=here) == (1, None if same else then)


def test_a_run_that_is_over_is_no_other_folders(tmp_path: Path) -> None:
    """A folder with another date has a vault of its own then; one that moved with its machine is still over."""
    over = Stage("runs/2026-11-30_19-47-26", True)
    assert number_of("runs/2026-12-01_08-00-00", over) == (2, None)
    assert number_of("/new/disk/out", Stage("/old/disk/out", True), here=False) == (1, None)


def test_its_own_folder_comes_before_one_that_is_alike() -> None:
    """Of vaults whose folders differ by a number alone each training has its own, whichever is asked for first."""
    stages = (Stage("job-1234567", False), Stage("job-7654321", False))
    assert number_of("job-7654321", *stages) == (2, None)
    assert number_of("job-1234567", *stages, used={2}) == (1, None)


def test_a_vault_that_isnt_there_is_not_made_by_a_look(tmp_path: Path) -> None:
    """None is there, and none afterwards; the settings of a later number name no fork."""
    settings = Settings(vault=str(tmp_path / "v"), fork="file:///elsewhere")
    assert stage_of(settings, 2) is None
    assert list(tmp_path.iterdir()) == []
    assert numbered(settings, 2) == Settings(vault=f"file://{tmp_path}/v-2", fork=None)
