"""Part d: what ``import vaultlayer_hf`` costs a script, and what its Trainer costs over transformers' own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from tests.benchmarks.measure import ROOT, Row, median_ratio

STATEMENTS = {
    "python alone": "pass",
    "import vaultlayer_hf": "import vaultlayer_hf",
    "transformers' Trainer": "from transformers import Trainer",
    "vaultlayer_hf's Trainer": "import vaultlayer_hf; vaultlayer_hf.Trainer",
}


def measure(rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Run each statement in a fresh interpreter, alternately; the light ones five times as often."""
    seconds: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for names, count in ((list(STATEMENTS)[:2], 5 * rounds), (list(STATEMENTS)[2:], rounds)):
        for number in range(-1, count):  # the first one writes bytecode and fills the page cache
            for name in names:
                spent = _run(STATEMENTS[name])
                if number >= 0:
                    seconds[name].append(spent)
    rows = []
    for base, name in (list(STATEMENTS)[:2], list(STATEMENTS)[2:]):
        added = statistics.median(b - a for a, b in zip(seconds[base], seconds[name], strict=True))
        say(f"{name}: {added * 1000:.0f} ms over {base}")
        for who in (base, name):
            text = f"{median_ratio(seconds[name], seconds[base]):.2f} times {base}, +{added * 1000:.0f} ms"
            value = f"{statistics.median(seconds[who]) * 1000:.0f} ms"
            rows.append(Row("d", "start of a Python process", who, value, text if who == name else ""))
    return rows


def _run(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    return time.perf_counter() - began
