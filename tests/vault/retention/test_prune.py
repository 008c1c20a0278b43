"""Retire before delete, at every instant; orphans only after a grace, by the store's clock; never another's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.kit.any_files import AnyFiles
from tests.vault.tools import (
    ClockStore,
    claim,
    commit_step,
    content_of,
    forge_entry,
    memory_store,
    objects,
    snapshot_of,
    transfer_of,
    write_checkpoint,
)
from tests.vault.vaults import PARAMETERS, TrainersFiles, a_session, train
from vaultlayer_hf.errors import CorruptError, FencedError, StoreDeniedError, StoreUnavailableError
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import ObjectInfo, Store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.log import Log, Writer
from vaultlayer_hf.vault.manifest import encode_mark, read_manifest
from vaultlayer_hf.vault.reader.vault import Vault
from vaultlayer_hf.vault.restore.restore import restore
from vaultlayer_hf.vault.retention.prune import (
    ORPHAN_GRACE,
    clean_orphans,
    delete_folder,
    delete_retired,
    find_orphans,
    retire,
)
from vaultlayer_hf.vault.upload.sending import commit, send, write_part

DAY = 86400.0


class Died(BaseException):
    """What a process that is killed raises here: nothing catches it."""


def three_commits(store: Store, work: Path) -> tuple[Writer, list[Commit]]:
    """Claim a vault and commit three checkpoints whose folders' names begin alike."""
    writer = claim(store)
    used: set[str] = set()
    commits = []
    for seq, step in enumerate((10, 100, 1000), 1):
        commits.append(commit_step(store, writer, work, step, seq=seq, used=used))
    return writer, commits


def live(store: Store) -> list[int]:
    """Return the steps of the live commits, after checking that every one of them is whole."""
    with Vault(store) as vault:
        for item in vault.checkpoints():
            assert vault.verify(item).problems == []
        return [item.step for item in vault.checkpoints()]


def test_the_entry_comes_before_the_first_deletion(tmp_path: Path) -> None:
    """Nothing is deleted before the log says that it is retired, and the log says when it is gone."""
    store = FaultStore(memory_store())
    writer, commits = three_commits(store, tmp_path)
    begin = len(store.operations)
    retire(store, writer, commits[:2], {commits[0].number: "too old"})
    changes = [
        (operation.name, operation.key.split("/")[0])
        for operation in store.operations[begin:]
        if operation.name in ("create", "delete")
    ]
    assert changes[0] == ("create", "log")
    assert changes[-1] == ("create", "log")
    assert set(changes[1:-1]) == {("delete", "data")}
    assert live(store) == [1000]
    assert objects(store, "data/1/checkpoint-10/") == objects(store, "data/1/checkpoint-100/") == {}
    entry = Log(store).read(5)
    assert entry.detail == {"retired": {"2": "too old", "3": ""}}
    assert Log(store).read(6).state.retiring == ()


def recorded(tmp_path: Path) -> list[Operation]:
    """Return the operations of a retirement."""
    store = FaultStore(memory_store())
    writer, commits = three_commits(store, tmp_path / "recorded")
    begin = len(store.operations)
    retire(store, writer, commits[:2], {})
    return store.operations[begin:]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_operation_of_a_retirement(tmp_path: Path, when: str) -> None:
    """Wherever a retirement is cut short, live commits are whole, and the next writer finishes the deletion."""
    count = len(recorded(tmp_path))
    assert count > 10
    for number in range(1, count + 1):
        inner = memory_store()
        store = FaultStore(inner)
        writer, commits = three_commits(store, tmp_path / f"{number}")

        def die(operation: Operation) -> None:
            raise Died

        fault = Fault(before=die) if when == "before" else Fault(after=die)
        store.plan = {len(store.operations) + number: fault}
        with pytest.raises(Died):
            retire(store, writer, commits[:2], {})
        assert live(inner) in ([10, 100, 1000], [1000])
        following = claim(inner)
        delete_retired(inner, following)
        steps = live(inner)
        if 10 not in steps:
            assert {key.split("/")[2] for key in objects(inner, "data/")} == {"checkpoint-1000"}
        assert following.state.retiring == ()


