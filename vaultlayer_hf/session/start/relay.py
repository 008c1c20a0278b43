"""Relay: what every node needs of a checkpoint comes from the store once, and goes on from node to node.

The common files are cut into stretches, and each node fetches every n-th one from the store. The others it takes
from the nodes that fetch those, which send them out of the files that they are writing. All nodes receive as much
as they would from the store, and send about as much; the store sends each byte once instead of once a node.

It pays where the store is one server, whose link the nodes share: with a link as wide as one node's, two nodes had
their checkpoint 1.50 times as fast, and four nodes 2.59 times. Where the store is as wide as all nodes together, as a
cloud's is, it doesn't pay: 0.99 times as fast on two nodes and 0.82 on four. Medians of 3 rounds, on two cores that the
nodes and the server shared with other work; why four nodes lose there wasn't looked into (part f of tests/benchmarks).

It is a shortcut and nothing depends on it: a node that can't be reached, falls silent, is slow, or has given up is
left out, and its stretches come from the store, from where they broke off. Every node checks every digest itself.
The connections are as open as those of the training's own traffic: whoever can read that can read these; a key
that the ranks share keeps others from asking.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vaultlayer_hf.stores.base import Take
from vaultlayer_hf.vault.manifest import FileEntry
from vaultlayer_hf.vault.restore.download import STRETCH
from vaultlayer_hf.vault.restore.ranges import ByteSource

SMALLEST = 256 * 2**20
"""Bytes that all nodes need below which connecting them isn't worth it."""
SMALL_FILE = 2**20
"""Bytes of a file below which each node fetches it."""
_PIECE = 2**20
"""Bytes that are read from another node at once."""
_CONNECT = 3.0
"""Seconds within which a node must accept a connection."""
_SILENCE = 10.0
"""Seconds without a sign of life after which a node is left out."""
_PULSE = 1.0
"""Seconds between the signs of life of a node that hasn't fetched yet what it is asked for."""
_SLOW = 60.0
"""Seconds for a stretch after which a node is left out although it lives."""
_YES, _NO, _LATER = b"+", b"-", b"."

Address = tuple[str, int]


