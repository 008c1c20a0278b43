"""Storage trouble during training: never raised, never waited for, said once a cause, told as exposure, got over."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.inside import queue_of, session_of, training_of, use_store
from tests.servers import SeaweedServer
from tests.trainer.conftest import Reference
from tests.trainer.kit import (
    STEPS,
    Boom,
    Do,
    FailAt,
    Patient,
    Recorder,
    Tokens,
    big_model,
    state_of,
    steps_of,
    trainer,
    wait_for,
    weights,
)
from tests.trainer.test_snapshots import Gate, verified
from vaultlayer_hf import Settings, StoreUnavailableError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.adoptable import find_complete
from vaultlayer_hf.vault.snapshot import local_folder


def uploads_idle(run: Any) -> Any:
    """A condition: nothing of this trainer is queued or under way."""
    return lambda: session_of(run).uploader.wait(0)


def test_newest_wins(tmp_path: Path) -> None:
    """While one upload hangs, saves queue with a bound: all but the newest are abandoned, with the exposure."""
    vault = tmp_path / "vault"
    gate = Gate(vault, "checkpoint-1")
    run = trainer(tmp_path / "out", resume=vault, save_steps=1)
    taken: list[int] = []

    def look(state: Any) -> None:
        if state.global_step >= 2:
            assert gate.reached.wait(30)
            taken.append(len(list(session_of(run).snapshots.iterdir())))

    run.add_callback(Do(on_step_end=look, on_train_end=lambda state: gate.opened.set()))
    record = Recorder(run)
    gate.guard(run).train()
    assert steps_of(vault) == [1, 8]
    abandoned = record.of("abandon")
    assert [event.fields["step"] for event in abandoned] == [2, 3, 4, 5, 6, 7]
    assert "exposure: " in abandoned[-1].message
    assert "8 steps since the start, with no commit yet" in abandoned[-1].message


def test_s3_goes_away_and_comes_back(
    tmp_path: Path, s3_server: SeaweedServer, s3_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the server gone training goes on, warns once for each cause, reports exposure, and then catches up."""
    caplog.set_level("INFO", "vaultlayer_hf")
    run = trainer(tmp_path / "out", resume=s3_uri, max_steps=20, save_steps=1)
    record = Recorder(run)
    exposed: list[float] = []

    def outage(state: Any) -> None:
        if state.global_step == 4:
            wait_for(uploads_idle(run))
            s3_server.stop()
        elif state.global_step == 19:
            wait_for(lambda: bool(record.of("trouble")))
            exposed.append(training_of(run).metrics()["vault/exposure_steps"])
            s3_server.start()
        elif 4 < state.global_step < 19:
            time.sleep(0.02)

    run.add_callback(Do(on_step_end=outage))
    assert run.train().global_step == 20
    assert exposed[0] > 10
    trouble = record.of("trouble")
    assert 1 <= len(trouble) <= 4
    # What was to be deleted as the server went away has a message of its own, and no reason.
    assert max(Counter(event.fields.get("reason", event.message) for event in trouble).values()) == 1
    assert "exposure: " in trouble[0].message
    assert record.kinds().count("recovered") == 1
    assert steps_of(s3_uri)[-1] == 20
    assert state_of(s3_uri).finished == 20
    assert SeaweedServer.secret_key not in caplog.text
    assert SeaweedServer.access_key not in caplog.text


def test_vault_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """A vault whose disk is full costs checkpoints, said once, and commits again when there is space."""
    vault = small_disk / "vault"
    ballast = small_disk / "ballast"
    settings = Settings(vault=str(vault), keep_last=1, flush_timeout=30)
    run = trainer(tmp_path / "out", model=big_model(), resume=settings, max_steps=12, save_steps=1)
    record = Recorder(run)

    def fill(state: Any) -> None:
        if state.global_step == 2:
            wait_for(uploads_idle(run))
            free = os.statvfs(small_disk)
            ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 2**20))
        elif state.global_step == 11:
            wait_for(lambda: bool(record.of("trouble")))
            ballast.unlink()

    run.add_callback(Do(on_step_begin=fill))
    assert run.train().global_step == 12
    assert len(record.of("trouble")) == 1
    assert "no space" in record.of("trouble")[0].message.lower() or "full" in record.of("trouble")[0].message
    assert steps_of(vault)[-1] == 12
    assert verified(vault) == steps_of(vault)


def test_output_dir_without_space_for_a_snapshot(tmp_path: Path) -> None:
    """A save that can't be frozen on the local disk is abandoned with the reason, and the next one is committed."""
    vault, out = tmp_path / "vault", tmp_path / "out"
    run = trainer(out, resume=vault, max_steps=6)
    record = Recorder(run)
    blocked = out / "_vaultlayer" / "blocked"

    def block(state: Any) -> None:
        folder = session_of(run).snapshots
        if state.global_step == 4:
            folder.rename(blocked)
            folder.write_bytes(b"in the way")
        elif state.global_step == 5:
            folder.unlink()
            blocked.rename(folder)

    run.add_callback(Do(on_step_begin=lambda state: state.global_step and wait_for(uploads_idle(run))))
    run.add_callback(Do(on_step_end=block))
    assert run.train().global_step == 6
    assert [event.fields["step"] for event in record.of("abandon")] == [4]
    assert steps_of(vault)[-1] == 6