def test_a_retirement_with_an_unknown_outcome_deletes_nothing(tmp_path: Path) -> None:
    """Where it isn't known whether the entry stands, nothing is deleted; the next time finds it and goes on."""
    store = FaultStore(memory_store())
    writer, commits = three_commits(store, tmp_path)
    before = objects(store, "data/")
    store.plan = {len(store.operations) + 2: Fault.lost_answer()}  # after the look at the last entry
    with pytest.raises(StoreUnavailableError):
        retire(store, writer, commits[:1], {})
    assert objects(store, "data/") == before
    assert live(store) == [100, 1000]
    retire(store, writer, [], {})  # doesn't know yet
    retire(store, writer, commits[1:2], {})
    assert live(store) == [1000]
    assert objects(store, "data/1/checkpoint-10/") == {}


def test_a_fenced_writer_deletes_nothing(tmp_path: Path) -> None:
    """A writer that learns at its retirement that it is fenced has deleted nothing."""
    store = memory_store()
    writer, commits = three_commits(store, tmp_path)
    claim(store)
    before = objects(store, "data/")
    with pytest.raises(FencedError):
        retire(store, writer, commits[:2], {})
    assert objects(store, "data/") == before
    assert live(store) == [10, 100, 1000]


def test_a_writer_that_is_fenced_while_it_deletes_does_no_harm(tmp_path: Path) -> None:
    """A claim in the middle of a deletion: both may delete what is retired, nobody touches what is live."""
    inner = memory_store()
    store = FaultStore(inner)
    writer, commits = three_commits(store, tmp_path)
    claimed: list[Writer] = []

    def intrude(operation: Operation) -> Fault | None:
        if operation.name == "delete" and not claimed:
            claimed.append(claim(inner))
            commit_step(inner, claimed[0], tmp_path, 2000, resumed_from=commits[-1].number)
        return None

    store.plan = intrude
    with pytest.raises(FencedError):
        retire(store, writer, commits[:2], {})
    assert live(inner) == [1000, 2000]
    delete_retired(inner, claimed[0])
    assert live(inner) == [1000, 2000]
    assert claimed[0].state.retiring == ()


def test_a_deletion_touches_no_neighbour(tmp_path: Path) -> None:
    """Deleting checkpoint-10 leaves checkpoint-100 and every other folder as they were."""
    store = memory_store()
    _, commits = three_commits(store, tmp_path)
    others = {
        key: data for key, data in objects(store).items() if not key.startswith("data/1/checkpoint-10/")
    }
    delete_folder(store, commits[0].folder)
    assert objects(store) == others


@pytest.mark.parametrize(
    "folder", ["", "data", "data/1", "log", "data/1/..", "data/1/a/b", "/data/1/a", "data//a"]
)
def test_only_a_checkpoint_folder_can_be_deleted(folder: str) -> None:
    """A name that is no checkpoint's folder deletes nothing."""
    store = memory_store()
    store.write("data/1/a/b", b"")
    store.write("log/x", b"")
    with pytest.raises(ValueError, match="no checkpoint folder"):
        delete_folder(store, folder)
    assert set(objects(store)) == {"data/1/a/b", "log/x"}


def test_a_live_checkpoint_is_never_deleted_whatever_the_log_says(tmp_path: Path) -> None:
    """A log that condemns the folder of a live commit, by mistake or malice, costs that checkpoint nothing."""
    store = memory_store()
    _, commits = three_commits(store, tmp_path)
    forge_entry(store, 4, {"state": {"retiring": [commits[2].folder]}})
    delete_retired(store, claim(store))
    assert live(store) == [10, 100, 1000]


@pytest.mark.parametrize(("read", "outcome"), [(1, "error"), (2, "error"), (3, "error"), (4, "whole")])
def test_a_reader_of_a_retired_checkpoint_gets_all_of_it_or_an_error(
    tmp_path: Path, read: int, outcome: str
) -> None:
    """A restore without a claim, of a checkpoint that is deleted before its n-th read, ends whole or not at all."""
    inner = memory_store()
    writer, commits = three_commits(inner, tmp_path)
    store = FaultStore(inner)
    manifest = read_manifest(store, commits[0])
    store.plan = {1 + read: Fault(before=lambda operation: retire(inner, writer, commits[:1], {}))}
    final = tmp_path / "final" / "checkpoint-10"
    if outcome == "error":
        with pytest.raises(CorruptError, match="missing"):
            restore(store, commits[0].folder, manifest, final, concurrency=1)
        assert not final.exists()
    else:
        restore(store, commits[0].folder, manifest, final, concurrency=1)
        assert content_of(final) == content_of(tmp_path / "t1-s1" / "checkpoint-10")


