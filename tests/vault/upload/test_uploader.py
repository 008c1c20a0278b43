"""The uploader and the session around it: patience, what is abandoned, what is kept on the disk."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vault.tools import Run, memory_store
from vaultlayer_hf.base.priority import LOWEST
from vaultlayer_hf.errors import (
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.reader.vault import Vault
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.tidy import tidy_local
from vaultlayer_hf.vault.upload import patience, uploader

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Return a function that claims a store and starts uploading to it."""
    opened: list[Run] = []

    def begin(store: Store, **options: Any) -> Run:
        run = Run(store, tmp_path / "out", **options)
        opened.append(run)
        run.resume()
        return run

    yield begin
    for run in opened:
        run.close()


def live_steps(store: Store) -> list[int]:
    """Return the steps of the live checkpoints."""
    last = Log(store).last()[1]
    return [commit.step for commit in last.state.commits] if last else []


def failing(name: str, prefix: str, errors: list[StoreError | None]) -> Callable[[Operation], Fault | None]:
    """Return a plan by which operations of that name and key fail with these errors, one after the other."""

    def plan(operation: Operation) -> Fault | None:
        if operation.name == name and operation.key.startswith(prefix) and errors:
            error = errors.pop(0)
            return Fault.refused(error) if error else None
        return None

    return plan


def test_the_commit_itself_waits_for_a_store_in_trouble(start: Callable[..., Run]) -> None:
    """A store that goes away or refuses just when the entry is created costs time, never the checkpoint."""
    store = FaultStore(memory_store())
    run = start(store)
    denied = StoreDeniedError("create", "", "the credentials have expired")
    store.plan = failing("create", "log/", [denied, denied])
    run.save(100)
    run.wait()
    assert live_steps(store) == [100]
    assert run.events("abandon") == []


def test_a_full_vault_gets_room_by_a_stricter_retention(start: Callable[..., Run]) -> None:
    """A start with a lower keep_last, on a vault that is full, deletes what it needn't keep, and commits."""

    def plan(operation: Operation) -> Fault | None:
        full = operation.name == "upload" and len(live_steps(store.inner)) > 1
        return Fault.refused(StoreFullError("upload", operation.key, "no space")) if full else None

    store = FaultStore(memory_store())
    first = start(store, keep_last=3)
    for step in (100, 200):
        first.save(step)
        first.wait()
    first.close()
    store.plan = plan
    run = start(store, keep_last=1)
    run.save(300)
    assert wait_until(lambda: bool(run.events("trouble")))
    assert "keep_last" in run.events("trouble")[0].message
    run.save(400)
    run.wait()
    assert live_steps(store) == [200, 400], "the one that the start went on from stays"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority of each thread")
