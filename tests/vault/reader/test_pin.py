"""Pins: from a second process, while a run writes; they fence nobody, and none that was acknowledged is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.vault.tools import claim, commit_step, entries, memory_store
from vaultlayer_hf import NoSuchCheckpointError, StoreError, StoreUnavailableError, open_vault
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.testing.model import VaultModel
from vaultlayer_hf.vault.keys import entry_key
from vaultlayer_hf.vault.log.entry import decode_entry, encode_entry
from vaultlayer_hf.vault.reader.pin import pin
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.prune import retire
from vaultlayer_hf.vault.retention.tidy import tidy_vault

SAVES = 15


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_second_process_pins_while_a_run_writes(
    kind: str, forks: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With a run that retires after each save and a process that pins the newest, both end well and no pin is lost."""
    vault = str(tmp_path / "vault") if kind == "folder" else request.getfixturevalue("s3_uri")
    env = {} if kind == "folder" else request.getfixturevalue("s3_env")
    ended, result = tmp_path / "ended", tmp_path / "result"
    pinner = forks.start(
        "tests.vault.reader.pinner:pin",
        {"vault": vault, "until": str(ended), "result": str(result)},
        tmp_path / "pinner",
        env=env,
    )
    arguments = {"vault": vault, "output": str(tmp_path / "output"), "saves": SAVES}
    writer = forks.run("tests.vault.reader.pinner:write", arguments, tmp_path / "writer", env=env)
    ended.touch()
    outcome = pinner.wait()
    assert (writer.code, outcome.code) == (0, 0), writer.errors + outcome.errors
    told = json.loads(result.read_text())
    assert len(told["pinned"]) > 2, "the two never met"

    log = entries(open_store(vault))
    assert [entry.number for entry in log] == list(range(1, len(log) + 1))
    assert {entry.state.token for entry in log} == {1}, "nobody else has claimed the vault"
    assert log[-1].state.finished == SAVES
    model = VaultModel()
    for entry in log:
        model.follow(entry)
    with open_vault(vault) as opened:
        live = opened.checkpoints()
        assert [item.step for item in live if item.pinned] == told["pinned"]
        # Let go behind the last commit, a checkpoint waits for the next one's retention.
        (newest,) = (item.number for item in live if item.step == SAVES)
        late = {entry.detail["step"] for entry in log if entry.kind == "pin" and entry.number > newest}
        kept = {*told["pinned"], SAVES}
        assert kept <= {item.step for item in live} <= kept | late
        assert all(opened.verify(item).ok for item in live)


def test_a_pin_in_the_middle_of_a_retirement(tmp_path: Path) -> None:
    """Pinned between the decision to retire it and the entry that says so, a checkpoint stays, with all its files."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 10)
    second = commit_step(store, writer, tmp_path, 20, seq=2)
    commit_step(store, writer, tmp_path, 30, seq=3)
    pin(store, first, True)
    assert not writer.state.commits[0].pinned, "the writer doesn't know yet"
    assert [item.commit.step for item in tidy_vault(store, writer, Policy(last=1), set())] == [20]
    last = entries(store)[-1]
    assert [(item.step, item.pinned) for item in last.state.commits] == [(10, True), (30, False)]
    assert list(store.list(f"{first.folder}/"))
    assert not list(store.list(f"{second.folder}/"))
    pin(store, first, False)
    assert tidy_vault(store, writer, Policy(last=1), set()) == [], (
        "decided before the writer has met the entry"
    )
    commit_step(store, writer, tmp_path, 40, seq=4)
    assert [item.commit.step for item in tidy_vault(store, writer, Policy(last=1), set())] == [10, 30]


def test_what_is_retired_cannot_be_pinned(tmp_path: Path) -> None:
    """Whoever comes after the retirement is told; nothing is appended."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 10)
    commit_step(store, writer, tmp_path, 20, seq=2)
    retire(store, writer, [first], {})
    before = len(entries(store))
    with pytest.raises(NoSuchCheckpointError, match="retired meanwhile"):
        pin(store, first, True)
    assert len(entries(store)) == before