def test_what_was_sent_before_a_commit_vanished_is_sent_again(tmp_path: Path) -> None:
    """A file of the newest commit that is gone or has another size is sent, not copied."""
    store = memory_store()
    writer = claim(store)
    used: set[str] = set()
    first = commit_step(store, writer, tmp_path, 10, seq=1, used=used)
    store.delete([f"{first.folder}/config.json"])
    second = commit_step(store, writer, tmp_path, 20, seq=2, used=used, known=first)
    store.write(f"{second.folder}/config.json", b"{}")
    store.write(f"{second.folder}/sub/trainer_state.json", b"")
    third = commit_step(store, writer, tmp_path, 20, seq=3, used=used, known=second)
    with Vault(store) as vault:
        assert vault.verify(third).ok
        assert not vault.verify(second).ok


def test_unchanged_files_are_copied_inside_the_store(tmp_path: Path) -> None:
    """A file that the newest commit holds with the same path and digest isn't sent again, and each folder is whole."""
    store = FaultStore(memory_store())
    writer = claim(store)
    used: set[str] = set()
    first = commit_step(store, writer, tmp_path, 10, seq=1, used=used)
    begin = len(store.operations)
    second = commit_step(store, writer, tmp_path, 20, seq=2, used=used, known=first)
    copied = [operation.key for operation in store.operations[begin:] if operation.name == "copy"]
    assert copied == [f"{second.folder}/config.json"]
    delete_folder(store, first.folder)
    with Vault(store) as vault:
        assert vault.verify(second).ok


def test_parts_that_make_no_checkpoint_are_never_committed(tmp_path: Path) -> None:
    """Two nodes' lists that name one path twice end in an error, not in a commit that can't be resumed from."""
    store = memory_store()
    writer = claim(store)
    snapshot = snapshot_of(writer, write_checkpoint(tmp_path / "out", 10), tmp_path / "snapshots")
    transfer = transfer_of(writer, snapshot)
    send(store, snapshot, transfer)
    part = write_part(store, snapshot, transfer, 0)
    twice = snapshot.manifest.__class__(step=10, token=writer.token, seq=1, files=(*part, part[0]))
    with pytest.raises(CorruptError, match="twice"):
        commit(store, writer, twice, transfer, resumed_from=None)
    assert live(store) == []
    assert not transfer.committing


# Orphans -----------------------------------------------------------------------------------------------


def info(key: str, modified: float) -> ObjectInfo:
    """Return what a store would say of an object."""
    return ObjectInfo(key, 1, None, modified)


def test_orphans_are_old_unchanged_marked_and_of_an_older_token() -> None:
    """Only marked folders of older tokens that no entry names, whose youngest object is past the grace, are orphans."""
    now = 10 * DAY
    found = [
        info("data/3/checkpoint-1/a", 0.0),
        info("data/3/checkpoint-1/.vault/upload.json", 1.0),
        info("data/3/checkpoint-2.7/.vault/manifest.json", 0.0),
        info("data/3/checkpoint-3/a", 0.0),
        info("data/3/checkpoint-3/.vault/upload.json", now - DAY),  # exactly the grace: not yet
        info("data/3/checkpoint-4/.vault/upload.json", 0.0),
        info("data/3/checkpoint-5/.vault/upload.json", 0.0),
        info("data/3/checkpoint-6/a", 0.0),
        info("data/3/checkpoint-6/upload.json", 0.0),
        info("data/3/checkpoint-6/sub/.vault/upload.json", 0.0),
        info("data/3/checkpoint-7-best/.vault/upload.json", 0.0),
        info("data/5/checkpoint-8/.vault/upload.json", 0.0),
        info("data/7/checkpoint-9/.vault/upload.json", 0.0),
        info("data/x/checkpoint-9/.vault/upload.json", 0.0),
        info("data/3/file", 0.0),
        info("log/00000000000000000001.json", 0.0),
        info("notes/3/checkpoint-9/.vault/upload.json", 0.0),
    ]
    live = {"data/3/checkpoint-4", "data/3/checkpoint-5"}
    assert [item.folder for item in find_orphans(found, 5, live, now, DAY)] == [
        "data/3/checkpoint-1",
        "data/3/checkpoint-2.7",
    ]


@pytest.fixture
def clock() -> ClockStore:
    """A store whose clock the test sets."""
    return ClockStore(memory_store())


