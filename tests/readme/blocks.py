"""The README's code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests import ROOT

README = ROOT / "README.md"
DEMO = "$ vl demo\n"
"""How the block with the demo's story starts; tests/cli/test_demo.py runs it."""

RUN = "$ vl run "
"""How the block with a run's restart starts; tests/readme/test_run.py runs it."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the file at which it starts."""

    language: str
    text: str
    line: int


def blocks(language: str | None = None) -> list[Block]:
    """Return the blocks in order; of one language, or all."""
    text = README.read_text()
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]
    return [block for block in found if language is None or block.language == language]


def install_commands() -> list[str]:
    """Return the commands that make an environment and install into it."""
    return [block.text.strip() for block in blocks("sh") if "pip install" in block.text]


def demo_lines() -> list[str]:
    """Return the demo's story as the README shows it, without numbers; ``...`` is what it leaves out."""
    block = next(block for block in blocks("console") if block.text.startswith(DEMO))
    return without_numbers(block.text.removeprefix(DEMO))


def without_numbers(text: str) -> list[str]:
    """Return the lines that say something, without what differs from run to run."""
    text = re.sub(r"file:///\S+", "URI", text)
    text = re.sub(r"[0-9a-f]{14}…", "HASH", text)
    text = re.sub(r"\d[\d.]*(, \d+)*", "N", text)
    text = re.sub(r"─+", "─", re.sub(r" +", " ", text))
    return [line.strip() for line in text.splitlines() if line.strip()]
