"""What all nodes need comes from the store once and goes on from node to node; whatever fails there costs nothing."""

from __future__ import annotations

import json
import random
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.session.test_ranks import on_all, ranks_of
from tests.vault.tools import claim, memory_store, transfer_of
from tests.vault.vaults import PARAMETERS, TrainersFiles, content, write_checkpoint
from vaultlayer_hf import Settings
from vaultlayer_hf.base.events import Event, Events
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start import relay
from vaultlayer_hf.session.start.relay import Relay
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing.faults import FaultStore
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.restore import download
from vaultlayer_hf.vault.snapshot import seal_snapshot, take_snapshot
from vaultlayer_hf.vault.upload.sending import commit, send, write_part

LARGE = {"model.safetensors": 700_000, "optimizer.pt": 1_450_000}
PIECE = 100_000
PIECES = 7 + 15
WORLD = 3


@pytest.fixture(autouse=True)
def _small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for module in (relay, download):
        monkeypatch.setattr(module, "STRETCH", PIECE)
    monkeypatch.setattr(relay, "SMALLEST", PIECE)
    monkeypatch.setattr(relay, "SMALL_FILE", PIECE)


@dataclass
class Node:
    """What a node did in a restore: how it ended, its requests, its events."""

    folder: Path | Exception
    store: FaultStore
    told: list[Event]

    @property
    def fetched(self) -> list[str]:
        """The large file of each request to the store for a stretch."""
        names = [one.key.rpartition("/")[2] for one in self.store.operations if one.name == "read_range"]
        return [name for name in names if name in LARGE]


def vault(folder: Path) -> tuple[Store, dict[str, bytes]]:
    """Commit a checkpoint of three ranks; return the store and the content of its folder."""
    store = memory_store()
    made = write_checkpoint(folder, 2)
    for name, size in LARGE.items():
        (made / name).write_bytes(random.Random(name).randbytes(size))
    (made / "rng_state.pth").unlink()
    for rank in range(WORLD):
        (made / f"rng_state_{rank}.pth").write_bytes(b"%d" % rank)
    writer = claim(store)
    manifest = Manifest(2, writer.token, 1, (), world_size=WORLD, parameters=PARAMETERS)
    snapshot = seal_snapshot(take_snapshot(made, folder / "snapshots", 1, manifest))
    transfer = transfer_of(writer, snapshot)
    send(store, snapshot, transfer)
    write_part(store, snapshot, transfer, 0)
    commit(store, writer, snapshot.manifest, transfer, resumed_from=None)
    return store, content(made)


def restore_everywhere(store: Store, folder: Path) -> list[Node]:
    """Resume on three nodes with a disk each, at once."""
    with ranks_of(WORLD, timeout=20.0) as ranks:
        stores = [FaultStore(store) for _ in ranks]
        told: list[list[Event]] = [[] for _ in ranks]

        def start(one: Ranks) -> Any:
            events = Events()
            events.listen(told[one.rank].append)
            settings = Settings(
                vault="file:///unused", resume_timeout=5.0, flush_timeout=5.0, upload_concurrency=4
            )
            output = folder / f"node-{one.rank}"
            session = Session(
                settings, output, ranks=one, events=events, store=stores[one.rank], progress=False
            )
            try:
                return resume(session, TrainersFiles())
            finally:
                session.close()

        return [Node(*each) for each in zip(on_all(ranks, start), stores, told, strict=True)]


def check(nodes: list[Node], expected: dict[str, bytes]) -> None:
    """Every node has what it loads, and no step back was made."""
    for rank, node in enumerate(nodes):
        assert isinstance(node.folder, Path), node.folder
        found = content(node.folder)
        others = {f"rng_state_{other}.pth" for other in range(WORLD) if other != rank}
        assert found == {name: data for name, data in expected.items() if name not in others}
        assert not [event for event in node.told if event.kind == "walk-back"]