def orphan(store: Store, writer: Writer, work: Path, step: int = 50) -> str:
    """Upload a checkpoint and never commit it; return its folder."""
    snapshot = snapshot_of(
        writer, write_checkpoint(work / f"orphan-{writer.token}-{step}", step), work / "snaps"
    )
    transfer = transfer_of(writer, snapshot)
    send(store, snapshot, transfer)
    return transfer.folder


def folders(store: Store) -> set[str]:
    """Return the checkpoint folders that hold anything."""
    return {"/".join(key.split("/")[:3]) for key in objects(store, "data/")}


def test_orphans_go_after_the_grace_by_the_stores_clock(clock: ClockStore, tmp_path: Path) -> None:
    """An orphan stays through the grace and goes after it, by the clock of the store, whatever this machine's says."""
    old = claim(clock)
    left = orphan(clock, old, tmp_path)
    writer = claim(clock)
    kept = commit_step(clock, writer, tmp_path, 100).folder
    mine = orphan(clock, writer, tmp_path, 60)
    clock.time += ORPHAN_GRACE
    assert clean_orphans(clock, writer) == []
    clock.time += 1
    assert clean_orphans(clock, writer) == [left]
    assert folders(clock) == {kept, mine}
    assert objects(clock, "probe/") == {}


def test_an_upload_that_goes_on_is_left_alone(clock: ClockStore, tmp_path: Path) -> None:
    """A zombie that still uploads keeps its folder from being an orphan; its commit is refused all the same."""
    old = claim(clock)
    left = orphan(clock, old, tmp_path)
    writer = claim(clock)
    clock.time += 10 * DAY
    clock.write(f"{left}/late", b"x")
    assert clean_orphans(clock, writer) == []
    assert left in folders(clock)


def test_nothing_live_or_retired_is_an_orphan(clock: ClockStore, tmp_path: Path) -> None:
    """However old, an earlier writer's commits stay, and what is retired is left to its own deletion."""
    old, commits = three_commits(clock, tmp_path)

    def stop(keys: Iterable[str]) -> None:
        raise Died

    real: Callable[[Iterable[str]], None] = clock.delete
    clock.delete = stop  # type: ignore[method-assign]
    with pytest.raises(Died):
        retire(clock, old, commits[:1], {})
    clock.delete = real  # type: ignore[method-assign]
    clock.time += 1000 * DAY
    writer = claim(clock)
    before = folders(clock)
    assert clean_orphans(clock, writer) == []
    assert folders(clock) == before
    assert live(clock) == [100, 1000]


def test_a_fenced_writer_cleans_nothing_of_a_newer_one(clock: ClockStore, tmp_path: Path) -> None:
    """A writer that doesn't know yet that it is fenced leaves newer tokens' folders alone, whatever their age."""
    old = claim(clock)
    commit_step(clock, old, tmp_path, 100)
    new = claim(clock)
    uploading = orphan(clock, new, tmp_path)
    committed = commit_step(clock, new, tmp_path, 200).folder
    clock.time += 1000 * DAY
    assert clean_orphans(clock, old) == []
    assert {uploading, committed} <= folders(clock)


OWN = {
    "a data set": {"raw/x.txt": b"x"},
    "a file of its own": {"notes": b"x"},
    "a folder that is named as ours are": {"checkpoint-70/model.safetensors": b"x"},
    "another's marks": {
        "checkpoint-70/.vault/upload.json": b"{}",
        "checkpoint-70/.vault/manifest.json": b"[]",
    },
}


