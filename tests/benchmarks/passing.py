"""Part f: a restore on several nodes, each from the store, or passed on from node to node. Needs root and iproute2.

Every node is a network namespace whose link carries 100 Mbit/s each way, so that links are what bounds it and not the
two cores. The store's link carries as much as one node's (one server of one's own), or as all nodes' together (a
cloud's object store). The checkpoint is small for that, and so are the stretches that it is cut into.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.measure import ROOT, Row
from tests.benchmarks.ours import Carrier
from tests.benchmarks.servers import BUCKET, environment, seaweedfs
from tests.ranks.launchers import Network, networks
from tests.servers import die_with_parent, free_ports

LINK = 100
"""Mbit/s of a node's link, each way."""
SIZE = 64 * 10**6
"""Bytes of the checkpoint."""
STRETCH = 2 * 2**20
NODES = (2, 4)


def measure(work: Path, rounds: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Return the rows: seconds until the slowest node has its checkpoint, in turns with and without passing on."""
    rows = []
    source = work / "source"
    source.mkdir(parents=True)
    for name, part in (("model.safetensors", 0.35), ("optimizer.pt", 0.65)):
        (source / name).write_bytes(os.urandom(int(SIZE * part)))
    with seaweedfs(work / "server") as endpoint:
        os.environ.update(environment(endpoint))
        carrier = Carrier(f"s3://{BUCKET}/passing", source)
        carrier.carry()
        carrier.close()
        for count in NODES[:1] if quick else NODES:
            for wide in (False, True):
                who = "all nodes' links" if wide else "one node's link"
                seconds: dict[bool, list[float]] = {False: [], True: []}
                for number in range(2 * rounds):
                    passing = number % 2 == 1
                    say(
                        f"restore on {count} nodes, a store as wide as {who}, {'passed on' if passing else 'each'}"
                    )
                    with (
                        networks(count) as nodes,
                        _store_beside(nodes, endpoint, LINK * (count if wide else 1)) as at,
                    ):
                        seconds[passing].append(_restore(nodes, at, passing, work))
                for passing, way in ((False, "each node from the store"), (True, "passed on between nodes")):
                    title = f"restore of {SIZE // 10**6} MB on {count} nodes, a store as wide as {who}"
                    gain = statistics.median(
                        a / b for a, b in zip(seconds[False], seconds[True], strict=True)
                    )
                    ratio = f"{gain:.2f} times as fast" if passing else ""
                    rows.append(Row("f", title, way, f"{statistics.median(seconds[passing]):.1f} s", ratio))
    return rows


@contextmanager
def _store_beside(nodes: list[Network], endpoint: str, rate: int) -> Iterator[str]:
    """Make a server of this host reachable for the nodes over a link of ``rate`` Mbit/s; theirs get their limit."""
    address = f"{nodes[0].address.rpartition('.')[0]}.254"
    _call("ip", "addr", "add", f"{address}/24", "dev", nodes[0].bridge)
    _limit(nodes[0].bridge, rate)
    for node in nodes:
        _limit(node.link, LINK)
        _limit("eth0", LINK, *node.enter)
    port, target = free_ports(1)[0], int(endpoint.rpartition(":")[2])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(_forward(address, port, target), loop).result(10)
    try:
        yield f"http://{address}:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _forward(address: str, port: int, target: int) -> None:
    """Pass connections on to a port of this host; the signature of a request covers the address that it was sent to."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**18):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    await asyncio.start_server(meet, address, port)


def _restore(nodes: list[Network], endpoint: str, passing: bool, work: Path) -> float:
    """Restore on every node at once; return the seconds of the slowest."""
    folder = Path(tempfile.mkdtemp(dir=work))
    processes = []
    port = free_ports(1)[0]
    for rank, node in enumerate(nodes):
        arguments = [str(rank), str(len(nodes)), str(port), str(folder / str(rank)), str(int(passing))]
        processes.append(
            subprocess.Popen(
                [*node.enter, sys.executable, "-m", "tests.benchmarks.passing", *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "AWS_ENDPOINT_URL": endpoint,
                    "MASTER_ADDR": nodes[0].address,
                    "PYTHONPATH": str(ROOT),
                    "OMP_NUM_THREADS": "1",
                },
                stdout=subprocess.PIPE,
                preexec_fn=die_with_parent,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a node's restore failed")
    results = [json.loads(output.strip().splitlines()[-1]) for output in outputs]
    expected = SIZE * (len(nodes) - 1) // len(nodes)
    if passing and any(result["taken"] < expected * 0.9 for result in results):
        raise RuntimeError(f"the nodes have hardly passed anything on: {results}")
    return max(result["seconds"] for result in results)


def _node(rank: int, world: int, port: int, output: Path, passing: bool) -> None:
    """Be one node: resume from the vault as a training of one rank a node does."""
    from datetime import timedelta

    from torch.distributed import TCPStore

    from tests.kit.any_files import AnyFiles
    from vaultlayer_hf.base.events import Events
    from vaultlayer_hf.session.ranks import Ranks
    from vaultlayer_hf.session.session import Session
    from vaultlayer_hf.session.settings import Settings
    from vaultlayer_hf.session.start import relay
    from vaultlayer_hf.session.start.resume import resume
    from vaultlayer_hf.vault.restore import download

    relay.STRETCH = download.STRETCH = STRETCH
    relay.SMALLEST = 0 if passing else 2**60
    store = TCPStore(os.environ["MASTER_ADDR"], port, is_master=rank == 0, timeout=timedelta(seconds=120))
    ranks = Ranks(rank, world, store, 120.0)
    events, taken = Events(), []
    events.listen(lambda event: taken.append(event.fields["taken"]) if event.kind == "restore" else None)
    session = Session(
        Settings(vault=f"s3://{BUCKET}/passing"), output, ranks=ranks, events=events, progress=False
    )
    ranks.gather(None)
    begin = time.perf_counter()
    resume(session, AnyFiles())
    seconds = time.perf_counter() - begin
    ranks.gather(None)
    session.close()
    print(json.dumps({"seconds": seconds, "taken": sum(taken)}), flush=True)
    time.sleep(1 if rank == 0 else 0)  # the store of the ranks is in this process


def _limit(device: str, rate: int, *enter: str) -> None:
    how = ("tbf", "rate", f"{rate}mbit", "burst", "256kb", "latency", "100ms")
    _call(*enter, "tc", "qdisc", "replace", "dev", device, "root", *how)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    _node(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5] == "1")
