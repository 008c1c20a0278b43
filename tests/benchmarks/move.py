"""A child process that moves one folder once with one client: ``move CLIENT up|down PREFIX FOLDER``."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from tests.benchmarks import clouds
from tests.benchmarks.clients import all_clients, sealed_clients
from tests.benchmarks.measure import done, ready


def core_seconds() -> float:
    """Return the processor time of this process and of the programs that it ran."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    name, direction, prefix, folder = sys.argv[1:]
    known = clouds.clients_here() or [*all_clients(), *sealed_clients()]
    client = next(each for each in known if each.name == name)
    if not client.load():
        sys.exit(f"{name} isn't installed")
    ready()
    spent = -core_seconds()
    began = time.perf_counter()
    (client.upload if direction == "up" else client.download)(prefix, Path(folder))
    seconds = time.perf_counter() - began
    done(seconds=seconds, core_seconds=spent + core_seconds())
