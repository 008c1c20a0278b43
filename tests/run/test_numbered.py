"""Which of a script's vaults a training has: the one of its output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaultlayer_hf.run.inside.numbered import Stage, numbered, pick_number, same_folder, stage_of
from vaultlayer_hf.session.settings import Settings


def number_of(folder: str, *stages: Stage, used: set[int] | None = None, here: bool = True) -> int:
    """The number that is picked where these are the vaults."""
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
    assert number_of(folder, *stages, used=set(used)) == number


@pytest.mark.parametrize(
    ("then", "now", "here", "same"),
    [
        ("runs/2026-11-30_19-47-26", "runs/2026-12-01_08-00-00", True, True),
        ("runs/Nov30_19-47-26", "runs/Dec01_08-00-00", True, True),
        ("/tmp/tmpab12cd_x", "/tmp/tmpzzzzzzzz", True, True),
        ("run-3f2a9c41", "run-00ffab12", True, True),
        ("job-1234567", "job-7654321", True, True),
        ("stage1", "stage2", True, False),
        ("lora-r16", "lora-r32", True, False),
        ("/old/disk/out", "/new/disk/out", False, True),
        ("/data/one/out", "/data/two/out", True, False),
        ("one/out", "two/out", False, False),
    ],
)
def test_folders_of_one_training(then: str, now: str, here: bool, same: bool) -> None:
    """What a script makes anew at each start, and where a machine has its disks, makes no other training."""
    assert same_folder(then, now, lambda _: here) is same


def test_a_vault_that_isnt_there_is_not_made_by_a_look(tmp_path: Path) -> None:
    """None is there, and none afterwards; the settings of a later number name no fork."""
    settings = Settings(vault=str(tmp_path / "v"), fork="file:///elsewhere")
    assert stage_of(settings, 2) is None
    assert list(tmp_path.iterdir()) == []
    assert numbered(settings, 2) == Settings(vault=f"file://{tmp_path}/v-2", fork=None)
