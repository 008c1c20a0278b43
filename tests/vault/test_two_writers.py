"""Two writers on one vault: exactly one of them holds it, the other learns it and nothing of it is ever seen.

Real processes on real stores: one is stopped in the middle of an upload and wakes when the vault is another's;
many claim at once. And a writer that loses an answer knows its own entry again.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.harness import Campaign, Place, read_journal
from tests.campaign.points import STEPS
from tests.forks import ForkServer, Run
from tests.kit.any_files import AnyFiles
from tests.vault.tools import entries, numbers
from tests.vault.vaults import (
    PARAMETERS,
    TrainersFiles,
    a_session,
    content,
    start,
    train,
    tree,
    write_checkpoint,
)
from vaultlayer_hf import FencedError, StoreDeniedError, StoreError, open_vault
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.stop import draining
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.keys import entry_key
from vaultlayer_hf.vault.log.log import Log

STORES = ["folder", "s3"]


@pytest.fixture(params=STORES)
def campaign(request: pytest.FixtureRequest, forks: ForkServer, tmp_path: Path) -> Campaign:
    """Runs on vaults of each kind."""
    if request.param == "folder":
        return Campaign(forks, tmp_path, lambda folder: str(folder / "vault"))
    uri = request.getfixturevalue("s3_uri")
    return Campaign(forks, tmp_path, lambda folder: f"{uri}/{folder.name}", request.getfixturevalue("s3_env"))


def stopped_in_an_upload(campaign: Campaign, place: Place, **settings: Any) -> Run:
    """Start a run that stops itself, by a real SIGSTOP, in the middle of its second upload; wait for that."""
    record = campaign.record()
    upload = next(
        point for point in record if point.label.endswith("store.upload data/1/checkpoint-4/optimizer.pt")
    )
    run = campaign.begin(
        place, "first", kill=upload.number, side="during", label=upload.label, act="stop", settings=settings
    )
    run.wait_stopped()
    return run


def committed(vault: str) -> list[tuple[int, int]]:
    """Return (token, step) of each live checkpoint, after every digest of it was checked."""
    with open_vault(vault) as opened:
        for commit in opened.checkpoints():
            assert opened.verify(commit).ok
        return [(commit.token, commit.step) for commit in opened.checkpoints()]


def test_the_one_that_slept_is_fenced(campaign: Campaign) -> None:
    """A writer stopped in an upload wakes to a vault of another: its train() ends with FencedError, unseen."""
    place = campaign.place()
    first = stopped_in_an_upload(campaign, place)
    second = Place(place.vault, place.folder / "second-host")
    second.folder.mkdir()
    outcome, journal = campaign.run(second, "second")
    assert outcome.code == 0, outcome.errors
    assert [line["start"] for line in journal if "start" in line] == [2]
    before = committed(place.vault)
    assert before[-1][1] == STEPS
    log = numbers(open_store(place.vault))

    first.signal(signal.SIGCONT)
    ended = first.wait()
    assert ended.code == 1
    assert "vaultlayer_hf.errors.FencedError" in ended.errors
    assert "another process claimed this vault" in ended.errors.strip().splitlines()[-1]
    assert not (place.folder / "first.result").exists()
    assert not any("ended" in line for line in read_journal(place.folder / "first.journal"))

    assert committed(place.vault) == before
    assert numbers(open_store(place.vault)) == log
    assert (second.folder / "second.result").read_text() == campaign.reference
    assert {token for token, _ in before if token != 1} == {before[-1][0]}


def test_the_one_that_slept_may_train_on(campaign: Campaign) -> None:
    """With on_fenced="continue" the fenced run trains to its end without the vault, and says so once."""
    place = campaign.place()
    first = stopped_in_an_upload(campaign, place, on_fenced="continue")
    second = Place(place.vault, place.folder / "second-host")
    second.folder.mkdir()
    outcome, _ = campaign.run(second, "second")
    assert outcome.code == 0, outcome.errors
    before, log = committed(place.vault), numbers(open_store(place.vault))

    first.signal(signal.SIGCONT)
    ended = first.wait()
    assert ended.code == 0, ended.errors
    assert (place.folder / "first.result").read_text() == campaign.reference
    events = [
        line["message"]
        for line in read_journal(place.folder / "first.journal")
        if line.get("event") == "fenced"
    ]
    assert sum("goes on without a vault" in message for message in events) == 1
    assert committed(place.vault) == before
    assert numbers(open_store(place.vault)) == log


def test_the_second_alive_goes_on_where_the_first_was(campaign: Campaign) -> None:
    """The second goes on undisturbed where the first wakes and ends while the second is still training."""
    place = campaign.place()
    first = stopped_in_an_upload(campaign, place)
    second = Place(place.vault, place.folder / "second-host")
    second.folder.mkdir()
    run = campaign.begin(second, "second", pause_at=5)
    run.wait_stopped()
    assert committed(place.vault)[-1][1] == 4
    first.signal(signal.SIGCONT)
    assert first.wait().code == 1
    run.signal(signal.SIGCONT)
    outcome = run.wait()
    assert outcome.code == 0, outcome.errors
    assert (second.folder / "second.result").read_text() == campaign.reference
    assert committed(place.vault)[-1][1] == STEPS


@pytest.mark.parametrize("kind", STORES)
def test_many_claim_at_once(
    kind: str, forks: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of eight processes that claim at once each gets a number of its own, one holds the vault, the rest are fenced."""
    vault = str(tmp_path / "vault") if kind == "folder" else request.getfixturevalue("s3_uri")
    env = {} if kind == "folder" else request.getfixturevalue("s3_env")
    gate = tmp_path / "gate"
    runs = [
        forks.start(
            "tests.vault.racer:race",
            {"vault": vault, "gate": str(gate), "result": str(tmp_path / f"result-{index}")},
            tmp_path / f"racer-{index}",
            env=env,
        )
        for index in range(8)
    ]
    gate.touch()
    for run in runs:
        outcome = run.wait()
        assert outcome.code == 0, outcome.errors
    results = [json.loads((tmp_path / f"result-{index}").read_text()) for index in range(8)]
    tokens = [result["token"] for result in results]
    assert len(set(tokens)) == 8
    store = open_store(vault)
    log = entries(store)
    assert [entry.number for entry in log] == list(range(1, len(log) + 1))
    assert sorted(entry.number for entry in log if entry.kind == "claim") == sorted(tokens)
    holder = max(tokens)
    assert [result["token"] for result in results if not result["fenced"]] == [holder]
    assert {entry.state.token for entry in log if entry.number >= holder} == {holder}
    assert len({entry.state.vault_id for entry in log}) == 1
    for entry in log:  # whoever appended held the newest claim at that moment
        newest = max(other.number for other in log if other.kind == "claim" and other.number <= entry.number)
        assert entry.token == newest


