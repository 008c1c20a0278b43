"""The README's code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


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
