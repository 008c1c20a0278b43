"""Part e: how commits, rounds between ranks and discovery grow, against a real SeaweedFS.

``python -m tests.benchmarks --only e``; the figures of one case come from a fresh process, this module as a child.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Row, child, done, ready
from tests.benchmarks.servers import BUCKET, environment, seaweedfs

FILES = 12
"""Files of each node: RNG states and shards of eight ranks or so."""
PARTS = (1, 4, 16, 64, 256, 1024)
RANKS = (2, 16, 128, 1024)
ENTRIES = (10, 100, 1000, 10_000)
QUICK = 16


def measure(work: Path, rounds: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Return the rows; ``quick`` measures the smallest cases only."""
    rows = []

    def fits(sizes: tuple[int, ...]) -> list[int]:
        return [size for size in sizes if not quick or size <= QUICK]

    with seaweedfs(work) as endpoint:
        for what, unit, sizes in (("commit", "parts", PARTS), ("discover", "entries", ENTRIES)):
            for size in fits(sizes):
                say(f"{what} with {size} {unit}")
                result = child("growth", what, str(size), str(rounds), extra=environment(endpoint))
                rows.append(_row(what, f"{size} {unit}", size, result))
    for size in fits(RANKS):
        say(f"rounds of {size} ranks")
        rows.append(_row("rounds", f"{size} ranks", size, child("growth", "rounds", str(size), str(rounds))))
    return rows


def _row(what: str, who: str, size: int, result: dict[str, Any]) -> Row:
    seconds = statistics.median(result["seconds"])
    requests, trip = result.get("requests", 0), result.get("trip", 0.0)
    beyond = seconds - requests * trip
    if what == "commit":
        goal, met = ("< 2 s", seconds < 2) if size == 1024 else ("", None)
        title = "commit, from the last part in to the entry there"
        ratio = f"{requests} requests"
    elif what == "discover":
        goal, met = "O(1) requests, < 50 ms beyond them", requests <= 3 and beyond < 0.05
        title = "discovery"
        ratio = f"{requests} requests of {trip * 1000:.1f} ms, {beyond * 1000:+.1f} ms beyond them"
    else:
        goal, met, title, ratio = "", None, "two rounds of a save, on rank 0 once all have spoken", ""
    return Row("e", title, who, f"{seconds * 1000:.1f} ms", ratio, goal, met, result["growth"] / 1e6)


def _commit(nodes: int, rounds: int) -> None:
    """Commit with parts that other nodes have just brought in."""
    from vaultlayer_hf.base.digest import digest_bytes
    from vaultlayer_hf.vault.keys import part_key
    from vaultlayer_hf.vault.log.log import Log, Writer
    from vaultlayer_hf.vault.manifest import FileEntry, Manifest, encode_part
    from vaultlayer_hf.vault.upload.parts import collect_parts
    from vaultlayer_hf.vault.upload.sending import Transfer, commit

    digest = digest_bytes(b"")
    bare = _store(f"commit-{nodes}")
    store = _counted(bare)
    writer, _ = Writer.claim(store, Log(store))

    def part(node: int) -> tuple[FileEntry, ...]:
        return tuple(FileEntry(f"global_step/shard_{node}_{file}.pt", 1, digest) for file in range(FILES))

    folders = [f"data/{writer.token}/checkpoint-{number}" for number in range(rounds)]
    with ThreadPoolExecutor(16) as pool:
        for folder in folders:
            keys = [(part_key(folder, node), encode_part(node, part(node))) for node in range(1, nodes)]
            list(pool.map(lambda item: bare.write(*item), keys))
    ready()
    seconds, requests = [], 0
    for number, folder in enumerate(folders):
        before = len(store.operations)
        begin = time.perf_counter()
        others = collect_parts(store, folder, range(1, nodes), 60, lambda missing, waited: None)
        files = tuple(sorted((*part(0), *others), key=lambda entry: entry.path))
        manifest = Manifest(
            step=number, token=writer.token, seq=number + 1, files=files, world_size=8 * nodes
        )
        commit(store, writer, manifest, Transfer(folder), resumed_from=None)
        seconds.append(time.perf_counter() - begin)
        requests = len(store.operations) - before
    done(seconds=seconds, requests=requests)


