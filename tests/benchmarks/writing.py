"""Part h, how a copy of a state gets to the disk: through the page cache or past it, by a thread or by a process.

Each way writes the same bytes from host memory, again and again, while a training computes beside it; what counts is
how much of its speed the training keeps, and the processor time of a gigabyte. A checkpoint is read twice behind its
write, for the seal and for the upload: so each file is read twice here, too, which costs more where the page cache
doesn't hold it.
Run as ``python -m tests.benchmarks.writing WAY FOLDER MEGABYTES THREADS``.
"""

from __future__ import annotations

import mmap
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Row, child, done, ready
from vaultlayer_hf.base.digest import digest_file

CHUNK = 8 * 2**20
"""Bytes of one write."""
ALONE = 3.0
"""Seconds of training by itself, ahead of the writing."""
TIMES = 2
"""How often the bytes are written, and read twice."""
WAYS = (
    "page cache, a thread",
    "page cache, a process of lowest priority",
    "past the page cache, a thread",
    "past the page cache, a process of lowest priority",
)


def train(way: str, folder: str, megabytes: int, threads: int) -> dict[str, Any]:
    """Train by itself, then while bytes are written; return steps a second of both, and what the writing took."""
    import torch

    torch.set_num_threads(threads)
    size = megabytes * 2**20
    held = mmap.mmap(-1, size)  # shared with a process that is forked off
    for begin in range(0, size, CHUNK):
        held[begin : begin + CHUNK] = os.urandom(2**20) * 8
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(8)))
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(256, 1024)

    def steps(over: Callable[[], bool]) -> float:
        begin, count = time.perf_counter(), 0
        while not over():
            model(batch).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            count += 1
        return count / (time.perf_counter() - begin)

    def write() -> None:
        for number in range(TIMES):
            path = Path(folder) / f"file-{number}"
            _write(path, held, direct=way.startswith("past"))
            for _ in range(2):
                digest_file(path)

    ready()
    Path(folder).mkdir(parents=True)
    until = time.perf_counter() + ALONE
    steps(lambda: time.perf_counter() > until)
    until = time.perf_counter() + ALONE
    alone = steps(lambda: time.perf_counter() > until)
    begin = time.perf_counter()
    ended: list[tuple[float, float]] = []
    if "process" in way:
        child_id = os.fork()
        if child_id == 0:
            os.nice(19)
            write()
            os._exit(0)

        def wait() -> None:
            _, status, used = os.wait4(child_id, 0)
            assert status == 0
            ended.append((time.perf_counter() - begin, used.ru_utime + used.ru_stime))

    else:

        def wait() -> None:
            write()
            used = resource.getrusage(resource.RUSAGE_THREAD)
            ended.append((time.perf_counter() - begin, used.ru_utime + used.ru_stime))

    thread = threading.Thread(target=wait)
    thread.start()
    beside = steps(lambda: not thread.is_alive())
    seconds, processor = ended[0]
    return {"alone": alone, "beside": beside, "seconds": seconds, "processor": processor}


def _write(path: Path, held: mmap.mmap, *, direct: bool) -> None:
    """Write what is held to a file, durably."""
    view = memoryview(held)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (os.O_DIRECT if direct else 0))
    try:
        for begin in range(0, len(view), CHUNK):
            os.write(descriptor, view[begin : begin + CHUNK])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        view.release()


def measure(
    work: Path, megabytes: int, rounds: int, threads: tuple[int, ...], say: Callable[[str], None]
) -> list[Row]:
    """Run the ways alternately and return their rows; a disk that has no way past the page cache is said."""
    rows = []
    for count in threads:
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way, found in runs.items():
                folder = work / "written"
                one = child("writing", way, str(folder), str(megabytes), str(count), timeout=300)
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
                found.append(one)
                say(f"{way}, threads {count}, round {number}: {one['seconds']:.1f} s")
        for way, found in runs.items():
            kept = statistics.median(one["beside"] / one["alone"] for one in found)
            seconds = statistics.median(one["seconds"] for one in found)
            processor = statistics.median(one["processor"] for one in found)
            gigabytes = TIMES * megabytes * 2**20 / 1e9
            rows.append(
                Row(
                    "h",
                    f"training beside a write and two reads, torch threads {count} of {os.cpu_count()}",
                    way,
                    f"{gigabytes / seconds * 1e3:.0f} MB/s, {processor / gigabytes:.2f} core s a GB",
                    f"{kept:.2f} of the speed alone; {seconds * (1 - kept) / gigabytes:.2f} s of training lost a GB",
                )
            )
    return rows


if __name__ == "__main__":
    kind, where, size_, cores = sys.argv[1:]
    done(**train(kind, where, int(size_), int(cores)))
