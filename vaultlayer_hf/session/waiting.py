"""The wait for uploads behind the last step: how long, what is said of it, and a progress bar.

Here alone a training waits for storage, so this is bounded, and somebody may be looking on. It ends

- when all is in;
- after ``flush_timeout``;
- soon where the vault is full: that passes only if somebody makes room, and what waits lies sealed on this disk, from
  which the next start uploads it;
- ahead of the kill that a signal or a cloud's notice has announced, also one that comes only now;
- for Ctrl-C once nothing moves any more: a person waits.

What isn't in then is said as an error. It is no exception, because the training itself has come to its end, and what
the script does with it next (evaluate, save, push) is worth more than an exit code; and the exit code is the script's,
which a library can't set behind its back. `vl run`, which sees the process end, ends with the code for a store in
trouble.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from vaultlayer_hf.base.text import bytes_bar, duration_text, size_text
from vaultlayer_hf.vault.upload.uploader import Uploader

FULL_SECONDS = 120.0
"""Seconds that the end of a training waits for room in a full vault."""
STALLED_SECONDS = 10.0
"""Seconds without a byte hashed or sent after which nobody who waits for the end of the process is kept waiting: a
request that is retried takes a few, a store that is out of reach takes for ever."""
_SAY_AFTER = 2.0
"""Seconds after which it is said what is waited for."""
_SAY_EVERY = 60.0
"""Seconds between two lines that say it again."""
_ALMOST = 0.99
"""Of the progress bar, at most, until all is committed: the last bytes are the entry in the log."""


@dataclass(frozen=True)
class WaitLimits:
    """How long to wait from now on.

    Attributes:
        left: seconds at most, whatever moves.
        stalled: seconds at most while nothing moves. Bytes that are sent a second time count for nothing.
        why: what sets these, in words; empty: nothing does.
    """

    left: float = math.inf
    stalled: float = math.inf
    why: str = ""


def wait_for_uploads(
    uploader: Uploader,
    timeout: float,
    *,
    shown: bool = True,
    for_others: float = math.inf,
    limits: Callable[[], WaitLimits] = WaitLimits,
    say: Callable[[str, bool], None] = lambda text, trouble: None,
    moved: Callable[[], None] = lambda: None,
) -> str | None:
    """Wait until nothing is queued or under way; return why no longer, in words, and None where all is in.

    Args:
        uploader: whose uploads.
        timeout: seconds at most.
        shown: whether to show a progress bar.
        for_others: seconds at most where nothing but parts of other nodes is missing.
        limits: what limits the wait besides, asked several times a second.
        say: told what is waited for, and whether that is trouble, after some seconds and again each minute.
        moved: called where bytes have been hashed or sent, several times a second at most.
    """
    if uploader.wait(0):
        return None
    begin = moved_at = time.monotonic()
    total, least = max(1, uploader.remaining), uploader.remaining
    next_line, last_said = begin + _SAY_AFTER, ""
    with bytes_bar(total, "Committing to the vault", shown=shown) as bar:
        while True:
            if uploader.wait(0.2 if timeout > 0 else 0.0):
                bar.update(bar.total - bar.n)
                return None
            now, remaining = time.monotonic(), uploader.remaining
            if remaining < least:
                least, moved_at = remaining, now
                moved()
            bar.n = round(min(_ALMOST * total, max(0, total - remaining)))
            bar.refresh()
            limit, full, parts = limits(), uploader.full_since, uploader.waiting_since
            end, why = min(
                (begin + timeout, f"after {timeout:.0f} s (flush_timeout)"),
                (now + limit.left, limit.why),
                (moved_at + limit.stalled, limit.why),
                (math.inf if full is None else max(begin, full) + FULL_SECONDS, "the vault is full"),
                (math.inf if parts is None else parts + for_others, "parts of other nodes are missing"),
                key=lambda one: one[0],
            )
            if now >= end:
                return why
            waits_for = uploader.trouble or f"{size_text(uploader.unsent)} are to be sent"
            if full is not None:
                waits_for = f"the vault is full: {uploader.trouble}; this disk has the checkpoint meanwhile"
            if now >= next_line or (last_said and waits_for != last_said and uploader.trouble):
                next_line, last_said = now + _SAY_EVERY, waits_for
                what = f"waiting up to {duration_text(end - now)} for {uploader.newest_name}: {waits_for}"
                say(what, uploader.trouble is not None)