@pytest.mark.parametrize("racer", ["commit", "retire", "claim", "pin"])
def test_whatever_takes_the_number_first(racer: str, tmp_path: Path) -> None:
    """Another entry that lands in between is gone behind, and its state is kept; a retirement of it wins."""
    inner = memory_store()
    writer = claim(inner)
    first = commit_step(inner, writer, tmp_path, 10)
    second = commit_step(inner, writer, tmp_path, 20, seq=2)
    race = {
        "commit": lambda: commit_step(inner, writer, tmp_path, 30, seq=3),
        "retire": lambda: retire(inner, writer, [first], {}),
        "claim": lambda: claim(inner),
        "pin": lambda: pin(inner, second, True),
    }
    begun: list[Operation] = []

    def plan(operation: Operation) -> Fault | None:
        if operation.name != "create" or not operation.key.startswith("log/") or begun:
            return None
        begun.append(operation)
        return Fault(before=lambda _: race[racer]())

    store = FaultStore(inner, plan)
    if racer == "retire":
        with pytest.raises(NoSuchCheckpointError):
            pin(store, first, True)
        return
    entry = pin(store, first, True)
    assert entry.number == 5
    assert [item.pinned for item in entry.state.commits][:2] == [True, racer == "pin"]
    assert len(entry.state.commits) == (3 if racer == "commit" else 2)
    assert entry.token == (4 if racer == "claim" else 1)
    model = VaultModel()
    for item in entries(inner):
        model.follow(item)


def test_a_pin_is_said_once(tmp_path: Path) -> None:
    """A lost answer is known again by the write id; pinning what is pinned appends nothing."""
    inner = memory_store()
    writer = claim(inner)
    first = commit_step(inner, writer, tmp_path, 10)
    lost: list[Operation] = []

    def plan(operation: Operation) -> Fault | None:
        if operation.name != "create" or operation.key not in (entry_key(3), entry_key(4)):
            return None
        if operation.key in [other.key for other in lost]:
            return None
        lost.append(operation)
        return Fault.lost_answer()

    store = FaultStore(inner, plan)
    with pytest.raises(StoreUnavailableError):
        pin(store, first, True)
    assert pin(store, first, True).number == 3
    assert [entry.kind for entry in entries(inner)] == ["claim", "commit", "pin"]
    patient = RetryingStore(store, RetryPolicy(base=0.001))
    assert pin(patient, first, False).number == 4
    assert len(lost) == 2
    assert [entry.kind for entry in entries(inner)] == ["claim", "commit", "pin", "pin"]


def test_a_store_without_create_needs_a_word(tmp_path: Path) -> None:
    """Where a pin could overwrite an entry of a run that is writing, it is refused unless no run is writing."""
    store = memory_store()
    first = commit_step(store, claim(store), tmp_path, 10)
    store.supports_create = False
    with pytest.raises(StoreError, match="--alone"):
        pin(store, first, True)
    assert pin(store, first, True, alone=True).state.commits[0].pinned


def test_pins_outlive_what_follows(tmp_path: Path) -> None:
    """A pin stays through a finish, a claim and the commits of the next run, whether or not they pass it by."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 10)
    commit_step(store, writer, tmp_path, 20, seq=2)
    pin(store, first, True)
    writer.append("finish", lambda state, _: state.done(20, {}), {"step": 20})
    assert entries(store)[-1].state.finished == 20
    other = claim(store)
    commit_step(store, other, tmp_path, 30, resumed_from=None)
    assert [(item.step, item.pinned, item.left_behind) for item in other.state.commits] == [
        (10, True, True), (20, False, True), (30, False, False),
    ]  # fmt: skip


def test_the_golden_pin() -> None:
    """The pin entry that this format version wrote first is read, and written again, byte for byte."""
    data = (Path(__file__).parents[1] / "golden" / "pin-v1.json").read_bytes()
    entry = decode_entry(data, 5)
    assert (entry.kind, entry.token, entry.detail["number"], entry.detail["pinned"]) == ("pin", 1, 2, True)
    assert [item.pinned for item in entry.state.commits] == [True, False]
    assert encode_entry(entry) == data
