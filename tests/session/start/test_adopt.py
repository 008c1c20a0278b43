"""Adoption: a dead process's complete local snapshot is gone on from, if nobody has written since."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.vault.tools import Run, claim, content_of, flip, memory_store
from vaultlayer_hf.session.output_dir import FORMER_VARIABLE
from vaultlayer_hf.session.start import adopt, local_snapshots
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault import snapshot, written
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.reader.vault import Vault
from vaultlayer_hf.vault.snapshot import Snapshot
from vaultlayer_hf.vault.upload import carrying

MODEL = (("weight", (2, 2), "float32"),)


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Return a function that makes a run on a store, by default on one and the same disk."""
    opened: list[Run] = []

    def begin(store: Store, disk: str = "disk", **options: Any) -> Run:
        opened.append(Run(store, tmp_path / disk, **options))
        return opened[-1]

    yield begin
    for run in opened:
        run.close()


def unreachable(store: Store) -> FaultStore:
    """Return a store that can be claimed, and that takes no file."""
    down = Fault.refused()
    return FaultStore(store, lambda operation: down if operation.name in ("upload", "copy") else None)


def die_with_a_sealed_snapshot(run: Run, step: int, **options: Any) -> None:
    """Save a checkpoint that can't be sent, wait for its seal, and die."""
    run.save(step, **options)
    assert wait_for(lambda: any(path.parent.name.endswith(f"-{step}") for path in seals_of(run)))
    run.close()


def seals_of(run: Run) -> list[Path]:
    """Return the seals on a run's disk."""
    return list(run.session.snapshots.glob("*/manifest.json"))


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def steps(store: Store) -> list[int]:
    """Return the steps of the live checkpoints that are on the run's way."""
    last = Log(store).last()[1]
    return [commit.step for commit in last.state.commits if not commit.left_behind] if last else []


def test_a_sealed_snapshot_is_gone_on_from_and_committed(start: Callable[..., Run]) -> None:
    """The next start on the same disk resumes from the snapshot, and commits it under its own token."""
    store = memory_store()
    run = start(store)
    assert run.resume() is None
    run.save(100)
    run.wait()
    run.close()
    second = start(unreachable(store))
    second.resume()
    die_with_a_sealed_snapshot(second, 200)
    third = start(store)
    path = third.resume()
    assert path == third.session.output_dir / "checkpoint-200"
    third.wait()
    assert steps(store) == [100, 200]
    with Vault(store) as vault:
        commit = vault.checkpoints()[-1]
        assert commit.token == third.session.entered.token
        assert vault.verify(commit).ok
    assert [event.fields["step"] for event in third.events("adopt")] == [200]


def test_a_snapshot_is_not_adopted_twice_or_after_its_commit(start: Callable[..., Run]) -> None:
    """A snapshot whose commit landed is restored like any other, even where its answer was lost for good."""
    store = memory_store()
    faulty = FaultStore(store)
    run = start(faulty)
    run.resume()

    def lost_for_good(operation: Operation) -> Fault | None:
        if operation.name == "create":
            faulty.plan = lambda operation: Fault.refused()  # the store is out of reach from here on
            return Fault.lost_answer()
        return None

    faulty.plan = lost_for_good
    run.save(100)
    assert wait_for(lambda: steps(store) == [100])
    run.close()
    assert seals_of(run) != []
    second = start(store)
    assert second.resume() is not None
    assert second.events("adopt") == []
    assert [event.fields["step"] for event in second.events("restore")] == [100]
    assert len([1 for _ in store.list("log/")]) == 3


def test_an_older_writers_snapshot_is_never_adopted(start: Callable[..., Run], tmp_path: Path) -> None:
    """Once somebody else has claimed the vault, a snapshot that is left on a disk counts no more."""
    store = memory_store()
    run = start(unreachable(store))
    run.resume()
    die_with_a_sealed_snapshot(run, 100)
    other = start(store, "other disk")
    assert other.resume() is None
    other.close()
    third = start(store)
    assert third.resume() is None
    assert third.events("adopt") == []


def test_a_snapshot_survives_a_second_death(start: Callable[..., Run]) -> None:
    """A start that adopts and dies before it commits leaves the snapshot to the next one."""
    store = memory_store()
    run = start(unreachable(store))
    run.resume()
    die_with_a_sealed_snapshot(run, 100)
    for _ in range(2):
        again = start(unreachable(store))
        assert again.resume() is not None
        again.close()
    last = start(store)
    path = last.resume()
    assert path is not None
    last.wait()
    assert steps(store) == [100]
    assert set(content_of(path)) == {"config.json", "model.safetensors", "sub/trainer_state.json"}


