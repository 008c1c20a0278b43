"""The log: discovery, claims and their races, lost responses, fencing, and vaults that were replaced."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vault.tools import claim, commit_step, entries, flip, forge_entry, memory_store, numbers, sign
from vaultlayer_hf.errors import (
    CorruptError,
    FencedError,
    FormatVersionError,
    StoreDeniedError,
    StoreError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.keys import HINT, LOG, entry_key
from vaultlayer_hf.vault.log.log import Log, Writer
from vaultlayer_hf.vault.reader.archive import make_archive, undo_archive
from vaultlayer_hf.vault.retention.prune import retire


def note(writer: Writer, step: int = 1) -> int:
    """Append an entry that needs no data and return its number."""
    return writer.append("finish", lambda state, _: state.done(step, {}), {"step": step}).number


def on(name: str, prefix: str, fault: Fault, *, times: int = 1) -> Callable[[Operation], Fault | None]:
    """Return a plan by which the first ``times`` operations of that name and key fail."""
    left = [times]

    def plan(operation: Operation) -> Fault | None:
        if operation.name == name and operation.key.startswith(prefix) and left[0] > 0:
            left[0] -= 1
            return fault
        return None

    return plan


def wipe(store: Store, prefix: str = "") -> None:
    """Delete all of a vault, as a person does who starts over."""
    store.delete([item.key for item in store.list(prefix)])


# Discovery ---------------------------------------------------------------------------------------------


def test_an_empty_vault_has_no_entry() -> None:
    """Nothing there is told apart from something that can't be read."""
    assert Log(memory_store()).last() == (0, None)


@pytest.mark.parametrize(
    "hint",
    [
        None,
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"number": 1}',
        b'{"number": 3}',
        b'{"number": 5}',
        b'{"number": 6}',
        b'{"number": 7}',
        b'{"number": 10000}',
        b'{"number": -4}',
        b'{"number": 0}',
        b'{"number": true}',
        b'{"number": 2.5}',
        b'{"number": "5"}',
        b'{"number": 1' + b"0" * 30 + b"}",
        b'{"number": 1e999}',
        b"[" * 4000,
        b"\xff" * 100,
        b"x" * 10_000,
    ],
)
def test_the_last_entry_is_found_whatever_the_hint_says(hint: bytes | None) -> None:
    """A hint that is missing, stale, wrong, too high or hostile changes nothing but the cost."""
    store = memory_store()
    writer = claim(store)
    for step in range(5):
        note(writer, step)
    store.delete([HINT])
    if hint is not None:
        store.write(HINT, hint)
    number, entry = Log(store).last()
    assert (number, entry and entry.number) == (6, 6)


def test_a_hint_that_cannot_be_read_is_no_trouble() -> None:
    """A store that refuses to give the hint still gives the log."""
    store = memory_store()
    note(claim(store))
    faulty = FaultStore(store, on("read", HINT, Fault.refused(StoreDeniedError("read", HINT, "no"))))
    assert Log(faulty).last()[0] == 2


def test_a_log_of_two_thousand_entries_is_found_at_once() -> None:
    """Discovery costs a constant number of requests, and a listing that starts behind the hint."""
    store = memory_store()
    writer = claim(store)
    for step in range(1999):
        note(writer, step)
    counting = FaultStore(store)
    assert Log(counting).last()[0] == 2000
    assert [operation.name for operation in counting.operations] == ["read", "list", "read"]
    behind = json.loads(store.read(HINT, limit=100))["number"]
    assert 1900 <= behind <= 2000
    store.delete([HINT])
    assert Log(store).last()[0] == 2000


def test_other_objects_beside_the_log_are_passed_over() -> None:
    """Keys that only look like entries don't count."""
    store = memory_store()
    writer = claim(store)
    for key in ("9.json", "0000000000000000000x.json", f"{9:020d}.json.tmp", f"{9:021d}.json", "sub/a.json"):
        store.write(LOG + key, b"{}")
    store.write(f"{LOG}{'٩' * 20}.json", b"{}")
    assert Log(store).last()[0] == 1
    assert note(writer) == 2