@pytest.mark.parametrize("files", OWN.values(), ids=OWN)
def test_a_persons_own_data_is_never_an_orphan(
    clock: ClockStore, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """What a person keeps beside a vault, laid out as a checkpoint or not, stays for ever; what we left there goes."""
    old = claim(clock)
    left = orphan(clock, old, tmp_path)
    for name, data in files.items():
        clock.write(f"data/1/{name}", data)
    clock.time += 1000 * DAY
    assert clean_orphans(clock, claim(clock)) == [left]
    assert objects(clock, "data/") == {f"data/1/{name}": data for name, data in files.items()}


@pytest.mark.parametrize(
    "copy", ["data/1/checkpoint-50.2", "data/2/checkpoint-60", "data/1/checkpoint-60-best"]
)
def test_a_persons_copy_of_a_checkpoint_is_never_an_orphan(
    clock: ClockStore, tmp_path: Path, copy: str
) -> None:
    """A checkpoint's folder that a person has copied, with mark and manifest, under another name or number stays."""
    old = claim(clock)
    kept = commit_step(clock, old, tmp_path, 60)
    if copy == "data/1/checkpoint-50.2":
        clock.delete([f"{kept.folder}/.vault/manifest.json"])  # the mark alone says where it belongs
    for key in objects(clock, f"{kept.folder}/"):
        clock.copy(key, copy + key.removeprefix(kept.folder))
    claim(clock)
    clock.time += 1000 * DAY
    before = objects(clock, "data/")
    assert clean_orphans(clock, claim(clock)) == []
    assert objects(clock, "data/") == before


def test_an_orphan_whose_deletion_was_cut_short_goes_later(clock: ClockStore, tmp_path: Path) -> None:
    """Wherever the deletion of an orphan is cut short, the next run still knows it for ours."""
    for number in range(1, 5):
        old = claim(clock)
        left = orphan(clock, old, tmp_path / str(number))
        clock.time += 1000 * DAY
        writer = claim(clock)
        deletions = [number]

        def plan(operation: Operation, deletions: list[int] = deletions) -> Fault | None:
            if operation.name != "delete" or not operation.key.startswith("data/"):
                return None
            deletions[0] -= 1
            return Fault.refused() if deletions[0] == 0 else None

        clock.plan = plan
        with pytest.raises(StoreUnavailableError):
            clean_orphans(clock, writer)
        clock.plan = {}
        assert clean_orphans(clock, writer) == [left]
        assert objects(clock, "data/") == {}


def test_a_run_beside_a_persons_data_leaves_it(tmp_path: Path) -> None:
    """A vault in a folder with other things, data/1 of a data set among them: runs change only what is theirs."""
    vault = tmp_path / "project"
    train(str(vault), tmp_path / "first", 10)
    theirs = vault / "data/1/raw/x.txt"
    theirs.parent.mkdir()
    theirs.write_text("the only copy")
    left = vault / "data/1/checkpoint-50"
    (left / ".vault").mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    (left / ".vault/upload.json").write_bytes(encode_mark("data/1/checkpoint-50"))
    for path in vault.rglob("*"):
        if path.is_file():
            os.utime(path, (1e9, 1e9))
    train(str(vault), tmp_path / "second", 20)
    assert theirs.read_text() == "the only copy"
    assert not left.exists()


def test_a_run_that_may_not_delete(tmp_path: Path) -> None:
    """It says so once, and neither its uploads nor its end wait for a right that won't come by itself."""

    def plan(operation: Operation) -> Fault | None:
        denied = StoreDeniedError("delete", operation.key, "access denied")
        return Fault.refused(denied) if operation.name == "delete" else None

    store = FaultStore(open_store(tmp_path / "vault"), plan)
    session, heard = a_session(
        str(tmp_path / "vault"), tmp_path / "output", store=store, keep_last=1, flush_timeout=8.0
    )
    training = Training(session)
    resume(session, TrainersFiles())
    for step in (1, 2, 3):
        folder = write_checkpoint(tmp_path / "output", step)
        training.save(Save(folder, step, AnyFiles(), parameters=PARAMETERS))
        assert training.flush(), heard.events
    training.close()
    told = [line for line in heard.reasons("trouble").splitlines() if "can't be deleted" in line]
    assert len(told) == 1
    assert "after the next commit" in told[0]


def test_what_was_given_up_in_trouble_is_deleted_when_it_is_over(tmp_path: Path) -> None:
    """An upload that a newer save has overtaken leaves nothing in the vault, though nothing could be deleted then."""

    def plan(operation: Operation) -> Fault | None:
        given_up = any(event.kind == "abandon" for event in heard.events)
        if "checkpoint-2/.vault/part" in operation.key:
            trouble.append(operation.key)
        return Fault.refused() if trouble and not given_up else None

    trouble: list[str] = []
    store = FaultStore(open_store(tmp_path / "vault"), plan)
    session, heard = a_session(str(tmp_path / "vault"), tmp_path / "output", store=store)
    training = Training(session)
    resume(session, TrainersFiles())
    for step in (1, 2, 3):
        folder = write_checkpoint(tmp_path / "output", step)
        training.save(Save(folder, step, AnyFiles(), parameters=PARAMETERS))
        if step != 2:
            assert training.flush(), heard.events
    training.close()
    assert "checkpoint-2" in heard.reasons("abandon")
    left = {item.key.split("/")[2] for item in open_store(tmp_path / "vault").list("data/")}
    assert left == {"checkpoint-1", "checkpoint-3"}
