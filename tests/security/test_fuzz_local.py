"""Whoever can write to an output folder: notes, seals and folders of any content are adopted only where they are whole.

And what is adopted, or isn't, never makes a start write, move or delete anything outside that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.mutations import fuzz, to_bytes, variants
from tests.vault.tools import Run, content_of, memory_store, objects
from tests.vault.vaults import tree
from vaultlayer_hf import VaultLayerError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing.faults import Fault, FaultStore
from vaultlayer_hf.vault.adoptable import find_adoptable, find_complete
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.workspace import workspace

pytestmark = pytest.mark.usefixtures("quiet")
STEPS = (100, 200)


class Disk:
    """A disk on which a process has died with a snapshot that wasn't committed, and the vault that it belongs to."""

    def __init__(self, work: Path, *, sealed: bool) -> None:
        store = memory_store()
        down = Fault.refused()
        refusing = FaultStore(
            store, lambda op: down if op.name == "upload" and "checkpoint-200" in op.key else None
        )
        run = Run(refusing, work / "output")
        run.resume()
        run.save(STEPS[0])
        run.wait()
        run.save(STEPS[1])
        self.folder = run.session.snapshots.relative_to(work)
        if sealed:
            while not list((work / self.folder).glob("*/manifest.json")):
                assert run.session.uploader is not None
                run.session.uploader.wait(0.01)
        run.close()
        self.objects = objects(store)
        self.work = work
        self.snapshot = next(
            path.relative_to(work) for path in (work / self.folder).iterdir() if path.is_dir()
        )
        seal, note = self.snapshot / "manifest.json", self.snapshot / "written.json"
        if not sealed:
            (work / seal).unlink(missing_ok=True)
        self.documents = {
            path: json.loads((work / path).read_bytes()) for path in (seal, note) if (work / path).exists()
        }
        self.contents = [content_of(work / "output" / f"checkpoint-{step}") for step in STEPS]

    def copy(self, scratch: Path) -> Store:
        """Lay the disk out anew below a folder, and return a vault for it."""

        def link_or_copy(source: str, target: str) -> None:
            # A note names inodes, so that a copy never counts; the notes themselves are overwritten in place.
            (os.link if "/files/" in source else shutil.copy2)(source, target)

        shutil.copytree(self.work, scratch, dirs_exist_ok=True, copy_function=link_or_copy)
        store = memory_store()
        for key, data in self.objects.items():
            store.write(key, data)
        return store

    def start(self, store: Store, scratch: Path) -> Path | None:
        """Start on it, check what came of it, and return what was gone on from; None: nothing."""
        outside = tree(scratch, without=(scratch / "output",))
        run = Run(store, scratch / "output")
        try:
            path = run.resume()
        except VaultLayerError:
            path = None
        finally:
            run.close()
        assert tree(scratch, without=(scratch / "output",)) == outside
        if path is not None:
            assert path.parent == scratch / "output"
            assert content_of(path) in self.contents, "something torn was gone on from"
            assert not any(one.is_symlink() for one in path.rglob("*"))
        return path