def test_reading_needs_no_write_permission() -> None:
    """The log is read by someone who may not write a byte."""
    store = memory_store()
    note(claim(store))
    reader = FaultStore(store)
    assert Log(reader).last()[0] == 2
    assert {operation.name for operation in reader.operations} <= {"read", "list", "head"}


# Damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "empty", "cut", "huge", "foreign"])
def test_a_damaged_end_is_said_and_stepped_over(damage: str) -> None:
    """A damaged last entry costs that entry: the state before it counts, and the reason is told."""
    store = memory_store()
    writer = claim(store)
    note(writer)
    note(writer)
    key = entry_key(3)
    data = store.read(key, limit=2**20)
    if damage == "flipped":
        flip(store, key)
    else:
        other = {"empty": b"", "cut": data[:-10], "huge": b"x" * (16 * 2**20 + 1), "foreign": sign({})}
        store.write(key, other[damage])
    said: list[str] = []
    number, entry = Log(store, said.append).last()
    assert number == 3
    assert entry is not None
    assert entry.number == 2
    assert len(said) == 1
    assert "log entry 3" in said[0] or key in said[0]


def test_a_claim_goes_behind_a_damaged_end() -> None:
    """A damaged number is never used again: the next claim takes the one behind it, with the state before it."""
    store = memory_store()
    writer = claim(store)
    note(writer, 7)
    note(writer, 9)
    flip(store, entry_key(3))
    after, before = Writer.claim(store, Log(store))
    assert after.token == 4
    assert before is not None
    assert before.number == 2
    assert after.state.finished == 7
    assert note(after) == 5


def test_a_writer_goes_on_behind_a_damaged_entry() -> None:
    """A damaged entry says nothing: its number is taken, and the writer continues behind it."""
    store = memory_store()
    writer = claim(store)
    store.write(entry_key(2), b"torn")
    assert note(writer) == 3
    assert note(writer) == 4


def test_a_log_that_is_damaged_all_over_is_an_error() -> None:
    """Entries of which none is readable never look like an empty vault."""
    store = memory_store()
    writer = claim(store)
    for _ in range(70):
        note(writer)
    for number in numbers(store):
        store.write(entry_key(number), b"")
    with pytest.raises(CorruptError, match="all damaged"):
        Log(store).last()
    with pytest.raises(CorruptError):
        claim(store)


def test_a_newer_entry_is_never_stepped_over() -> None:
    """An entry of a newer release stops an older one that wants to read the vault: it says to upgrade."""
    store = memory_store()
    note(claim(store))
    forge_entry(store, 2, {"format_version": 2})
    with pytest.raises(FormatVersionError, match="upgrade"):
        Log(store).last()
    with pytest.raises(FormatVersionError, match="upgrade"):
        Writer.claim(store, Log(store), seen=(1, Log(store).read(1)))


NEWER = {
    "a claim": b'{"format_version": 2, "kind": "claim"}',
    "a kind of its own": b'{"format_version": 7, "kind": "lease", "number": "seven"}',
    "no kind at all": b'{"format_version": 2}',
}


@pytest.mark.parametrize("entry", NEWER.values(), ids=NEWER)
def test_an_entry_of_a_newer_release_fences(entry: bytes) -> None:
    """Whatever a newer release has put behind our entry: this writer stops for good, and says who has the vault."""
    store = memory_store()
    writer = claim(store)
    store.create(entry_key(2), entry)
    for _ in range(2):
        with pytest.raises(FencedError, match=r"a newer vaultlayer-hf has taken this vault \(log entry 2 "):
            note(writer)
        with pytest.raises(FencedError, match="newer vaultlayer-hf"):
            writer.check()
    assert numbers(store) == [1, 2]


def test_a_vault_that_a_newer_release_began_anew_fences() -> None:
    """Where the vault was deleted and a newer release has claimed it, our place in the log is that one's."""
    store = memory_store()
    writer = claim(store)
    store.write(entry_key(1), NEWER["a claim"])
    with pytest.raises(FencedError, match="newer vaultlayer-hf"):
        writer.check()