def own_address() -> str | None:
    """Return the address by which this host reaches rank 0's, and so is likely reached itself; None: unknown."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(os.environ["MASTER_ADDR"], 9, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # sends nothing
            return str(probe.getsockname()[0])
    except (KeyError, OSError):
        return None


def stretches(entries: Sequence[FileEntry], nodes: int) -> dict[tuple[str, int], int]:
    """Return which node fetches which stretch, by path and offset, of files that all need. Pure."""
    found = [
        (entry.path, start)
        for entry in entries
        if entry.size >= SMALL_FILE
        for start in range(0, entry.size, STRETCH)
    ]
    return {stretch: number % nodes for number, stretch in enumerate(found)}


class Relay:
    """One node's end: sends what it has, and takes what others have.

    Args:
        node: number of this node.
        host: its address, to listen at. Raises OSError where it can't.

    Attributes:
        address: where the others find it.
        taken: bytes that came from other nodes.
    """

    def __init__(self, node: int, host: str) -> None:
        self.node, self.taken = node, 0
        self._folder, self._root, self._key = "", Path(), b""
        self._owners: dict[tuple[str, int], int] = {}
        self._peers: dict[int, Address] = {}
        self._sizes: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._there: set[tuple[str, int]] = set()
        self._over = False
        self._change = threading.Condition()
        self._server = _Server((host, 0), self)
        self.address: Address = (host, self._server.server_address[1])
        serve = self._server.serve_forever
        threading.Thread(target=lambda: serve(0.05), daemon=True, name="vaultlayer-relay").start()

    def connect(
        self,
        key: str,
        peers: Mapping[int, Address],
        entries: Sequence[FileEntry],
        owners: Mapping[tuple[str, int], int],
    ) -> None:
        """Learn what all nodes have agreed on: the key, who is there, and who fetches what."""
        with self._change:
            self._key, self._peers, self._owners = key.encode(), dict(peers), dict(owners)
            self._sizes = {entry.path: entry.size for entry in entries}
            self._change.notify_all()

    def source(self, store: ByteSource, folder: str, root: Path, there: set[str]) -> ByteSource:
        """Return what to restore a checkpoint's ``folder`` from into ``root``, which holds the files ``there``."""
        with self._change:
            self._folder, self._root = folder, root
            self._there |= {stretch for stretch in self._owners if stretch[0] in there}
            self._change.notify_all()
        return _Passing(self, store)

    def end(self) -> None:
        """Say that nothing more is fetched here; what has come is still sent, though the folder gets its name now."""
        with self._change:
            for path, _ in self._there:
                self._open(path)
            self._over = True
            self._change.notify_all()

    def close(self) -> None:
        """End all connections. Safe to call twice."""
        self.end()
        self._server.shutdown()
        self._server.server_close()
        with self._change:
            for descriptor in self._files.values():
                os.close(descriptor)
            self._files, self._there = {}, set()

    def read_pieces(self, store: ByteSource, key: str, start: int, length: int, take: Take) -> None:
        """Take a stretch from the node that fetches it; else, or what is left of it, from the store."""
        path = key.removeprefix(f"{self._folder}/")
        owner = self._owners.get((path, start), self.node)
        done = 0
        if owner != self.node and owner in self._peers:
            done = self._take(owner, path, start, length, take)
        if done < length:
            store.read_pieces(key, start + done, length - done, take)
        with self._change:
            self.taken += done
            self._there.add((path, start))
            self._change.notify_all()

    def _take(self, owner: int, path: str, start: int, length: int, take: Take) -> int:
        """Return how many bytes of a stretch came from a node; one that didn't give all is left out."""
        done = 0
        try:
            with socket.create_connection(self._peers[owner], _CONNECT) as connection:
                connection.settimeout(_SILENCE)
                wish = {"key": self._key.decode(), "path": path, "start": start}
                connection.sendall(json.dumps(wish).encode() + b"\n")
                deadline = time.monotonic() + _SLOW
                while (answer := connection.recv(1)) == _LATER and time.monotonic() < deadline:
                    pass
                buffer = memoryview(bytearray(_PIECE if answer == _YES else 0))
                while answer == _YES and done < length and time.monotonic() < deadline:
                    count = connection.recv_into(buffer[: length - done])
                    if not count:
                        break
                    take(start + done, buffer[:count])
                    done += count
        except (OSError, KeyError):
            pass
        if done < length:
            self._peers.pop(owner, None)
        return done

    def answer(self, connection: socket.socket, line: bytes) -> None:
        """Send what another node has asked for, once it is here."""
        wish = json.loads(line)
        stretch = (str(wish["path"]), int(wish["start"]))
        with self._change:  # the others may have learnt the key a moment before
            self._change.wait_for(lambda: self._key or self._over, _SILENCE / 2)
        if (
            not self._key
            or not hmac.compare_digest(str(wish["key"]).encode(), self._key)
            or stretch not in self._owners
        ):
            return
        while (descriptor := self._find(stretch)) is None:
            connection.sendall(_LATER)
        if descriptor < 0:
            connection.sendall(_NO)
            return
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            connection.sendall(_YES)
            connection.sendfile(file, stretch[1], min(STRETCH, self._sizes[stretch[0]] - stretch[1]))

    def _find(self, stretch: tuple[str, int]) -> int | None:
        """Return a descriptor of the file that holds a stretch, -1 if it won't come, None if it isn't there yet."""
        with self._change:
            self._change.wait_for(lambda: stretch in self._there or self._over, _PULSE)
            if stretch not in self._there:
                return -1 if self._over else None
            self._open(stretch[0])
            return os.dup(self._files[stretch[0]]) if stretch[0] in self._files else -1

    def _open(self, path: str) -> None:
        """Keep a descriptor of a file that is here, while it can be had under this name."""
        if path not in self._files:
            with contextlib.suppress(OSError):
                self._files[path] = os.open(self._root / path, os.O_RDONLY)


class _Passing:
    """What ``restore`` reads from: takes from other nodes what they fetch, and all else from the store."""

    def __init__(self, relay: Relay, store: ByteSource) -> None:
        self._relay, self._store = relay, store

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        self._relay.read_pieces(self._store, key, start, length, take)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: Address, relay: Relay) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.relay = relay
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks, or speaks another language, is the other side's affair."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = _SILENCE

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.relay.answer(self.connection, self.rfile.readline(4096))