@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
def test_large_uploads_give_way_to_training(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Large uploads, the client's own threads among them, run at a low priority; the training thread keeps its own.

    Small ones don't: they are committed at once, however busy the machine is.
    """

    def priority(thread: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, thread)

    def plan(operation: Operation) -> None:
        if operation.name == "upload":
            tasks = Path("/proc/self/task").iterdir()
            clients = [int(task.name) for task in tasks if "tokio" in (task / "comm").read_text()]
            seen.append([threading.get_native_id(), *clients])
            seen.append([priority(thread) for thread in seen[-1]])

    seen: list[list[int]] = []
    before = priority(threading.get_native_id())
    if large:
        monkeypatch.setattr(uploader, "LARGE", 1)
    run = start(FaultStore(memory_store(), plan))
    run.save(100)
    run.wait()
    threads, priorities = seen[:2]
    assert len(threads) > 1
    if large:
        assert set(priorities) == {LOWEST}
    assert priorities[0] == (LOWEST if large else before)
    assert priority(threading.get_native_id()) == before


def test_a_retirement_waits_for_a_store_in_trouble(start: Callable[..., Run]) -> None:
    """A store that refuses for a moment while old checkpoints are retired is tried again."""
    store = FaultStore(memory_store())
    run = start(store, keep_last=1)
    run.save(100)
    run.wait()
    denied = StoreDeniedError("create", "", "the credentials have expired")
    store.plan = failing("create", "log/", [None, denied])
    run.save(200)
    run.wait()
    assert live_steps(store) == [200]
    assert list(store.list("data/1/checkpoint-100/")) == []


def test_a_store_that_never_deletes_costs_space_and_nothing_else(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that may not delete keep no commit and no end of training waiting for ever."""
    monkeypatch.setattr(patience, "TIDY_PATIENCE", 0.2)
    inner = memory_store()
    denied = Fault.refused(StoreDeniedError("delete", "", "no permission"))
    store = FaultStore(inner, lambda operation: denied if operation.name == "delete" else None)
    run = start(store, keep_last=1)
    for step in (100, 200, 300):
        run.save(step)
        run.wait()
    assert live_steps(store) == [300]
    assert run.events("abandon") == []
    assert [event for event in run.events("trouble") if "delete" in event.message]
    last = Log(store).last()[1]
    assert last is not None
    assert last.state.retiring == ("data/1/checkpoint-100", "data/1/checkpoint-200")


def test_a_save_during_the_tidying_of_a_store_in_trouble_abandons_nothing(
    start: Callable[..., Run],
) -> None:
    """A checkpoint that is committed is never called abandoned because old ones can't be deleted."""
    inner = memory_store()
    store = FaultStore(inner)
    run = start(store, keep_last=1)
    run.save(100)
    run.wait()
    down = StoreUnavailableError("delete", "", "down")

    def plan(operation: Operation) -> Fault | None:
        if operation.name == "delete" and len(live_steps(inner)) == 1:
            run.save(300)  # arrives while 100 is being deleted, after 200 was committed
            store.plan = {}
            return Fault.refused(down)
        return None

    store.plan = plan
    run.save(200)
    run.wait()
    assert run.events("abandon") == []
    assert [event.fields["step"] for event in run.events("commit")] == [100, 200, 300]
    assert live_steps(store) == [300]


def commit_of(number: int, step: int, token: int, *, left_behind: bool = False) -> Commit:
    """Return a commit as the log would list it."""
    folder = f"data/{token}/checkpoint-{step}"
    return Commit(number, token, 1, step, folder, "", 1, 1, "blake3:" + "0" * 64, 1, left_behind=left_behind)


def state_of(*commits: Commit) -> VaultState:
    """Return a state that holds these commits."""
    return VaultState("v", 9, commits)


def test_a_local_folder_belongs_to_the_newest_commit_of_its_step(tmp_path: Path) -> None:
    """A commit of a step that was left behind never takes away the local folder of the newer commit of that step."""
    for step in (100, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
    commits = [
        commit_of(2, 100, 1),
        commit_of(3, 200, 1, left_behind=True),
        commit_of(5, 200, 4),
    ]
    assert tidy_local(tmp_path, state_of(*commits), Policy(last=1, best=False), {5}) == ["checkpoint-100"]
    assert (tmp_path / "checkpoint-200").is_dir()


def test_a_hostile_name_never_removes_another_folder(tmp_path: Path) -> None:
    """What is removed from output_dir is a checkpoint folder, whatever a commit calls itself."""
    for name in ("runs", "checkpoint-100", "checkpoint-200"):
        (tmp_path / name).mkdir()
    hostile = Commit(2, 1, 1, 100, "data/1/runs", "", 1, 1, "blake3:" + "0" * 64, 1)
    removed = tidy_local(tmp_path, state_of(hostile, commit_of(3, 200, 1)), Policy(last=1), set())
    assert removed == ["checkpoint-100"]
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize("given_up", ["for a newer save", "for an error"])
def test_a_commit_that_landed_unseen_keeps_its_files(start: Callable[..., Run], given_up: str) -> None:
    """A checkpoint that is given up while its commit's answer is lost stays whole: it may be committed, and is."""
    inner = memory_store()
    store = FaultStore(inner)
    run = start(store)
    down = (
        Fault.refused()
        if given_up == "for a newer save"
        else Fault.refused(ObjectNotFoundError("read", "", ""))
    )

    def lost_for_good(operation: Operation) -> Fault | None:
        if operation.name == "create":
            # The log can't be read from here on; files could still be deleted.
            store.plan = lambda operation: down if operation.key.startswith("log/") else None
            return Fault.lost_answer()
        return None

    store.plan = lost_for_good
    run.save(100)
    assert wait_until(lambda: live_steps(inner) == [100])
    if given_up == "for a newer save":
        run.save(200)
    assert wait_until(lambda: run.events("abandon") != [])
    store.plan = {}
    if given_up == "for an error":
        run.save(200)
    run.wait()
    assert live_steps(inner) == [100, 200]
    with Vault(inner) as vault:
        assert [vault.verify(item).problems for item in vault.checkpoints()] == [[], []]


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_saves_that_are_replaced_one_after_the_other_are_counted(
    start: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    """Fast steps behind a slow store fill no log: listeners learn of each save, people of the first, then the count."""
    gate = threading.Event()

    def hold(operation: Operation) -> None:
        if operation.name == "upload":
            gate.wait(30)

    run = start(FaultStore(memory_store(), hold))
    with caplog.at_level("INFO", "vaultlayer_hf"):
        for step in range(1, 9):
            run.save(step)
        gate.set()
        run.wait()
        run.close()
    replaced = [event.fields["step"] for event in run.events("abandon")]
    assert len(replaced) >= 6
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert f"checkpoint-{replaced[0]} is skipped: " in said[0]
    assert said[1].startswith("checkpoint-8 committed")
    assert f"1 committed, {len(replaced) - 1} skipped for newer ones" in said[1]


def test_saves_that_a_full_vault_does_not_take_are_counted(
    start: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    """A vault that stays full fills no log: that a save is abandoned is said of the first, then with a count."""

    def full(operation: Operation) -> Fault | None:
        return Fault.refused(StoreFullError("upload", "", "no room")) if operation.name == "upload" else None

    run = start(FaultStore(memory_store(), full))
    with caplog.at_level("WARNING", "vaultlayer_hf"):
        for step in range(1, 6):
            run.save(step)
            assert wait_until(lambda before=step - 1: len(run.events("abandon")) == before)
        run.close()
    said = [record.getMessage() for record in caplog.records if "abandoned" in record.getMessage()]
    assert len(said) == 2
    assert said[0].startswith("checkpoint-1 is abandoned, training goes on: ")
    assert said[1] == "since the last line on saves: 3 abandoned"
