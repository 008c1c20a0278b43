"""Who sends what, which saves are kept, and how the node that commits learns of the parts."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.vault.tools import file_entry, memory_store
from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.session.save.plan import NodeFiles, divide
from vaultlayer_hf.testing.faults import FaultStore
from vaultlayer_hf.vault.keys import part_key
from vaultlayer_hf.vault.manifest import Manifest, encode_part
from vaultlayer_hf.vault.snapshot import Snapshot
from vaultlayer_hf.vault.upload.job import Job
from vaultlayer_hf.vault.upload.parts import PartMissingError, collect_parts, refuse_part
from vaultlayer_hf.vault.upload.queue import UploadQueue

FOLDER = "data/1/checkpoint-2"


def no_wait(missing: object, seconds: float) -> None:
    """Nothing to do while parts are missing."""


def job(seq: int, nonfinite: str = "") -> Job:
    """A job without files."""
    manifest = Manifest(step=seq, token=1, seq=seq, files=())
    return Job(
        Snapshot(Path(f"/nowhere/{seq}"), seq, f"checkpoint-{seq}", manifest, True, {}),
        FOLDER,
        nonfinite=nonfinite,
    )


def test_each_file_is_sent_by_one_node() -> None:
    """What several nodes hold is the lowest one's to send; what only one holds is that one's."""
    plan = divide(
        [
            NodeFiles(0, ("model", "rng_0")),
            NodeFiles(),
            NodeFiles(1, ("model", "optimizer", "rng_1")),
            NodeFiles(2, ("model", "optimizer")),
        ]
    )
    assert plan.share_of(0, ["model", "rng_0"]) == {"model", "rng_0"}
    assert plan.share_of(1, ["model", "optimizer", "rng_1"]) == {"optimizer", "rng_1"}
    assert plan.share_of(2, ["model", "optimizer"]) == frozenset()
    assert plan.others == (1,)
    assert plan.paths == {"model", "optimizer", "rng_0", "rng_1"}


def test_all_parts_are_collected_in_two_kinds_of_requests() -> None:
    """Parts that are in cost one listing together and one read each, whatever the order they came in."""
    store = FaultStore(memory_store())
    for node in (3, 1, 2):
        store.write(part_key(FOLDER, node), encode_part(node, (file_entry(f"rng_{node}"),)))
    store.operations.clear()
    found = collect_parts(store, FOLDER, (1, 2, 3), 1.0, no_wait)
    assert [entry.path for entry in found] == ["rng_1", "rng_2", "rng_3"]
    assert sorted(operation.name for operation in store.operations) == ["list", "read", "read", "read"]


def test_a_part_that_comes_late_is_waited_for() -> None:
    """The leader goes on as soon as the last part is in, and tells meanwhile which are missing."""
    store = memory_store()
    store.write(part_key(FOLDER, 1), encode_part(1, (file_entry("a"),)))
    told: list[object] = []

    def come(missing: object, seconds: float) -> None:
        told.append(missing)
        if len(told) == 3:
            store.write(part_key(FOLDER, 2), encode_part(2, (file_entry("b"),)))

    assert [entry.path for entry in collect_parts(store, FOLDER, (1, 2), 30.0, come)] == ["a", "b"]
    assert told == [[2], [2], [2]]


def test_a_part_that_doesnt_come_costs_the_checkpoint_within_the_bound() -> None:
    """After part_timeout the missing node is named."""
    with pytest.raises(
        PartMissingError, match=r"node 2 hasn't brought in its part after 0 s \(part_timeout\)"
    ):
        collect_parts(memory_store(), FOLDER, (2,), 0.1, no_wait)


def test_a_node_that_gives_up_isnt_waited_for() -> None:
    """A refusal ends the wait at once, with the node's own reason, whatever characters are in it."""
    store = memory_store()
    refuse_part(store, FOLDER, 1, "optimizer.pt was rewritten\n\x00 \udcff" + "x" * 600)
    begin = time.monotonic()
    with pytest.raises(PartMissingError) as caught:
        collect_parts(store, FOLDER, (1,), 60.0, no_wait)
    assert time.monotonic() - begin < 30
    assert "node 1 has given it up: optimizer.pt was rewritten" in str(caught.value)


def test_two_nodes_with_one_file_are_no_checkpoint() -> None:
    """Parts that overlap would make a manifest that nobody can read: refused before the commit."""
    store = memory_store()
    for node in (1, 2):
        store.write(part_key(FOLDER, node), encode_part(node, (file_entry("same"),)))
    with pytest.raises(CorruptError, match="two nodes"):
        collect_parts(store, FOLDER, (1, 2), 1.0, no_wait)


def test_the_newest_save_replaces_the_waiting_one() -> None:
    """On the node that commits, one save waits at most."""
    queue = UploadQueue()
    queue.put(job(1))
    assert queue.take() == job(1)
    assert queue.put(job(2)) == []
    assert queue.put(job(3)) == [job(2)]
    assert [waiting.seq for waiting in queue.jobs] == [1, 3]


def test_a_node_never_drops_what_the_leader_waits_for() -> None:
    """A slow node keeps the save that the leader carries, drops those in between, and gives up what nobody wants."""
    queue = UploadQueue()
    queue.put(job(1))
    queue.take()
    queue.want([1, 2])
    assert queue.put(job(2)) == []
    queue.want([2, 3])  # the leader has given 1 up
    assert queue.unwanted
    assert queue.put(job(3)) == []
    assert [waiting.seq for waiting in queue.jobs] == [1, 2, 3]
    queue.finish()
    assert queue.take() == job(2)
    queue.want([2, 4])
    assert not queue.unwanted
    assert queue.put(job(4)) == [job(3)]


def test_a_stopped_queue_gives_nothing_more() -> None:
    """``take`` returns None on a thread that waits when the queue is stopped."""
    queue = UploadQueue()
    found: list[Job | None] = []
    thread = threading.Thread(target=lambda: found.append(queue.take()))
    thread.start()
    queue.stop()
    thread.join(10)
    assert found == [None]


def test_a_finite_save_is_not_given_up_for_a_nan() -> None:
    """A finite save that waits, or is under way, isn't replaced by newer ones whose weights are nan."""
    queue = UploadQueue()
    queue.put(job(1))
    assert [one.seq for one in queue.put(job(2))] == [1]
    assert queue.put(job(3, "the loss is nan")) == []
    assert [one.seq for one in queue.put(job(4, "the loss is nan"))] == [3]
    under_way = queue.take()
    assert under_way is not None
    assert under_way.seq == 2
    assert not queue.newer_waits
    queue.finish()
    queue.take()
    assert [one.seq for one in queue.put(job(5))] == []
    assert queue.newer_waits
