"""Progress bars on the console: bytes of a restore, bytes of the final flush."""

from __future__ import annotations

import math
import time

from vaultlayer_hf.base.text import bytes_bar
from vaultlayer_hf.vault.upload.uploader import Uploader


def wait_for_uploads(
    uploader: Uploader,
    timeout: float,
    *,
    shown: bool = True,
    for_others: float = math.inf,
    stalled: float = math.inf,
) -> bool:
    """Wait until nothing is queued or under way, for ``timeout`` seconds at most; return whether that is so.

    ``for_others``: seconds to wait at most where nothing but parts of other nodes is missing.
    ``stalled``: seconds to wait at most while nothing moves. Bytes that are sent a second time count for nothing.
    """
    if uploader.wait(0):
        return True
    deadline = time.monotonic() + timeout
    least, moved_at = uploader.remaining, time.monotonic()
    with bytes_bar(max(1, uploader.remaining), "Committing to the vault", shown=shown) as bar:
        while True:
            left = deadline - time.monotonic()
            if uploader.wait(min(0.2, max(0.0, left))):
                bar.update(bar.total - bar.n)
                return True
            remaining = uploader.remaining
            bar.update(max(0, min(bar.total, bar.total - remaining) - bar.n))
            now, since = time.monotonic(), uploader.waiting_since
            if remaining < least:
                least, moved_at = remaining, now
            stuck = since is None and now - moved_at > stalled
            if left <= 0 or stuck or (since is not None and now - since > for_others):
                return False
