"""A vault copied to another store: whole or not there, wherever it is stopped; a run goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vault.vaults import content, start, train
from vaultlayer_hf import open_vault
from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError, SettingsError, StoreUnavailableError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.testing import Fault, FaultStore
from vaultlayer_hf.vault.reader.copy import copied_from, copy_vault


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A vault of two attempts, with a checkpoint that retention has taken."""
    vault = tmp_path / "source"
    train(str(vault), tmp_path / "one", 1, 2, keep_last=2)
    train(str(vault), tmp_path / "two", 3, keep_last=2)
    return vault


def same(source: Path, target: str) -> None:
    """The copy holds the checkpoints and the history of the first vault, under an id of its own, and all verify."""
    with open_vault(source) as one, open_vault(target) as other:
        assert one.state is not None
        assert other.state is not None
        assert [commit.step for commit in other.checkpoints()] == [2, 3]
        assert other.checkpoints() == one.checkpoints()
        assert other.state.vault_id != one.state.vault_id
        assert {entry.state.vault_id for entry in other.history()} == {other.state.vault_id}
        assert [(entry.number, entry.kind) for entry in other.history()] == [
            (entry.number, entry.kind) for entry in one.history()
        ]
        assert copied_from(other.history()[-1].detail) == one.uri
        assert all(other.verify(commit).ok for commit in other.checkpoints())
        assert not other.damage


def test_a_copy_is_a_vault_of_its_own(source: Path, tmp_path: Path) -> None:
    """Checkpoints, history and progress are whole; a run goes on from the copy, and the first vault doesn't change."""
    target, before = tmp_path / "target", content(source)
    counted: list[int] = []
    done = copy_vault(open_store(source, create=False), open_store(target), counted.append)
    same(source, str(target))
    assert sum(counted) == done.copied == sum(commit.bytes for commit in done.commits)
    resumed, _ = start(str(target), tmp_path / "three")
    assert resumed is not None
    assert resumed.name == "checkpoint-3"
    assert content(source) == before


def test_from_a_folder_to_s3_and_back(source: Path, s3_uri: str, tmp_path: Path) -> None:
    """The way over an object store gives the same files."""
    copy_vault(open_store(source), open_store(s3_uri))
    same(source, s3_uri)
    copy_vault(open_store(s3_uri), open_store(tmp_path / "back"))
    assert {path: data for path, data in content(source).items() if path.startswith("data/")} == {
        path: data for path, data in content(tmp_path / "back").items() if path.startswith("data/")
    }


@pytest.mark.parametrize("operations", ["create", pytest.param("", marks=pytest.mark.slow)])
def test_stopped_at_any_operation_it_goes_on(operations: str, source: Path, tmp_path: Path) -> None:
    """Wherever it is stopped there is no vault or a whole one, and the next call makes it whole."""
    recorder = FaultStore(open_store(tmp_path / "recorded"))
    copy_vault(open_store(source), recorder)
    chosen = [op.number for op in recorder.operations if not operations or op.name == operations][
        : 2 if operations else None
    ]
    assert len(chosen) == 2 if operations else len(chosen) > 20
    for number in chosen:
        for fault in (Fault.refused(), Fault.lost_answer()):
            target = tmp_path / f"{number}-{'lost' if fault.after else 'refused'}"
            store = FaultStore(open_store(target), {number: fault})
            try:
                copy_vault(open_store(source), store)
            except StoreUnavailableError:
                pass
            try:
                with open_vault(target) as half:
                    assert [commit.step for commit in half.checkpoints()] == [2, 3]
                    assert all(half.verify(commit).ok for commit in half.checkpoints())
            except ObjectNotFoundError:
                pass
            copy_vault(open_store(source), open_store(target))
            same(source, str(target))


def test_what_is_there_is_read_back(source: Path, tmp_path: Path) -> None:
    """A file that an earlier call left is kept if its digest holds, and sent again if it doesn't."""
    target = tmp_path / "target"
    first = FaultStore(open_store(target), lambda op: Fault.refused() if op.name == "create" else None)
    with pytest.raises(StoreUnavailableError):
        copy_vault(open_store(source), first)
    damaged = next(target.glob("data/*/*/optimizer.pt"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    done = copy_vault(open_store(source), open_store(target))
    assert done.copied == damaged.stat().st_size
    same(source, str(target))


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    """No copy onto another vault, onto one that has gone on, of nothing, or of a damaged checkpoint."""
    other = tmp_path / "other"
    train(str(other), tmp_path / "four", 7)
    before = content(other)
    with pytest.raises(SettingsError, match="another vault"):
        copy_vault(open_store(source), open_store(other))
    assert content(other) == before
    target = tmp_path / "target"
    copy_vault(open_store(source), open_store(target))
    train(str(source), tmp_path / "five", 4)
    with pytest.raises(SettingsError, match="gone on since"):
        copy_vault(open_store(source), open_store(target))
    with pytest.raises(ObjectNotFoundError):
        copy_vault(open_store(tmp_path / "nothing"), open_store(tmp_path / "to"))
    damaged = next(source.glob("data/*/checkpoint-4/optimizer.pt"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(CorruptError, match=r"optimizer\.pt"):
        copy_vault(open_store(source), open_store(tmp_path / "to"))
    with pytest.raises(ObjectNotFoundError):
        open_vault(tmp_path / "to")
