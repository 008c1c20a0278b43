"""A child process that moves one folder once with one client: ``move CLIENT up|down PREFIX FOLDER``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.benchmarks.clients import all_clients
from tests.benchmarks.measure import done, ready

if __name__ == "__main__":
    name, direction, prefix, folder = sys.argv[1:]
    client = next(each for each in all_clients() if each.name == name)
    if not client.load():
        sys.exit(f"{name} isn't installed")
    ready()
    began = time.perf_counter()
    (client.upload if direction == "up" else client.download)(prefix, Path(folder))
    done(seconds=time.perf_counter() - began)