def whole_run(store: FaultStore, vault: str, output: Path) -> None:
    """Start, save twice, end: every kind of entry but a fence."""
    session, heard = a_session(vault, output, store=store, keep_last=1)
    training = Training(session)
    resume(session, TrainersFiles())
    for step in (100, 200):
        training.save(Save(write_checkpoint(output, step), step, AnyFiles(), parameters=PARAMETERS))
        assert training.flush(), heard.events
    training.finish(200, {"train_loss": 0.5})
    training.close()


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    """Every operation of ``whole_run``."""
    folder = tmp_path_factory.mktemp("recording")
    store = FaultStore(open_store(str(folder / "vault")))
    whole_run(store, str(folder / "vault"), folder / "output")
    return store.operations


TROUBLE: dict[str, Callable[[], Fault]] = {"lost": Fault.lost_answer, "refused": Fault.refused}


@pytest.mark.parametrize("kind", ["lost", pytest.param("refused", marks=pytest.mark.slow)])
def test_trouble_at_any_operation_once(operations: list[Operation], tmp_path: Path, kind: str) -> None:
    """One lost answer, or one refusal, at any operation changes nothing: each entry once, known by its write id."""
    wanted = [(1, "claim"), (2, "commit"), (3, "commit"), (4, "retire"), (5, "retire"), (6, "finish")]

    def once(operation: Operation) -> None:
        folder = tmp_path / str(operation.number)
        vault = str(folder / "vault")
        store = FaultStore(open_store(vault), {operation.number: TROUBLE[kind]()})
        whole_run(store, vault, folder / "output")
        log = entries(open_store(vault))
        assert [(entry.number, entry.kind) for entry in log] == wanted, operation
        assert len({entry.write_id for entry in log}) == len(wanted)
        assert [(commit.number, commit.step) for commit in log[-1].state.commits] == [(3, 200)]
        assert committed(vault) == [(1, 200)], operation
        left = {path.split("/data/")[1] for path in tree(folder / "vault" / "data")} - {"1"}
        assert {name.split("/")[1] for name in left} == {"checkpoint-200"}, operation

    with ThreadPoolExecutor(12) as pool:  # they mostly wait before they try again
        list(pool.map(once, operations))


def test_a_commit_that_is_denied_for_a_while(tmp_path: Path) -> None:
    """Credentials that fail at the commit are waited for, and the commit comes when they are back."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    attempts = []

    def plan(operation: Operation) -> Fault | None:
        if (
            operation.name == "create"
            and operation.key.startswith("log/")
            and operation.key.endswith("2.json")
        ):
            attempts.append(operation)
            if len(attempts) < 4:
                return Fault.refused(StoreDeniedError("create", operation.key, "expired"))
        return None

    session, heard = a_session(vault, output, store=FaultStore(open_store(vault), plan))
    training = Training(session)
    resume(session, TrainersFiles())
    training.save(Save(write_checkpoint(output, 100), 100, AnyFiles(), parameters=PARAMETERS))
    assert training.flush()
    training.close()
    assert len(attempts) == 4
    assert "expired" in heard.reasons("trouble")
    assert committed(vault) == [(1, 100)]


def test_an_upload_that_a_store_refuses_for_good_can_still_be_adopted(tmp_path: Path) -> None:
    """What can't be sent stays on the disk: the next start goes on from it, and nothing trained is lost."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"

    def plan(operation: Operation) -> Fault | None:
        if operation.name == "upload":
            return Fault.refused(StoreError("upload", operation.key, "the name is not allowed here"))
        return None

    session, heard = a_session(vault, output, store=FaultStore(open_store(vault), plan))
    training = Training(session)
    resume(session, TrainersFiles())
    training.save(Save(write_checkpoint(output, 100), 100, AnyFiles(), parameters=PARAMETERS))
    training.flush()
    training.close()
    assert "not allowed here" in heard.reasons("abandon")
    path, again = start(vault, output)
    assert path == output / "checkpoint-100"
    assert "adopted" in again.reasons("adopt")
    assert content(path) == content(write_checkpoint(tmp_path / "expected", 100))