def test_each_stretch_comes_from_the_store_once(tmp_path: Path) -> None:
    """Three empty disks: every stretch is fetched by one node, a third each, and all end with all of it."""
    store, expected = vault(tmp_path)
    nodes = restore_everywhere(store, tmp_path)
    check(nodes, expected)
    assert sorted(len(node.fetched) for node in nodes) == [
        PIECES // 3,
        PIECES // 3,
        PIECES - 2 * (PIECES // 3),
    ]
    for node in nodes:
        (event,) = [event for event in node.told if event.kind == "restore"]
        assert event.fields["taken"] > 1_000_000
        assert "by way of other nodes" in event.message


def test_a_node_sends_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that kept its files fetches nothing, and the new ones take its share from it."""
    for name in ("_SILENCE", "_SLOW", "_CONNECT"):  # a busy machine is no reason to fetch anything twice here
        monkeypatch.setattr(relay, name, 120.0)
    store, expected = vault(tmp_path)
    check(restore_everywhere(store, tmp_path), expected)
    for rank in (0, 2):
        shutil.rmtree(tmp_path / f"node-{rank}")
    nodes = restore_everywhere(store, tmp_path)
    check(nodes, expected)
    assert nodes[1].fetched == []
    assert len(nodes[0].fetched) + len(nodes[2].fetched) == PIECES - PIECES // 3


@pytest.mark.parametrize("how", ["silent", "unreachable", "breaks off", "slow", "gives up"])
def test_a_node_that_doesnt_send_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whatever is wrong with a node's end, the others fetch its stretches from the store, or what is left of them."""
    store, expected = vault(tmp_path)
    plain = Relay.answer
    for name, seconds in (("_SILENCE", 0.5), ("_SLOW", 1.0), ("_CONNECT", 0.5)):
        monkeypatch.setattr(relay, name, seconds)

    def answer(self: Relay, connection: socket.socket, line: bytes) -> None:
        if self.node != 1 or how == "unreachable":
            plain(self, connection, line)
        elif how == "silent":
            connection.recv(1)
        elif how == "breaks off":
            wanted = json.loads(line)
            connection.sendall(b"+" + expected[wanted["path"]][wanted["start"] :][: PIECE // 2])
        elif how == "slow":
            for _ in range(40):
                connection.sendall(b".")
                relay.time.sleep(0.1)
        else:
            connection.sendall(b"-")

    monkeypatch.setattr(Relay, "answer", answer)
    if how == "unreachable":
        begin = Relay.__init__

        def elsewhere(self: Relay, node: int, host: str) -> None:
            begin(self, node, host)
            if node == 1:
                self.address = (host, 9)

        monkeypatch.setattr(Relay, "__init__", elsewhere)
    nodes = restore_everywhere(store, tmp_path)
    check(nodes, expected)
    for rank in (0, 2):
        assert PIECES // 3 < len(nodes[rank].fetched) <= 2 * PIECES // 3 + 1


def test_what_a_node_sends_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that went bad on the way are fetched again from the store: the checkpoint itself isn't blamed."""
    store, expected = vault(tmp_path)
    plain = socket.socket.sendfile

    def damage(self: socket.socket, file: Any, offset: int = 0, count: int | None = None) -> int:
        if file.fileno() % 2:
            return plain(self, file, offset, count)
        data = bytearray(relay.os.pread(file.fileno(), count or 0, offset))
        data[len(data) // 2] ^= 1
        self.sendall(data)
        return len(data)

    monkeypatch.setattr(socket.socket, "sendfile", damage)
    check(restore_everywhere(store, tmp_path), expected)


def test_only_the_ranks_can_ask(tmp_path: Path) -> None:
    """Without the key, or for a path that isn't a stretch of the checkpoint, the connection just ends."""
    secret = tmp_path / "secret"
    secret.write_text("x" * PIECE)
    end = Relay(0, "127.0.0.1")
    try:
        end.connect("key", {}, [], {("model", 0): 0})
        end.source(restore_nothing, "data/1/checkpoint-2", tmp_path, {"model"})
        for asked in (
            {"key": "other", "path": "model", "start": 0},
            {"key": "key", "path": "../secret", "start": 0},
            {"key": "key", "path": "secret", "start": 0},
            ["no", "wish"],
        ):
            with socket.create_connection(end.address, 5) as connection:
                connection.sendall(json.dumps(asked).encode() + b"\n")
                assert connection.recv(1) == b""
    finally:
        end.close()
        end.close()


class _Nothing:
    def read_pieces(self, *_: object) -> None:
        raise AssertionError("nothing is read")


restore_nothing = _Nothing()
