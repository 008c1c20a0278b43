"""The code blocks of the README and of the guides, and what kind each is: a kind is run by one test."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

README = ROOT / "README.md"
GUIDES = [
    *sorted((ROOT / "vaultlayer_hf").rglob("README.md")),
    *sorted((ROOT / "notebooks").glob("README.md")),
]
"""Texts that lie beside what they are about; tests hold them as they hold the README."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its file, its language, its text, and the line of the file at which it starts."""

    file: Path
    language: str
    text: str
    line: int

    @property
    def place(self) -> str:
        """Where it stands: ``stores/README.md:42``."""
        return f"{self.file.relative_to(ROOT)}:{self.line}".removeprefix("vaultlayer_hf/")

    @property
    def kind(self) -> str | None:
        """The kind whose test runs it; None where no test would."""
        kinds = [
            name for name, holds in KINDS.items() if name.split(":")[0] == self.language and holds(self.text)
        ]
        assert len(kinds) <= 1, f"{self.place} is of several kinds: {kinds}"
        return kinds[0] if kinds else None


def _trains(text: str) -> bool:
    return ".train(" in text


def _loops(text: str) -> bool:
    return "\nfor " in text and "open_vault" not in text and not _trains(text)


KINDS: dict[str, Callable[[str], bool]] = {
    "python:trains": _trains,
    "python:loop": lambda text: _loops(text) and "Checkpointer" in text,
    "python:stock-loop": lambda text: _loops(text) and "Checkpointer" not in text,
    "python:reads": lambda text: "open_vault" in text and "from_pretrained" not in text,
    "python:pulls": lambda text: "open_vault" in text and "from_pretrained" in text,
    "python:store": lambda text: "(Store):" in text or "(StoreConformance):" in text,
    "toml:entry-point": lambda text: "entry-points" in text,
    "sh:wheel": lambda text: " wheel " in text,
    "sh:install": lambda text: text.startswith("python -m venv"),
    "sh:server": lambda text: "AWS_ENDPOINT_URL" in text,
    "sh:script": lambda text: text.startswith("#!/bin/bash"),
    "sh:vault": lambda text: "runs/llama" in text,
    "sh:ranks": lambda text: "--num_processes" in text,
    "sh:stacks": lambda text: " -- axolotl " in text,
    "yaml:stacks": lambda text: re.match(r"# (axolotl|llamafactory)\.yaml\n", text) is not None,
    "sh:engines": lambda text: text.startswith("vl run --on"),
    "sh:secret": lambda text: text.startswith("kubectl create secret"),
    "sh:hf-jobs": lambda text: text.startswith("hf jobs run"),
    "json:policy": lambda text: "s3:ListBucket" in text,
    "sh:lifecycle": lambda text: text.startswith("aws s3api put-bucket-lifecycle-configuration"),
    "console:demo": lambda text: text.startswith("$ vl demo\n"),
    "console:run": lambda text: text.startswith("$ vl run ") and not text.startswith("$ vl run --on"),
    "console:engine": lambda text: text.startswith("$ vl run --on"),
    "console:command": lambda text: not re.match(r"\$ vl (demo|run)\b", text),
}
"""``language:name`` to what a block's text is like; ``of_kind("…")`` in a test is what runs them."""


def blocks() -> list[Block]:
    """Return the blocks of the README, then those of the guides, in order."""
    found = []
    for file in (README, *GUIDES):
        text = file.read_text()
        found += [
            Block(file, match[1], match[2], text.count("\n", 0, match.start()) + 1)
            for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        ]
    return found


def of_kind(kind: str) -> list[Block]:
    """Return the blocks of one kind. A guide repeats no block of the README: what is run already isn't run twice."""
    assert kind in KINDS
    return [block for block in blocks() if block.kind == kind]


def table_after(heading: str) -> list[list[str]]:
    """Return the rows, without the header, of the first table behind the one line that starts so."""
    text = next(text for text in (file.read_text() for file in (README, *GUIDES)) if f"\n{heading}" in text)
    lines = text[text.index(f"\n{heading}") :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def install_commands() -> list[str]:
    """Return the commands that make an environment and install into it."""
    return [block.text.strip() for block in of_kind("sh:install")]


def demo_lines() -> list[str]:
    """Return the demo's story as the README shows it, without numbers; ``...`` is what it leaves out."""
    (block,) = of_kind("console:demo")
    return without_numbers(block.text.partition("\n")[2])


def without_numbers(text: str) -> list[str]:
    """Return the lines that say something, without what differs from run to run."""
    text = re.sub(r"file:///\S+", "URI", text)
    text = re.sub(r"[0-9a-f]{14}…", "HASH", text)
    text = re.sub(r"\d[\d.]*(, \d+)*", "N", text)
    text = re.sub(r"─+", "─", re.sub(r" +", " ", text))
    return [line.strip() for line in text.splitlines() if line.strip()]