def test_slow_store_does_not_hold_training(tmp_path: Path, reference: Reference) -> None:
    """Training goes on to its last step while the first upload hangs, and only the final flush waits for it."""
    vault = tmp_path / "vault"
    gate = Gate(vault, "checkpoint-2")
    run = trainer(tmp_path / "out", resume=vault)
    order: list[str] = []

    def last(state: Any) -> None:
        if state.global_step == STEPS:
            assert not session_of(run).uploader.wait(0)
            order.append("trained")
            threading.Timer(0.5, gate.opened.set).start()

    run.add_callback(Do(on_step_end=last))
    record = Recorder(run)
    record_commit = Do(on_train_end=lambda state: order.append("end"))
    run.add_callback(record_commit)
    gate.guard(run).train()
    assert order == ["trained", "end"]
    assert steps_of(vault) == [2, 8]
    assert weights(run.model) == reference.weights
    assert record.kinds()[-1] == "finish"


def unavailable(vault: Path, *steps: int) -> FaultStore:
    """A store that takes nothing of the checkpoints of these steps; of none at all where no step is given."""

    def plan(operation: Operation) -> Fault | None:
        names = [f"/checkpoint-{step}/" for step in steps] or ["data/"]
        if operation.name in ("upload", "copy") and any(name in operation.key for name in names):
            return Fault.refused(StoreUnavailableError(operation.name, operation.key, "the test says no"))
        return None

    return FaultStore(open_store(parse_vault(str(vault))), plan)


def with_store(run: Any, store: Any) -> Any:
    """Put a store in the place of a trainer's own."""
    return use_store(run, store)


@pytest.fixture
def left_behind(tmp_path: Path) -> tuple[Path, Path]:
    """(vault, output_dir) of a run that is over at step 8, whose store took nothing after step 2."""
    vault, out = tmp_path / "vault", tmp_path / "out"
    settings = Settings(vault=str(vault), flush_timeout=0.5)
    run = trainer(out, resume=settings)
    record = Recorder(run)
    run.add_callback(
        Do(on_step_begin=lambda s: s.global_step == 2 and wait_for(lambda: steps_of(vault) == [2]))
    )
    with_store(run, unavailable(vault, 4, 6, 8)).train()
    assert [event.kind for event in record.of("trouble")[-1:]] == ["trouble"]
    assert "flush_timeout" in record.of("trouble")[-1].message
    assert steps_of(vault) == [2]
    return vault, out


def test_flush_has_a_time_out_and_the_rest_is_adopted(
    left_behind: tuple[Path, Path], reference: Reference
) -> None:
    """What the final flush couldn't send is adopted by the next start on that disk, committed, and the run is over."""
    vault, out = left_behind
    run = trainer(out, resume=vault)
    record = Recorder(run)
    output = run.train()
    assert output.global_step == STEPS
    first, second, *between, last = record.kinds()
    assert (first, second, sorted(between), last) == ("claim", "adopt", ["commit", "finished"], "finish")
    assert weights(run.model) == reference.weights
    assert verified(vault) == steps_of(vault) == [2, 8]
    assert state_of(vault).commits[-1].token == state_of(vault).token
    assert not list((out / "_vaultlayer").glob("*/*/*"))  # no snapshot is left


def test_another_disk_goes_on_from_the_newest_commit(
    left_behind: tuple[Path, Path], tmp_path: Path, reference: Reference
) -> None:
    """On another disk there is nothing to adopt: the run goes on from its newest commit, to the same weights."""
    vault, _ = left_behind
    run = trainer(tmp_path / "new", resume=vault)
    record = Recorder(run)
    run.train()
    assert "adopt" not in record.kinds()
    assert record.of("restore")[0].fields["step"] == 2
    assert weights(run.model) == reference.weights


def test_a_snapshot_of_an_older_token_is_never_adopted(
    left_behind: tuple[Path, Path], tmp_path: Path
) -> None:
    """When another process has claimed the vault since, what lies on this disk isn't adopted, and is removed."""
    vault, out = left_behind
    sealed = find_complete(local_folder(out, state_of(vault).vault_id, 1))[0]
    assert next(snapshot.manifest.step for snapshot in sealed) == 8
    trainer(tmp_path / "other", resume=vault, max_steps=3, save_steps=3).train()

    run = trainer(out, resume=vault, max_steps=5, save_steps=5)
    record = Recorder(run)
    run.train()
    assert "adopt" not in record.kinds()
    assert record.of("restore")[0].fields["step"] == 3
    assert not find_complete(local_folder(out, state_of(vault).vault_id, 1))[0]


