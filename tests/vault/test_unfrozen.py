"""A checkpoint folder that a dead writer had written and not frozen counts where it can be told to be whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vaultlayer_hf.state.layouts import torn_files
from vaultlayer_hf.vault import written
from vaultlayer_hf.vault.adoptable import PassedOver, find_complete
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.snapshot import list_files, local_folder
from vaultlayer_hf.vault.unfrozen import forget_unfrozen, freeze_unfrozen, note_unfrozen

TOKEN, SEQ, STEP = 3, 2, 500
LAST = "trainer_state.json"


class Place:
    """A disk with a checkpoint folder, and the folder of its writer's snapshots."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / f"checkpoint-{STEP}"
        self.writer = local_folder(output, "v1", TOKEN)
        self.folder.mkdir(parents=True)
        save_file({"weight": torch.arange(6.0)}, self.folder / "model.safetensors")
        torch.save({"step": 1}, self.folder / "optimizer.pt")

    def note(self, world_size: int = 1) -> None:
        """Have the writer say that it is writing this folder, and die behind its last file."""
        note_unfrozen(self.writer, self.folder, Manifest(STEP, TOKEN, SEQ, files=(), world_size=world_size))
        (self.folder / LAST).write_text(json.dumps({"best": 300}))

    def freeze(self, committed: int = 0) -> PassedOver | None:
        """Do what the next start does."""

        def unfinished(folder: Path, paths: set[str], manifest: Manifest) -> list[str]:
            return [name for name in (LAST,) if name not in paths] or torn_files(folder, paths)

        def best(folder: Path) -> int:
            return int(json.loads((folder / LAST).read_text())["best"])

        return freeze_unfrozen(self.writer, self.output, committed, unfinished, best)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A disk with a folder that is written but for its last file."""
    return Place(tmp_path / "out")


def test_what_was_written_whole_is_frozen_in_the_dead_ones_place(place: Place) -> None:
    """The snapshot is the dead writer's, with its files, its position and the best step that the folder names."""
    place.note()
    assert place.freeze() is None
    (found,), passed = find_complete(place.writer)
    assert (found.seq, found.name, found.noted, passed) == (SEQ, place.folder.name, True, [])
    assert list_files(found.files) == list_files(place.folder)
    assert (found.manifest.step, found.manifest.token, found.manifest.best_step) == (STEP, TOKEN, 300)
    assert place.freeze() is None  # there is a snapshot now: it isn't taken again
    assert find_complete(place.writer)[0][0].stats == found.stats


def cut(path: Path) -> None:
    """Leave half of a file, as a kill within its write does."""
    os.truncate(path, path.stat().st_size // 2)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "its last file isn't there": (lambda folder: (folder / LAST).unlink(), f"it lacks {LAST}"),
    "its last file is torn": (lambda folder: cut(folder / LAST), f"it lacks the end of {LAST}"),
    "a file was changed": (
        lambda folder: os.utime(folder / "optimizer.pt", ns=(1, 1)),
        "it was changed since: optimizer.pt",
    ),
    "a file was removed": (
        lambda folder: (folder / "optimizer.pt").unlink(),
        "files were added or removed since: optimizer.pt",
    ),
    "a link leads out": (
        lambda folder: (folder / "sub").symlink_to(folder.parent, target_is_directory=True),
        "is a link to a folder",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_can_not_be_told_to_be_whole_is_passed_over(place: Place, change: str) -> None:
    """Such a folder leaves no snapshot, and the reason is told."""
    act, reason = CHANGES[change]
    place.note()
    act(place.folder)
    passed = place.freeze()
    assert passed is not None
    assert (passed.name, passed.seq) == (place.folder.name, SEQ)
    assert reason in passed.reason
    assert find_complete(place.writer) == ([], [])


def test_another_boot_has_no_page_cache(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a restart of the machine what no disk has been asked for counts for nothing."""
    place.note()
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(written, "BOOT_ID", tmp_path / "boot_id")
    passed = place.freeze()
    assert passed is not None
    assert "restarted since" in passed.reason


def test_nothing_is_frozen_that_is_committed_given_up_or_gone(place: Place, tmp_path: Path) -> None:
    """A save that is committed, one that was given up, and one whose folder is gone are none to speak of."""
    assert place.freeze() is None
    place.note()
    assert place.freeze(committed=SEQ) is None
    forget_unfrozen(place.writer)
    assert place.freeze() is None
    place.note()
    os.rename(place.folder, tmp_path / "elsewhere")
    assert place.freeze() is None
    assert find_complete(place.writer) == ([], [])


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors"])
def test_another_ranks_torn_file_is_found(place: Place, name: str) -> None:
    """With several ranks the others may have been writing: a file without its end is passed over for that."""
    place.note(world_size=2)
    cut(place.folder / name)
    passed = place.freeze()
    assert passed is not None
    assert passed.reason == f"it lacks the end of {name}"


def test_sharded_state_is_whole_with_its_index(tmp_path: Path) -> None:
    """Shards count once their index is there, which comes when all ranks have written theirs."""
    shard, index = "optimizer_0/__0_0.distcp", "optimizer_0/.metadata"
    (tmp_path / "optimizer_0").mkdir()
    (tmp_path / shard).write_bytes(b"x")
    assert torn_files(tmp_path, [shard]) == [f"the end of {shard}"]
    (tmp_path / index).write_bytes(b"x")
    assert torn_files(tmp_path, [shard, index]) == []