@pytest.mark.parametrize("entry", [NEWER["a claim"], b"{"], ids=["newer", "damaged"])
def test_a_vault_that_was_begun_anew_fences_whatever_it_holds(entry: bytes) -> None:
    """Where our last entry is gone and others are there, they needn't be readable: this writer is fenced."""
    store = memory_store()
    writer = claim(store)
    note(writer)
    store.delete([entry_key(1), entry_key(2)])
    store.create(entry_key(1), entry)
    with pytest.raises(FencedError, match="claimed anew"):
        writer.check()


# Claims ------------------------------------------------------------------------------------------------


def test_a_claim_is_the_token() -> None:
    """A claim's number is its fencing token, and the state before it is carried on."""
    store = memory_store()
    first, nothing = Writer.claim(store, Log(store))
    assert (first.token, nothing) == (1, None)
    note(first, 5)
    second, before = Writer.claim(store, Log(store))
    assert second.token == second.state.token == 3
    assert before is not None
    assert before.number == 2
    assert second.state.finished == 5
    assert second.state.vault_id == first.state.vault_id


def test_a_stale_look_at_the_log_costs_nothing_but_requests() -> None:
    """A claimant whose look at the log is old walks on to its end and never overwrites."""
    store = memory_store()
    seen = Log(store).last()
    writer = claim(store)
    for step in range(5):
        note(writer, step)
    late, before = Writer.claim(store, Log(store), seen=seen)
    assert late.token == 7
    assert before is not None
    assert before.number == 6
    assert late.state.vault_id == writer.state.vault_id


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_racing_claims_each_get_a_token_of_their_own(kind: str, tmp_path: Path) -> None:
    """Of many writers that claim at once each gets another number, and only the highest may go on."""
    store: Store = memory_store() if kind == "memory" else FolderStore(tmp_path / "vault")
    count = 8
    barrier = threading.Barrier(count)

    def take(_: int) -> Writer:
        barrier.wait()
        return claim(store)

    with ThreadPoolExecutor(count) as pool:
        writers = sorted(pool.map(take, range(count)), key=lambda writer: writer.token)
    assert [writer.token for writer in writers] == list(range(1, count + 1))
    assert {writer.state.vault_id for writer in writers} == {writers[0].state.vault_id}
    for writer in writers[:-1]:
        with pytest.raises(FencedError):
            note(writer)
    assert note(writers[-1]) == count + 1


def test_racing_appends_and_claims_leave_one_chain(tmp_path: Path) -> None:
    """While some append and others claim, every entry follows its predecessor, and no token commits after a newer."""
    store = memory_store()
    stop = threading.Event()

    def run(_: int) -> int:
        done = 0
        for _ in range(6):
            writer = claim(store)
            try:
                for step in range(4):
                    note(writer, step)
                    done += 1
            except FencedError:
                pass
        return done

    with ThreadPoolExecutor(6) as pool:
        acknowledged = sum(pool.map(run, range(6)))
    stop.set()
    found = entries(store)
    assert [entry.number for entry in found] == list(range(1, len(found) + 1))
    assert sum(entry.kind == "finish" for entry in found) == acknowledged
    token = 0
    for entry in found:
        token = entry.number if entry.kind == "claim" else token
        assert entry.token == entry.state.token == token
    assert len({entry.write_id for entry in found}) == len(found)


def test_threads_of_one_writer_share_its_claim() -> None:
    """Appends of several threads under one claim all land, each once."""
    store = memory_store()
    writer = claim(store)
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda step: note(writer, step), range(60)))
    assert sorted(got) == list(range(2, 62)) == numbers(store)[1:]


# Lost responses ----------------------------------------------------------------------------------------


class Echo(FaultStore):
    """A store whose answers to ``create`` get lost, and whose client asks again by itself."""

    def create(self, key: str, data: bytes) -> None:
        if key.startswith(LOG):
            super().create(key, data)
        super().create(key, data)


def test_a_repeated_create_is_won_by_its_write_id() -> None:
    """A claim and an append that lose against their own first attempt have won."""
    store = memory_store()
    echo = Echo(store)
    writer, before = Writer.claim(echo, Log(echo))
    assert (writer.token, before) == (1, None)
    assert [note(writer), note(writer)] == [2, 3]
    assert numbers(store) == [1, 2, 3]


