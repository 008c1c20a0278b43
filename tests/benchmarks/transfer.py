"""Part a: a checkpoint folder goes up and comes back, by every client, into a real server and a null sink.

Part k is the same by this package alone: with neither key, signed, and encrypted, as ratios to neither.

One round takes the clients one after the other, the first one another in each round; a client uploads and then
restores what it has uploaded. Rates are bytes of the folder over wall seconds of the operation alone: a process
that has imported everything, from the call to its return. Ours does more in that time than the others: it
digests, writes log, manifest and commit, verifies on the way back and flushes files to the disk.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy

from tests.benchmarks.clients import OURS, Client, all_clients, files_of, sealed_clients
from tests.benchmarks.measure import Row, child, median_ratio
from tests.benchmarks.servers import environment, null_sink, seaweedfs

Say = Callable[[str], None]


def make_folder(folder: Path, megabytes: int) -> int:
    """Write a folder with the files of a Trainer's checkpoint, of random bytes; return its size in bytes."""
    folder.mkdir(parents=True)
    generator = numpy.random.Generator(numpy.random.SFC64(0))
    model, optimizer = megabytes * 35 // 100 * 10**6, megabytes * 65 // 100 * 10**6
    header = json.dumps({"weight": {"dtype": "U8", "shape": [model], "data_offsets": [0, model]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        _fill(file.write, generator, model)
    with open(folder / "optimizer.pt", "wb") as file:
        _fill(file.write, generator, optimizer)
    for name, size in (("scheduler.pt", 1465), ("rng_state.pth", 14645), ("training_args.bin", 5777)):
        (folder / name).write_bytes(generator.bytes(size))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "trainer_state.json").write_text(
        json.dumps({"global_step": 500, "best_model_checkpoint": None})
    )
    return sum((folder / name).stat().st_size for name in files_of(folder))


def _fill(write: Callable[[bytes], object], generator: numpy.random.Generator, size: int) -> None:
    while size:
        block = min(size, 16 << 20)
        write(generator.bytes(block))
        size -= block


def _touch_memory(path: Path, size: int) -> None:
    """Fill the page cache with a file and drop it.

    A virtual machine gives memory that it hasn't used for seconds back to its host, and getting it again costs
    more than any client: 2.4 s of kernel time for a GB of page cache here, against 0.5. Whoever came first
    after a pause would pay for all; so everyone finds memory that was in use a moment ago.
    """
    block = bytes(8 << 20)
    with open(path, "wb", buffering=0) as file:
        for _ in range(0, size, len(block)):
            file.write(block)
    path.unlink()


def _same(source: Path, target: Path) -> bool:
    return all(filecmp.cmp(source / name, target / name, shallow=False) for name in files_of(source))


def measure(
    work: Path,
    megabytes: int,
    rounds: int,
    say: Say,
    only: set[str] | None = None,
    where: set[str] | None = None,
    *,
    clients: Sequence[Client] | None = None,
    servers: Mapping[str, Callable[[Path], AbstractContextManager[dict[str, str]]]] | None = None,
    section: str = "a",
    base: str = "",
) -> list[Row]:
    """Run the part in ``work``, a folder with room for ten times ``megabytes``; return its rows.

    ``only`` limits it to some clients, ``where`` to some servers. ``clients`` and ``servers``, each of which gives
    the variables that lead to it, are those of part a by default.
    """
    source = work / "checkpoint-500"
    size = make_folder(source, megabytes)
    every = all_clients() if clients is None else clients
    clients = [client for client in every if client.load() and (not only or client.name in only)]
    missing = [client.name for client in every if not client.load()]
    if missing:
        say(f"not installed, left out: {', '.join(missing)}")
    rows: list[Row] = []
    for server, start in (servers or _servers(source)).items():
        if where and server not in where:
            continue
        seconds: dict[tuple[str, str], list[float]] = {}
        growth: dict[tuple[str, str], list[float]] = {}
        spent: dict[tuple[str, str], list[float]] = {}
        for number in range(-1, rounds):
            turn = number % len(clients)
            order = clients[turn:] + clients[:turn] if number >= 0 else clients[:2]  # these warm the caches
            with start(work / f"server{number}") as environ:  # short: the server's socket lies in it
                for client in order:
                    for direction in ("up", "down"):
                        folder = source if direction == "up" else work / "restored"
                        if direction == "down":
                            folder.mkdir()
                        if (server, direction) != ("null sink", "up"):
                            _touch_memory(work / "touched", size)
                        os.sync()  # what the one before left in the page cache is not this one's to write
                        prefix = "".join(filter(str.isalnum, client.name))
                        arguments = (client.name, direction, f"run/{prefix}", str(folder))
                        result = child("move", *arguments, extra=environ)
                        rate = size / result["seconds"] / 1e6
                        used = result["core_seconds"]
                        say(
                            f"{server} round {number} {client.name} {direction}: {rate:.0f} MB/s, {used:.1f} core s"
                        )
                        if direction == "down":
                            if number <= 0 and not _same(source, work / "restored"):
                                raise RuntimeError(f"{client.name} brought back something else")
                            shutil.rmtree(work / "restored")
                        if number >= 0:
                            seconds.setdefault((client.name, direction), []).append(result["seconds"])
                            growth.setdefault((client.name, direction), []).append(result["growth"])
                            spent.setdefault((client.name, direction), []).append(used)
        rows += _rows(section, server, size, seconds, growth, spent, base)
    return rows


def measure_keys(work: Path, megabytes: int, rounds: int, say: Say) -> list[Row]:
    """Run part k in ``work``: on the real server, and in a folder on this disk, where nothing hides a key's cost."""

    @contextmanager
    def folder(place: Path) -> Iterator[dict[str, str]]:
        yield {"BENCH_VAULTS": str(place)}
        shutil.rmtree(place)

    where = {"SeaweedFS": _servers(work)["SeaweedFS"], "folder": folder}
    return measure(
        work, megabytes, rounds, say, clients=sealed_clients(), servers=where, section="k", base=OURS
    )


def _servers(source: Path) -> dict[str, Callable[[Path], AbstractContextManager[dict[str, str]]]]:
    """Return the servers of part a."""

    @contextmanager
    def sink(folder: Path) -> Iterator[dict[str, str]]:
        with null_sink(folder, source) as endpoint:
            yield environment(endpoint)

    @contextmanager
    def weed(folder: Path) -> Iterator[dict[str, str]]:
        with seaweedfs(folder) as endpoint:
            yield environment(endpoint)

    return {"null sink": sink, "SeaweedFS": weed}


def _rows(
    section: str,
    server: str,
    size: int,
    seconds: dict[tuple[str, str], list[float]],
    growth: dict[tuple[str, str], list[float]],
    spent: dict[tuple[str, str], list[float]],
    base: str,
) -> list[Row]:
    goal = 0.7 if server == "null sink" else 0.95
    rows = []
    for direction, verb in (("up", "upload"), ("down", "restore")):
        names = [name for name, way in seconds if way == direction]
        rivals = [name for name in names if not name.startswith(OURS)]
        medians = {name: statistics.median(seconds[name, direction]) for name in names}
        fastest = base or min(rivals or names, key=lambda name: medians[name])
        for name in sorted(names, key=lambda name: (name != OURS, medians[name])):
            ratio = median_ratio(seconds[fastest, direction], seconds[name, direction])
            rows.append(
                Row(
                    section,
                    f"{verb} {size / 1e9:.1f} GB, {server}",
                    name,
                    f"{size / medians[name] / 1e6:.0f} MB/s, {statistics.median(spent[name, direction]):.1f} core s",
                    f"{ratio:.2f} of {base or 'the fastest other'}",
                    f">= {goal}" if name == OURS != base else "",
                    ratio >= goal if name == OURS != base else None,
                    max(growth[name, direction]) / 1e6,
                )
            )
    return rows
