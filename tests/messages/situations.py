"""A situation is a function that brings about messages; what is logged, printed and raised in it is put down."""

from __future__ import annotations

import io
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from tests.messages.before import BEFORE
from vaultlayer_hf.errors import VaultLayerError

Situation = Callable[[Path], "list[str] | None"]
"""Given an empty folder, brings it about; lines that it returns are messages, too."""
SITUATIONS: dict[str, dict[str, Situation]] = {}
"""By chapter and name, in their order."""
_UNORDERED: set[Situation] = set()
"""Those in which threads speak, so that the order of their messages differs."""
_VARYING = (
    (re.compile(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"process \d+ on \S+,"), "process 1234 on my-machine,"),
    (re.compile(r"vault-(\w+)-[0-9a-f]{8}"), r"vault-\1-DIGEST"),
    (re.compile(r"\b\d+(\.\d+)?(e[+-]?\d+)? (ms|s|min|h)\b"), "SPAN"),
    (re.compile(r"\b\d+(\.\d+)? (B|kB|MB|GB|TB)\b"), "SIZE"),
)
"""What differs from run to run, and what stands for it."""


def situation(chapter: str, name: str, *, ordered: bool = True) -> Callable[[Situation], Situation]:
    """Register a situation under a name that a person understands; ``ordered``: its messages have one order."""

    def register(function: Situation) -> Situation:
        if not ordered:
            _UNORDERED.add(function)
        SITUATIONS.setdefault(chapter, {})[name] = function
        return function

    return register


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        sign = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        self.lines.append(sign + record.getMessage())


_now: list[list[str]] = []


def begin() -> None:
    """Forget what was said so far: what a situation starts from."""
    _now[-1].clear()


_IN_ORDER = re.compile(r"[╭╰]")
"""The frame around what typer says."""


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what this package logs meanwhile, from INFO on."""
    logger, handler = logging.getLogger("vaultlayer_hf"), _Heard()
    before = logger.level, logger.propagate, list(logger.handlers)
    logger.setLevel(logging.INFO)
    logger.propagate, logger.handlers = False, [handler]
    _now.append(handler.lines)
    try:
        yield handler.lines
    finally:
        _now.pop()
        logger.level, logger.propagate, logger.handlers = before


def messages_of(situation: Situation) -> list[str]:
    """Return what a person reads in a situation, one message an item, the same on each machine."""
    with tempfile.TemporaryDirectory(prefix="vl") as name, heard() as lines:
        folder = Path(name).resolve()
        try:
            with redirect_stdout(io.StringIO()):  # a Trainer prints its losses
                lines += situation(folder) or []
        except VaultLayerError as error:
            lines.append(f"{type(error).__name__}: {error}")
        if situation in _UNORDERED:
            lines[:] = sorted(lines[:-1]) + lines[-1:]
        return [
            same_for_all(line.replace(str(folder), "/home/me")) for line in lines if not _IN_ORDER.match(line)
        ]


def same_for_all(text: str) -> str:
    """Return a message without what differs from run to run."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text.rstrip()


def page() -> str:
    """Return all messages as one text."""
    parts = [
        "# What a person reads",
        "",
        "Every message of the situations in `tests/messages`, as it is printed. `python -m tests.messages` prints them "
        "now; `--write` writes this file. SPAN, SIZE, TIME and ID stand for what differs from run to run. What the "
        "first release said instead, where it was something else, stands below it, behind *Before*.",
    ]
    for chapter, named in SITUATIONS.items():
        parts += ["", f"## {chapter}"]
        for name, function in named.items():
            parts += ["", f"**{name}**", ""]
            parts += [f"- {line}" for line in messages_of(function)] or ["- (nothing)"]
            before = BEFORE.get((chapter, name), BEFORE.get(("", name), ()))
            parts += ["", "*Before*", "", *(f"- {line}" for line in before)] if before else []
    return "\n".join(parts) + "\n"