@pytest.mark.parametrize("state", ["sealed", "whole"])
@pytest.mark.parametrize("deaths", [1, 2])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (adopt, "find_local_snapshots"),
        (local_snapshots, "begin_adopting"),
        (adopt, "verify_snapshot"),
        (adopt, "hand_over_snapshot"),
        (adopt, "end_adopting"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_snapshot_survives_starts_that_die_while_they_adopt(
    start: Callable[..., Run],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    side: str,
    deaths: int,
    state: str,
) -> None:
    """Whatever a start that adopts has come to when it dies, the next one on that disk goes on from the snapshot."""
    store = memory_store()
    run = start(unreachable(store))
    run.resume()
    if state == "sealed":
        die_with_a_sealed_snapshot(run, 100)
    else:
        request.getfixturevalue("no_seal")
        die_before_the_seal(run, 100)
    plain = getattr(module, name)

    def die(*args: Any) -> Any:
        if side == "after":
            plain(*args)
        raise KeyboardInterrupt

    for _ in range(deaths):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, die)
            with pytest.raises(KeyboardInterrupt):
                start(unreachable(store)).resume()
    last = start(store)
    path = last.resume()
    assert path is not None
    assert path.name == "checkpoint-100"
    last.wait()
    assert steps(store) == [100]
    left = [file.name for file in (path.parent / "_vaultlayer").rglob("*") if file.is_file()]
    assert left == []


def test_a_snapshot_of_another_model_is_not_adopted(start: Callable[..., Run]) -> None:
    """What another model's run left on the disk isn't gone on from."""
    store = memory_store()
    run = start(unreachable(store))
    run.resume(MODEL)
    die_with_a_sealed_snapshot(run, 100, parameters=MODEL)
    second = start(store)
    assert second.resume((("weight", (3, 3), "float32"),)) is None
    assert "another model" in second.events("walk-back")[0].message


def test_an_adopted_run_goes_on_from_where_the_dead_one_did(start: Callable[..., Run]) -> None:
    """A run that walked back before it died leaves the corrupted commit behind, and copies nothing from it."""
    store = memory_store()
    run = start(store)
    run.resume()
    for step in (100, 200):
        run.save(step)
        run.wait()
    run.close()
    flip(store, "data/1/checkpoint-200/config.json")
    second = start(unreachable(store), "new disk")
    path = second.resume()
    assert path is not None
    assert path.name == "checkpoint-100"
    die_with_a_sealed_snapshot(second, 300)
    third = start(store, "new disk")
    path = third.resume()
    assert path is not None
    assert path.name == "checkpoint-300"
    third.wait()
    assert steps(store) == [100, 300]
    with Vault(store) as vault:
        assert vault.verify(vault.checkpoints()[-1]).problems == []


def test_a_run_that_was_asked_to_start_at_a_step_stays_on_its_way(start: Callable[..., Run]) -> None:
    """A run from an older step that died before its first commit leaves the newer commits behind when adopted."""
    store = memory_store()
    run = start(store)
    run.resume()
    for step in (100, 200):
        run.save(step)
        run.wait()
    run.close()
    second = start(unreachable(store), uri="/nonexistent/vault@100")
    assert second.resume() is not None
    die_with_a_sealed_snapshot(second, 150)
    third = start(store)
    path = third.resume()
    assert path is not None
    assert path.name == "checkpoint-150"
    third.wait()
    assert steps(store) == [100, 150]


def test_a_claim_of_a_vault_that_was_made_anew_adopts_nothing(start: Callable[..., Run]) -> None:
    """A snapshot of a deleted vault isn't adopted by the vault that has its place now."""
    store = memory_store()
    run = start(unreachable(store))
    run.resume()
    die_with_a_sealed_snapshot(run, 100)
    store.delete([item.key for item in store.list("")])
    claim(store)
    second = start(store)
    assert second.resume() is None
    assert second.events("adopt") == []


def die_before_the_seal(run: Run, *steps: int) -> None:
    """Save checkpoints and die before any of them is sealed."""
    for step in steps:
        run.save(step)
    run.close()
    assert seals_of(run) == []