def test_an_unknown_outcome_that_landed_is_found_by_the_next_append() -> None:
    """After a lost answer the entry stands, and what is appended next goes behind it, with its state."""
    store = memory_store()
    faulty = FaultStore(store)
    writer = claim(faulty)
    faulty.plan = on("create", LOG, Fault.lost_answer())
    with pytest.raises(StoreUnavailableError):
        note(writer, 11)
    assert note(writer, 12) == 3
    assert [entry.state.finished for entry in entries(store)] == [None, 11, 12]


def test_an_unknown_outcome_that_did_not_land_leaves_no_hole() -> None:
    """After a refused create the same number is used by the next append."""
    store = memory_store()
    faulty = FaultStore(store)
    writer = claim(faulty)
    faulty.plan = on("create", LOG, Fault.refused())
    with pytest.raises(StoreUnavailableError):
        note(writer, 11)
    assert note(writer, 12) == 2
    assert numbers(store) == [1, 2]


def test_a_commit_that_landed_unseen_stays_in_the_state(tmp_path: Path) -> None:
    """A commit whose answer was lost for good is live, whole, and carried on by the next commit."""
    store = memory_store()
    faulty = FaultStore(store)
    writer = claim(faulty)
    used: set[str] = set()
    faulty.plan = on("create", LOG, Fault.lost_answer())
    with pytest.raises(StoreUnavailableError):
        commit_step(faulty, writer, tmp_path, 100, seq=1, used=used)
    commit_step(faulty, writer, tmp_path, 200, seq=2, used=used)
    last = Log(store).last()[1]
    assert last is not None
    assert [commit.step for commit in last.state.commits] == [100, 200]
    assert [commit.number for commit in last.state.commits] == [2, 3]


def test_a_claim_whose_read_back_fails_is_an_error_not_a_guess() -> None:
    """Where it can't be told who won, the claim fails, and the next try goes behind what is there."""
    store = memory_store()
    faulty = FaultStore(store)
    claim(store)
    seen = (0, None)
    faulty.plan = on("read", LOG, Fault.refused())
    with pytest.raises(StoreUnavailableError):
        Writer.claim(faulty, Log(faulty), seen=seen)
    assert claim(store).token == 2


def test_commit_behind_a_retirement_of_the_same_writer(tmp_path: Path) -> None:
    """A commit that meets the same writer's retirement goes behind it and keeps what it says."""
    store = memory_store()
    writer = claim(store)
    first = commit_step(store, writer, tmp_path, 100, seq=1)
    stale = Writer(store, Log(store).read(2))
    stale.token = writer.token
    retire(store, writer, [first], {})
    commit_step(store, stale, tmp_path, 200, seq=2)
    last = Log(store).last()[1]
    assert last is not None
    assert [commit.step for commit in last.state.commits] == [200]
    assert last.state.retiring == ()


# Fencing -----------------------------------------------------------------------------------------------


def test_fenced_is_for_good(tmp_path: Path) -> None:
    """A fenced writer stays fenced, whatever it tries, and asks the store nothing more."""
    store = memory_store()
    counting = FaultStore(store)
    old = claim(counting)
    new = claim(store)
    for _ in range(2):
        with pytest.raises(FencedError, match=f"log entry {new.token}, later than ours, {old.token}"):
            note(old)
    asked = len(counting.operations)
    with pytest.raises(FencedError):
        note(old)
    assert len(counting.operations) == asked
    assert numbers(store) == [1, 2]


def test_a_writer_whose_vault_was_archived_is_told_so(tmp_path: Path) -> None:
    """No process goes on with that run: what it held was archived, or an archive was taken back, by a person."""
    store = memory_store()
    commit_step(store, claim(store), tmp_path, 4)
    old = claim(store)
    make_archive(store)
    with pytest.raises(FencedError, match=r"archived as archive-1 \(log entry 4\), so this run ends"):
        note(old)
    newer = claim(store)
    undo_archive(store)
    with pytest.raises(FencedError, match=r"archive-1 was taken back \(log entry 6\), so this run ends"):
        note(newer)


