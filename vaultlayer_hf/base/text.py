"""Sizes, spans of time and progress for people: the one form that the log, the tables and the errors all use."""

from __future__ import annotations

from typing import Any


def size_text(size: float) -> str:
    """Return a number of bytes for a person, in powers of 1000, as disks and networks are sold: ``16.4 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"


def duration_text(seconds: float) -> str:
    """Return a span of time for a person, to three digits: ``6.12 ms``, ``42.3 s``, ``3.05 min``, ``3 days``.

    A unit is used from one and a half of it on.
    """
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.3g} ms"
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            count = seconds / size
            return f"{count:.0f} {unit}" if count >= 100 else f"{count:.3g} {unit}"  # no 1e+03 days
    return f"{seconds:.3g} s"


def error_text(error: BaseException) -> str:
    """Return what an error says; one of a script's own class may raise where it is asked."""
    try:
        return str(error)
    except Exception:
        return "it can't say what is wrong"


def bytes_bar(total: int, what: str, *, shown: bool = True, leave: bool = True) -> Any:
    """Return a bar that counts bytes, a tqdm one: a context manager whose ``update(count)`` any thread may call.

    Args:
        total: the bytes that there are to come.
        what: what is under way, in front of the bar.
        shown: False for none: ``update`` then does nothing.
        leave: whether the finished bar stays on the screen.
    """
    from tqdm.auto import tqdm  # here: most who import this show none

    return tqdm(total=total, unit="B", unit_scale=True, desc=what, disable=not shown, leave=leave)
