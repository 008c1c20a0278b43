"""Starting over in the same vault: what it held is kept under a name, and the next start begins at step 0, in words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vault.tools import claim, commit_step, entries, memory_store
from tests.vault.vaults import start, train
from vaultlayer_hf import FencedError, NoSuchCheckpointError, SettingsError, StoreError, open_vault
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.testing.model import VaultModel
from vaultlayer_hf.vault.reader.archive import make_archive, undo_archive
from vaultlayer_hf.vault.reader.pin import pin
from vaultlayer_hf.vault.reader.why import committed
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.tidy import tidy_vault


def test_the_next_start_begins_anew_and_what_was_there_stays(tmp_path: Path) -> None:
    """An archived vault begins at step 0, in words, on the old disk, too; a new run retires nothing of the archive."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 20, 40)
    with open_vault(vault) as opened:
        assert opened.archive() == "archive-1"
    path, heard = start(vault, output)
    assert path is None, "nothing of the archived run is gone on from, nor adopted from the disk"
    told = heard.reasons("fresh")
    assert "held up to step 40 was archived as archive-1, so the run begins anew at step 0" in told
    train(vault, output, 20, 30, keep_last=1)
    with open_vault(vault) as opened:
        found = [(commit.step, commit.archived) for commit in opened.checkpoints()]
        assert found == [(20, "archive-1"), (40, "archive-1"), (30, "")]
        assert all(opened.verify(commit).ok for commit in opened.checkpoints())
        with pytest.raises(SettingsError, match="has committed step 30: archive it, too"):
            opened.unarchive()
        assert opened.archive("second") == "second"
        assert opened.unarchive("archive-1") == "archive-1"
    path, heard = start(vault, output)
    assert path == output / "checkpoint-40"


def test_going_back_means_the_runs_own_step_and_leaves_no_archive_behind(tmp_path: Path) -> None:
    """With a newer archive beside it, @STEP is the run's own checkpoint, and what is archived isn't said to be left."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 20, 40)
    with open_vault(vault) as opened:
        own = opened.checkpoint(20).number
        opened.archive()
    train(vault, tmp_path / "second", 10, 20)
    with open_vault(vault) as opened:
        opened.archive()
        opened.unarchive("archive-1")
        assert opened.checkpoint(20).number == own
        found = committed(opened.history(), 20)
        assert found is not None
        assert found.number == own
    _, heard = start(str(tmp_path / "forked"), tmp_path / "fork", fork=f"{vault}@20")
    assert f"checkpoint-20 (log entry {own})" in heard.reasons("restore")
    path, heard = start(f"{vault}@20", tmp_path / "third")
    assert path == tmp_path / "third" / "checkpoint-20"
    assert f"checkpoint-20 (log entry {own})" in heard.reasons("restore")
    assert re.search(r"leaves checkpoint-40 \(log entry \d+\) behind", heard.reasons("notice"))
    with open_vault(vault) as opened:
        archived = [commit.step for commit in opened.checkpoints() if commit.archived == "archive-2"]
    assert archived == [10, 20]


def test_a_fork_that_starts_over_begins_as_the_fork_again(tmp_path: Path) -> None:
    """Archived, a vault that was forked into begins from the other vault's checkpoint again, not at step 0."""
    origin, vault, output = str(tmp_path / "origin"), str(tmp_path / "vault"), tmp_path / "output"
    train(origin, tmp_path / "other", 20)
    train(vault, output, 40, fork=origin)
    with open_vault(vault) as opened:
        opened.archive()
    path, heard = start(vault, output, fork=origin)
    assert path == output / "checkpoint-20"
    assert "begins as a fork of step 20" in heard.reasons("notice")


def test_who_writes_is_fenced_and_it_can_be_undone(tmp_path: Path) -> None:
    """An archive fences the writer and spares no file; taken back, the vault is as it was, pins included."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 10)
    commit_step(store, writer, tmp_path, 20, seq=2)
    pin(store, first, True)
    writer.append("finish", lambda state, number: state.done(20, {"loss": 0.5}), {"step": 20})
    before = entries(store)[-1].state
    files = len(list(store.list("data/")))
    made = make_archive(store)
    with pytest.raises(FencedError):
        writer.append("finish", lambda state, number: state.done(20, {}), {"step": 20})
    assert (made.state.newest, made.state.finished, made.state.best_step) == (None, None, None)
    later = claim(store)
    assert tidy_vault(store, later, Policy(last=1), set()) == []
    assert len(list(store.list("data/"))) == files
    after = undo_archive(store).state
    assert after == replace(before, token=after.token)
    model = VaultModel()
    for entry in entries(store):
        model.follow(entry)


def test_lost_answers_and_races_leave_one_archive(tmp_path: Path) -> None:
    """An answer that is lost, or a claim in between: one entry is made, and it archives what the other has done."""
    store = memory_store()
    writer = claim(store)
    commit_step(store, writer, tmp_path, 10)

    done: list[Operation] = []

    def plan(operation: Operation) -> Fault | None:
        if len(done) > 1 or operation.name != "create" or not operation.key.startswith("log/"):
            return None
        done.append(operation)
        if len(done) > 1:
            return Fault.lost_answer()
        commit_step(store, claim(store), tmp_path, 20)  # behind the look at the log, ahead of the entry
        return None

    patient = RetryingStore(FaultStore(store, plan), RetryPolicy(base=0.001))
    made = make_archive(patient, "one")
    assert [entry.kind for entry in entries(store)] == ["claim", "commit", "claim", "commit", "claim"]
    assert entries(store)[-1] == made
    assert [(commit.step, commit.archived) for commit in made.state.commits] == [(10, "one"), (20, "one")]


def test_what_cant_be_archived_is_said(tmp_path: Path) -> None:
    """Nothing there, archived already, a name that is taken, malformed or unknown: an error in words, no entry."""
    store = memory_store()
    with pytest.raises(StoreError, match="there is no vault"):
        make_archive(store)
    writer = claim(store)
    with pytest.raises(NoSuchCheckpointError, match="begins at step 0 as it is"):
        make_archive(store)
    commit_step(store, writer, tmp_path, 10)
    with pytest.raises(SettingsError, match="letters, digits"):
        make_archive(store, "a/b")
    with pytest.raises(NoSuchCheckpointError, match="has no archive to take back"):
        undo_archive(store)
    make_archive(store, "one")
    with pytest.raises(NoSuchCheckpointError, match="isn't archived already"):
        make_archive(store)
    commit_step(store, claim(store), tmp_path, 20)
    with pytest.raises(SettingsError, match="has an archive 'one' already"):
        make_archive(store, "one")
    with pytest.raises(NoSuchCheckpointError, match="no archive 'two'; it has: one"):
        undo_archive(store, "two")
    assert [entry.kind for entry in entries(store)] == ["claim", "commit", "claim", "claim", "commit"]