def test_a_zombie_meets_the_claim_behind_many_entries(tmp_path: Path) -> None:
    """A writer that slept through a claim and commits of another is fenced by the first entry it meets."""
    store = memory_store()
    old = claim(store)
    note(old)
    new = claim(store)
    for step in range(5):
        note(new, step)
    before = numbers(store)
    with pytest.raises(FencedError):
        note(old)
    assert numbers(store) == before


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_claim_in_the_middle_of_a_commit(tmp_path: Path, moment: str) -> None:
    """A claim just before the commit's entry fences the writer; just after it, the commit counts for the claimant."""
    store = memory_store()
    faulty = FaultStore(store)
    old = claim(faulty)
    claimed: list[Writer] = []

    def intrude(operation: Operation) -> None:
        claimed.append(claim(store))

    fault = Fault(before=intrude) if moment == "before" else Fault(after=intrude)
    faulty.plan = on("create", LOG, fault)
    if moment == "before":
        with pytest.raises(FencedError):
            commit_step(faulty, old, tmp_path, 100)
        assert claimed[0].state.commits == ()
    else:
        commit_step(faulty, old, tmp_path, 100)
        assert [commit.step for commit in claimed[0].state.commits] == [100]
        with pytest.raises(FencedError):
            note(old)
    last = Log(store).last()[1]
    assert last is not None
    assert last.state.token == claimed[0].token


def test_entries_are_never_changed(tmp_path: Path) -> None:
    """Whatever is appended, by whom, and whatever answers are lost, an entry's bytes stay as they were."""
    store = memory_store()
    echo = Echo(store)
    seen: dict[int, bytes] = {}
    for turn in range(4):
        writer = claim(echo)
        for step in range(3):
            note(writer, step + turn)
            for number in numbers(store):
                data = store.read(entry_key(number), limit=2**20)
                assert seen.setdefault(number, data) == data
    assert len(seen) == 16


# A vault that was deleted and made again ---------------------------------------------------------------


def test_a_zombie_of_a_deleted_vault_never_writes_into_the_new_one(tmp_path: Path) -> None:
    """After the vault was deleted and claimed again, the old writer is fenced, whatever its number was."""
    store = memory_store()
    old = claim(store)
    for step in range(9):
        note(old, step)
    wipe(store)
    new = claim(store)
    kept = commit_step(store, new, tmp_path, 100)
    with pytest.raises(FencedError, match="deleted"):
        note(old)
    with pytest.raises(FencedError):
        note(old)
    assert numbers(store) == [1, 2]
    assert note(new) == 3
    last = Log(store).last()[1]
    assert last is not None
    assert last.state.commits == (kept,)


def test_a_vault_that_was_emptied_under_a_run_is_filled_again(tmp_path: Path) -> None:
    """Where nobody has claimed the emptied vault, one checkpoint is lost and the next is committed whole."""
    store = memory_store()
    writer = claim(store)
    used: set[str] = set()
    first = commit_step(store, writer, tmp_path, 100, seq=1, used=used)
    wipe(store)
    with pytest.raises(StoreError, match="emptied"):
        commit_step(store, writer, tmp_path, 200, seq=2, used=used, known=first)
    second = commit_step(store, writer, tmp_path, 300, seq=3, used=used, known=first)
    number, last = Log(store).last()
    assert last is not None
    assert (number, last.state.commits) == (second.number, (second,))
    assert second.number > first.number
    assert claim(store).token == second.number + 1


def test_a_stray_entry_of_another_vault_fences_nobody(tmp_path: Path) -> None:
    """An entry that a zombie of a deleted vault left behind the end is stepped over by the rightful writer."""
    store = memory_store()
    old = claim(store)
    note(old)
    note(old)
    stray = store.read(entry_key(3), limit=2**20)
    wipe(store)
    new = claim(store)
    assert new.token == old.token
    mine = new.state.vault_id
    note(new, 5)
    store.write(entry_key(3), stray)
    assert note(new, 6) == 4
    assert Log(store).read(4).state.vault_id == mine


def test_equal_tokens_of_two_vaults_are_told_apart(tmp_path: Path) -> None:
    """A zombie whose token and number fit the new vault, too, doesn't take the new writer's entries for its own."""
    store = memory_store()
    old = claim(store)
    wipe(store)
    new = claim(store)
    note(new)
    assert new.token == old.token
    with pytest.raises(FencedError, match="deleted"):
        old.check()
    with pytest.raises(FencedError, match="deleted"):
        note(old)
    assert note(new) == 3