@pytest.fixture(scope="module", params=["sealed", "whole"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """A disk with a sealed snapshot, or with one that is only whole by its note."""
    return Disk(tmp_path_factory.mktemp("disk"), sealed=request.param == "sealed")


def test_an_honest_disk_is_gone_on_from(disk: Disk, tmp_path: Path) -> None:
    """Untouched, the snapshot is adopted: what the other tests see refused isn't refused for its place alone."""
    path = disk.start(disk.copy(tmp_path), tmp_path)
    assert path is not None
    assert path.name == "checkpoint-200"


@fuzz(20)
@given(data=st.data())
def test_no_note_or_seal_has_a_start_go_on_from_anything_else(disk: Disk, data: st.DataObject) -> None:
    """With any ``written.json``, ``manifest.json`` or ``unfrozen.json`` a start goes on from what was saved alone."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        store = disk.copy(scratch)
        path = data.draw(st.sampled_from(sorted(disk.documents)))
        document = data.draw(variants([disk.documents[path]]))
        target = data.draw(
            st.sampled_from([path, path, disk.folder / "unfrozen.json", disk.snapshot / "written.json"])
        )
        (scratch / target).write_bytes(data.draw(st.just(to_bytes(document)) | st.binary(max_size=200)))
        disk.start(store, scratch)


NAMES = st.sampled_from(
    ["1-..", "1-.", "1-_vaultlayer", "1-checkpoint-100", "2-checkpoint-200.x", "2-checkpoint-", "2-", "-checkpoint-200",
     "99999999999999999999-checkpoint-200", "\u0662-checkpoint-200", "2-checkpoint-\u0662", "2-checkpoint-200\n"]
)  # fmt: skip


@fuzz(12)
@given(name=NAMES)
def test_no_name_of_a_snapshot_becomes_another_folder(disk: Disk, name: str) -> None:
    """A snapshot under a name that isn't its own is never moved to where that name would lead."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        store = disk.copy(scratch)
        os.rename(scratch / disk.snapshot, scratch / disk.folder / name)
        (precious := scratch / "output" / "_vaultlayer" / "notes.txt").write_text("precious")
        disk.start(store, scratch)
        assert precious.read_text() == "precious"


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _link(path: Path) -> None:
    aside = path.parents[3] / "aside"  # not among the files
    os.rename(path, aside)
    path.symlink_to(aside)


def _device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    os.truncate(path, 2**40)  # sparse: takes no space, and all memory where it is read


PUT: dict[str, Callable[[Path], Any]] = {"pipe": _pipe, "link": _link, "device": _device, "huge": _huge}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", PUT)
@pytest.mark.parametrize("what", ["note", "seal", "file", "unfrozen", "adopting"])
def test_what_is_no_plain_file_is_never_read(disk: Disk, what: str, how: str, tmp_path: Path) -> None:
    """A pipe, a link, a device or a file of a terabyte in the place of one of ours neither hangs nor fills memory."""
    store = disk.copy(tmp_path)
    there = {
        "note": disk.snapshot / "written.json",
        "seal": disk.snapshot / "manifest.json",
        "file": disk.snapshot / "files" / "model.safetensors",
        "unfrozen": disk.folder / "unfrozen.json",
        "adopting": disk.folder / "adopting",
    }
    path = tmp_path / there[what]
    if not path.exists():
        path.write_bytes(b"{}")
    if how == "huge" and what == "file":
        pytest.skip(
            "its size is compared before it is read where there is a note, and it is hashed in pieces"
        )
    PUT[how](path)
    state = Log(store).last()[1]
    assert state is not None
    found, _ = find_adoptable([tmp_path / "output"], state.state)
    if what == "file":
        disk.start(store, tmp_path)
    elif what in ("note", "seal") and there[what] in disk.documents:
        other = disk.documents.keys() - {there[what]}
        assert len(found) <= len(other)  # the other of the two may still tell that it is whole


def test_a_snapshot_behind_a_link_is_none(disk: Disk, tmp_path: Path) -> None:
    """A folder that is reached by a link isn't adopted, whole as it may be: somebody else may change it at any time."""
    disk.copy(tmp_path)
    for inner in ("", "files"):
        path = tmp_path / disk.snapshot / inner
        aside = tmp_path / f"aside-{inner}"
        os.rename(path, aside)
        path.symlink_to(aside)
        assert find_complete(tmp_path / disk.folder) == ([], [])
        path.unlink()
        os.rename(aside, path)


def test_the_lock_truncates_no_file_behind_a_link(tmp_path: Path) -> None:
    """A link in the place of the lock isn't written through: the run goes on without a lock, and says so."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = workspace(tmp_path / "output")
    folder.mkdir(parents=True)
    (folder / "lock").symlink_to(precious)
    run = Run(memory_store(), tmp_path / "output")
    run.resume()
    run.close()
    assert precious.read_text() == "precious"
    assert any("can't be locked" in event.message for event in run.told)
