"""Part c: how fast training goes while a checkpoint is uploaded, over its speed without.

A bare training loop (forward, backward, AdamW) runs all the time; windows without and with an upload alternate,
and an upload that ends within its window begins again. So it is the speed *while* bytes move that is measured;
over a run it counts only for the seconds that uploads take. Uploads go at full speed into the null sink or a
folder on this machine, the worst case: a network would slow them, and so leave more to training. The sink runs
at the lowest priority: a real server takes nothing from this machine's cores.

Ways: ``process + nice`` is the package's way: a process of low priority moves large files for the upload thread.
``process`` is the same at the training's priority; ``thread + nice`` leaves them to the upload thread, as where no
process can be started, and ``thread`` that at the training's priority.
Run as ``python -m tests.benchmarks.speed WAY THREADS VAULT FOLDER WINDOW WINDOWS``.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import ours
from tests.benchmarks.measure import Row, child, done, ready
from tests.benchmarks.model import Tokens, small_llama
from tests.benchmarks.servers import BUCKET, environment, null_sink
from tests.benchmarks.transfer import make_folder

WAYS = ("thread", "thread + nice", "process", "process + nice")
GOAL = 0.95


def step_function() -> Callable[[], None]:
    """Return a function that does one training step of about 100 ms on one core."""
    import torch

    model = small_llama(60)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = Tokens(64, 1)[0]["input_ids"][None]

    def step() -> None:
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


class Load:
    """Uploads again and again while ``on`` is set; counts them."""

    def __init__(self, way: str, vault: str, folder: Path) -> None:
        self.on = threading.Event()
        self.rounds = 0
        self.stopping = False
        if way != ours.WAY:
            ours.go_another_way(way)
        self.carrier = ours.Carrier(vault, folder)
        self.carrier.carry()  # connections are made, threads are there
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while self.on.wait() and not self.stopping:
            self.carrier.carry()
            self.rounds += 1

    def close(self) -> None:
        """End the uploads."""
        self.stopping = True
        self.on.set()
        self.thread.join()
        self.carrier.close()


def train(way: str, threads: int, vault: str, folder: Path, window: float, windows: int) -> dict[str, float]:
    """Return the median ratio of speeds, and the uploads in a second of the windows that had them."""
    import torch

    torch.set_num_threads(threads)
    step = step_function()
    load = Load(way, vault, folder)
    for _ in range(5):
        step()
    ready()
    ratios = []
    busy_seconds = 0.0

    def speed() -> tuple[float, float]:
        steps, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < window:
            step()
            steps += 1
        return steps / spent, spent

    before, _ = speed()
    carried = load.rounds
    for _ in range(windows):
        load.on.set()
        during, spent = speed()
        load.on.clear()
        busy_seconds += spent
        while load.rounds == carried:  # let the one under way end outside of any window
            time.sleep(0.05)
        settled = load.rounds
        time.sleep(0.3)
        while load.rounds != settled:
            settled = load.rounds
            time.sleep(0.3)
        after, _ = speed()
        ratios.append(during / ((before + after) / 2))
        before = after
    load.close()
    return {
        "ratio": statistics.median(ratios),
        "per_second": (load.rounds - carried) / busy_seconds,
        "alone": before,
    }


def measure(
    work: Path,
    megabytes: int,
    rounds: int,
    window: float,
    say: Callable[[str], None],
    ways: tuple[str, ...] = WAYS,
    cores: tuple[int, ...] = (1, 2),
) -> list[Row]:
    """Run each way with each number of torch's threads, of two cores; return the rows."""
    source = work / "checkpoint-500"
    size = make_folder(source, megabytes)
    results: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    with null_sink(work / "sink", source, modest=True) as endpoint:
        for number in range(rounds):
            for threads in cores:
                for target in ("null sink", "folder"):
                    for way in ways:
                        where = f"s3://{BUCKET}/{way}" if target == "null sink" else str(work / "vault")
                        where = where.replace(" + ", "-")
                        arguments = (way, str(threads), where, str(source), str(window), "3")
                        result = child("speed", *arguments, extra=environment(endpoint))
                        results.setdefault((target, way, threads), []).append(result)
                        ours.forget(where)
                        rate = result["per_second"] * size / 1e6
                        say(
                            f"{target} {way} {threads} threads round {number}: {result['ratio']:.3f} at {rate:.0f} MB/s"
                        )
    rows = []
    for (target, way, threads), found in sorted(results.items(), key=lambda item: (item[0][2], item[0][0])):
        ratio = statistics.median(each["ratio"] for each in found)
        rate = statistics.median(each["per_second"] for each in found) * size / 1e6
        left = "one core left to the upload" if threads == 1 else "no core left"
        goal = f">= {GOAL}" if threads == 1 and way == ours.WAY else ""
        rows.append(
            Row(
                "c",
                f"training during an upload, {target}, {left}",
                way,
                f"{rate:.0f} MB/s uploaded",
                f"{ratio:.2f} of the speed alone",
                goal,
                ratio >= GOAL if goal else None,
            )
        )
    return rows


if __name__ == "__main__":
    kind, cores, uri, source_folder, length, count = sys.argv[1:]
    done(**train(kind, int(cores), uri, Path(source_folder), float(length), int(count)))