def test_what_only_waited_is_sealed_at_the_end(tmp_path: Path) -> None:
    """A save that waited behind a slow upload when the flush timed out is adopted too: it is the newest there is."""
    vault, out = tmp_path / "vault", tmp_path / "out"
    gate = Gate(vault, "checkpoint-2")
    run = trainer(out, resume=Settings(vault=str(vault), flush_timeout=0.1))

    def open_at_the_end(queue: Any) -> None:
        wait_for(lambda: queue.stopping)  # not a moment earlier: the upload would go on and be committed
        gate.opened.set()

    def look(state: Any) -> None:
        if state.global_step == 3:
            assert gate.reached.wait(30)
            queue = queue_of(run)
            threading.Thread(target=open_at_the_end, args=(queue,)).start()

    run.add_callback(Do(on_step_end=look))
    gate.guard(run).train()
    assert steps_of(vault) == []
    again = trainer(out, resume=vault)
    record = Recorder(again)
    again.train()
    assert record.of("adopt")[0].fields["step"] == 8


def test_progress_bar_of_the_flush(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The final flush shows a progress bar, unless the Trainer's bars are switched off."""
    for number, off in enumerate((False, True)):
        vault = tmp_path / f"vault-{number}"
        run = trainer(tmp_path / f"out-{number}", resume=vault, disable_tqdm=off, max_steps=2)
        gate = Gate(vault, "checkpoint-2")
        run.add_callback(Do(on_train_end=lambda _, gate=gate: threading.Timer(0.3, gate.opened.set).start()))
        gate.guard(run).train()
        assert ("Committing to the vault" in capfd.readouterr().err) is not off


def test_recovered_trouble_is_warned_about_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cause is said once while it lasts, and again when it comes back after a commit."""
    vault = tmp_path / "vault"
    refused: Counter[str] = Counter()

    def plan(operation: Operation) -> Fault | None:
        if operation.name == "upload" and operation.key.endswith("optimizer.pt"):
            refused[operation.key] += 1
            if refused[operation.key] <= 2:
                return Fault.refused(StoreUnavailableError("upload", operation.key, "the test says no"))
        return None

    run = trainer(tmp_path / "out", resume=vault, callbacks=[Patient(vault)], max_steps=4)
    record = Recorder(run)
    with_store(run, FaultStore(open_store(parse_vault(str(vault))), plan)).train()
    assert [kind for kind in record.kinds() if kind in ("trouble", "recovered", "commit")] == [
        "trouble",
        "recovered",
        "commit",
    ] * 2
    warned = [record for record in caplog.records if "the test says no" in record.getMessage()]
    assert [record.levelno for record in warned] == [logging.WARNING] * 2


def test_failed_training_still_commits_what_it_saved(tmp_path: Path) -> None:
    """An exception in training waits for what is under way, then comes out as it is."""
    vault = tmp_path / "vault"
    gate = Gate(vault, "checkpoint-4")
    run = trainer(tmp_path / "out", resume=vault, callbacks=[FailAt(5)])
    run.add_callback(
        Do(on_step_begin=lambda s: s.global_step == 4 and threading.Timer(0.3, gate.opened.set).start())
    )
    with pytest.raises(Boom):
        gate.guard(run).train()
    assert steps_of(vault)[-1] == 4


class Streamed(torch.utils.data.IterableDataset):  # type: ignore[type-arg] # it yields dictionaries, of no one type
    """A data set whose own account of where it is can't be had, or can't be written."""

    def __init__(self, state: Callable[[], Any]) -> None:
        self.rows = Tokens(2 * STEPS)
        self._state = state

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self.rows[index] for index in range(len(self.rows)))

    def state_dict(self) -> dict[str, Any]:
        return {"at": self._state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("there is nothing to load")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "state", [lambda: lambda: None, lambda: 1 // 0], ids=["not writable", "not to be had"]
)
def test_data_that_cannot_say_where_it_is(tmp_path: Path, state: Callable[[], Any], workers: int) -> None:
    """It costs the place in the data, said once, and nothing else: the training goes on, commits and resumes."""
    vault = tmp_path / "vault"
    common = {"train_dataset": Streamed(state), "resume": vault, "dataloader_num_workers": workers}
    run = trainer(tmp_path / "out", **common, callbacks=[Patient(vault), FailAt(5)])
    record = Recorder(run)
    with pytest.raises(Boom):
        run.train()
    assert steps_of(vault) == [2, 4]
    said = [event.message for event in record.events if "the place in the data isn't kept" in event.message]
    assert len(said) == 1
    again = trainer(tmp_path / "new", **common, callbacks=[Patient(vault)])
    assert again.train().global_step == STEPS
    assert steps_of(vault)[-2:] == [6, 8]