def _discover(entries: int, rounds: int) -> None:
    """Find the newest checkpoint in a log of so many entries, as a new process does."""
    from dataclasses import replace

    from vaultlayer_hf.base.digest import digest_bytes
    from vaultlayer_hf.vault.keys import HINT
    from vaultlayer_hf.vault.log.entry import Commit, VaultState
    from vaultlayer_hf.vault.log.log import Log, Writer, now

    store = _store(f"discover-{entries}")
    writer, _ = Writer.claim(store, Log(store))

    def change(state: VaultState, number: int) -> VaultState:
        made = Commit(
            number=number,
            token=writer.token,
            seq=number,
            step=number,
            folder=f"data/{writer.token}/checkpoint-{number}",
            time=now(),
            bytes=10**9,
            files=12,
            manifest=digest_bytes(b""),
            manifest_size=10_000,
        )
        return replace(state, commits=(*state.commits, made)[-3:])

    for _ in range(entries - 1):
        writer.append("commit", change)
    counted = _counted(_store(f"discover-{entries}"))
    counted.exists(HINT)  # the connection is there, as it is behind the check of the credentials
    trips = []
    for _ in range(20):
        begin = time.perf_counter()
        counted.exists(HINT)
        trips.append(time.perf_counter() - begin)
    ready()
    seconds, requests = [], 0
    for _ in range(max(rounds, 5)):
        before = len(counted.operations)
        begin = time.perf_counter()
        number, entry = Log(counted).last()
        seconds.append(time.perf_counter() - begin)
        requests = len(counted.operations) - before
        assert number == entries
        assert entry is not None
    done(seconds=seconds, requests=requests, trip=statistics.median(trips))


def _rounds(world: int, rounds: int) -> None:
    """The two rounds of a save between nodes of eight ranks, over a TCP store as torch.distributed has it."""
    from torch.distributed import TCPStore

    from vaultlayer_hf.session.messages import MessageStore
    from vaultlayer_hf.session.ranks import Ranks
    from vaultlayer_hf.session.save.plan import NodeFiles, RankStatus, divide

    own = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    others = TCPStore("127.0.0.1", own.port, is_master=False, timeout=timedelta(seconds=60))
    messages, ranks = MessageStore(others, "nonce"), Ranks(0, world, own, 60.0, "nonce")

    def listing(rank: int) -> NodeFiles:
        if rank % 8:
            return NodeFiles()
        names = [f"global_step10/shard_{rank}_{file}.pt" for file in range(FILES)]
        return NodeFiles(rank // 8, ("trainer_state.json", "scheduler.pt", *names))

    for number in range(rounds):
        for rank in range(1, world):
            messages.put(f"save/{number}/{rank}", RankStatus(rank // 8))
            messages.put(f"listed/{number}/{rank}", listing(rank))
    ready()
    seconds = []
    for number in range(rounds):
        begin = time.perf_counter()
        ranks.gather(RankStatus(0), tag=f"save/{number}")
        ranks.decide(listing(0), lambda found: divide(found).owners, tag=f"listed/{number}")
        seconds.append(time.perf_counter() - begin)
    done(seconds=seconds)


def _store(name: str) -> Any:
    from vaultlayer_hf.stores import open_store
    from vaultlayer_hf.stores.uri import parse_vault

    return open_store(parse_vault(f"s3://{BUCKET}/{name}"))


def _counted(store: Any) -> Any:
    from vaultlayer_hf.testing.faults import FaultStore

    return FaultStore(store)


if __name__ == "__main__":
    case = {"commit": _commit, "discover": _discover, "rounds": _rounds}
    case[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