def test_the_end_waits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flush_timeout bounds the whole end of a training: what it has waited for in vain isn't waited for again."""
    vault, output, let_go = str(tmp_path / "vault"), tmp_path / "output", threading.Event()

    def plan(operation: Operation) -> Fault | None:
        return Fault.held(let_go) if operation.name == "upload" else None

    session, heard = a_session(vault, output, store=FaultStore(open_store(vault), plan), flush_timeout=0.2)
    waits = []
    training = Training(session)
    plain = draining.wait_for_uploads
    monkeypatch.setattr(
        draining,
        "wait_for_uploads",
        lambda *given, **more: waits.append(given) or plain(*given, **more),
    )
    resume(session, TrainersFiles())
    training.save(Save(write_checkpoint(output, 100), 100, AnyFiles(), parameters=PARAMETERS))
    assert not training.flush()
    threading.Timer(0.1, let_go.set).start()
    training.close()
    assert len(waits) == 1
    assert "the next start on this disk goes on from it" in heard.reasons("trouble")
    path, again = start(vault, output)
    assert path == output / "checkpoint-100"
    assert again.reasons("adopt")


def test_a_fence_is_told_before_it_ends_the_training(tmp_path: Path) -> None:
    """Whoever listens has heard of the fence, however slow it is, when the training is ended by it."""
    vault, output, told = str(tmp_path / "vault"), tmp_path / "output", []
    session, heard = a_session(vault, output)

    def listen(event: Event) -> None:
        if event.kind == "fenced":
            time.sleep(0.5)  # longer than the training thread takes to look again
            told.append(event.message)

    session.events.listen(listen)
    training = Training(session)
    resume(session, TrainersFiles())
    start(vault, tmp_path / "other")
    training.save(Save(write_checkpoint(output, 100), 100, AnyFiles(), parameters=PARAMETERS))
    with pytest.raises(FencedError):
        training.flush()
    assert len(told) == 1, heard.events
    training.close()


def test_a_zombie_of_many_turns(tmp_path: Path) -> None:
    """Turn by turn on one vault, each writer fences the one before, which can neither commit, retire nor finish."""
    vault = str(tmp_path / "vault")
    sessions = []
    for turn in range(4):
        output = tmp_path / f"host-{turn}"
        session, heard = a_session(vault, output)
        resume(session, TrainersFiles())
        sessions.append((Training(session), heard, output))
    for number, (training, heard, output) in enumerate(sessions):
        training.save(
            Save(write_checkpoint(output, 900 - number), 900 - number, AnyFiles(), parameters=PARAMETERS)
        )
        if number < 3:
            with pytest.raises(FencedError, match="claimed this vault"):
                training.flush()
            assert "claimed this vault" in heard.reasons("fenced")
        else:
            assert training.flush()
        training.close()
    assert committed(vault) == [(4, 897)]
    assert train(vault, tmp_path / "next", 1000).reasons("restore").startswith("checkpoint-897")


@pytest.mark.parametrize("on_fenced", ["stop", "continue"])
@pytest.mark.parametrize("moment", ["before a save", "before the end"])
def test_a_newer_release_takes_the_vault(tmp_path: Path, on_fenced: str, moment: str) -> None:
    """A claim in a newer format fences a run as any other does: FencedError where it is asked for, else no error."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    session, heard = a_session(vault, output, on_fenced=on_fenced)
    training = Training(session)
    resume(session, TrainersFiles())
    store = open_store(vault)
    if moment == "before the end":
        assert training.flush()
    store.create(entry_key(Log(store).last_number() + 1), b'{"format_version": 2, "kind": "claim"}')

    def end() -> None:
        if moment == "before a save":
            training.save(Save(write_checkpoint(output, 100), 100, AnyFiles(), parameters=PARAMETERS))
            training.flush()
        training.finish(100, {})

    with pytest.raises(FencedError, match="newer vaultlayer-hf") if on_fenced == "stop" else nullcontext():
        end()
    training.close()
    assert session.disabled
    assert "a newer vaultlayer-hf has taken this vault" in heard.reasons("fenced")
    assert numbers(store) == [1, 2]