@pytest.fixture
def no_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the upload thread hash nothing, as where the process dies before that."""

    def never(snapshot: Snapshot, *args: Any) -> Snapshot:
        if not snapshot.sealed:
            raise OSError("it is never hashed")
        return snapshot

    monkeypatch.setattr(carrying, "seal_snapshot", never)


@pytest.mark.usefixtures("no_seal")
def test_what_was_saved_counts_before_it_is_sealed(start: Callable[..., Run]) -> None:
    """Whatever the upload has come to, the next start on this disk goes on from the newest save, and commits it."""
    store = memory_store()
    run = start(store)
    run.resume()
    die_before_the_seal(run, 100, 200, 300, 400)
    expected = content_of(run.session.output_dir / "checkpoint-400")
    second = start(store)
    path = second.resume()
    assert path is not None
    assert path.name == "checkpoint-400"
    assert content_of(path) == expected
    second.wait()
    assert steps(store) == [400]
    assert "(whole, not yet sealed, same boot)" in second.events("adopt")[0].message
    with Vault(store) as vault:
        assert vault.verify(vault.checkpoints()[-1]).ok


@pytest.mark.usefixtures("no_seal")
def test_few_snapshots_wait_however_long_nothing_is_sealed(start: Callable[..., Run]) -> None:
    """Of many saves that were superseded only the newest few stay on the disk, and the last is among them."""
    run = start(memory_store())
    run.resume()
    saved = range(100, 2100, 100)
    die_before_the_seal(run, *saved)
    names = [path.name for path in run.session.snapshots.iterdir()]
    assert f"20-checkpoint-{saved[-1]}" in names
    assert len(names) <= 4


@pytest.mark.usefixtures("no_seal")
def test_after_a_restart_of_the_machine_only_sealed_ones_count_and_it_is_said(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On another boot a start says that it passes over what was not yet sealed, and goes on from the newest commit."""
    store = memory_store()
    run = start(store)
    run.resume()
    die_before_the_seal(run, 100)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(written, "BOOT_ID", tmp_path / "boot_id")
    second = start(store)
    assert second.resume() is None
    (said,) = second.events("walk-back")
    assert (
        "checkpoint-100 on this disk isn't gone on from: it was not yet sealed, and the machine"
        in said.message
    )


@pytest.mark.usefixtures("no_seal")
def test_a_whole_snapshot_that_was_touched_is_passed_over_for_the_one_before(
    start: Callable[..., Run],
) -> None:
    """The newest snapshot that nobody has touched is gone on from, and why not from the newer one is said."""
    store = memory_store()
    run = start(store)
    run.resume()
    die_before_the_seal(run, 100, 200)
    (touched,) = run.session.snapshots.glob("*-checkpoint-200")
    (touched / "files" / "config.json").write_bytes(b"{}")
    second = start(store)
    path = second.resume()
    assert path is not None
    assert path.name == "checkpoint-100"
    assert "it was changed since: config.json" in second.events("walk-back")[0].message


@pytest.mark.usefixtures("no_seal")
def test_what_can_not_be_noted_is_said_and_the_training_goes_on(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note that can't be written costs no save; what a kill would lose is said once."""

    def full(folder: Path, written: Any) -> None:
        raise OSError(28, "No space left on device")

    store = memory_store()
    run = start(store)
    run.resume()
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "write_note", full)
        die_before_the_seal(run, 100, 200)
    assert [event.message for event in run.events("trouble") if "a kill before it is hashed" in event.message]
    assert start(store).resume() is None


def test_what_lies_in_a_former_output_folder_is_gone_on_from(
    start: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that names its output folder anew at each start loses nothing under `vl run`, twice in a row."""
    store = memory_store()
    first = start(unreachable(store), "one")
    first.resume()
    die_with_a_sealed_snapshot(first, 100)
    second = start(unreachable(store), "two")
    assert second.resume() is None  # nobody has told it where to look
    second.close()

    store = memory_store()
    first = start(unreachable(store), "three")
    first.resume()
    die_with_a_sealed_snapshot(first, 100)
    monkeypatch.setenv(FORMER_VARIABLE, str(first.session.output_dir))
    second = start(unreachable(store), "four")
    path = second.resume()
    assert path == second.session.output_dir / "checkpoint-100"
    die_with_a_sealed_snapshot(second, 200)
    places = f"{first.session.output_dir}{os.pathsep}{second.session.output_dir}"
    monkeypatch.setenv(FORMER_VARIABLE, places)
    third = start(store, "five")
    path = third.resume()
    assert path == third.session.output_dir / "checkpoint-200"
    third.wait()
    assert steps(store) == [200]
    assert not list(tmp_path.glob("three/_vaultlayer/*/[0-9]*")) + list(
        tmp_path.glob("four/_vaultlayer/*/[0-9]*")
    )
