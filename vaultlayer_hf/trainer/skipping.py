"""How the Trainer goes past batches: by the follower of the loader, while a training is followed.

The Trainer calls ``skip_first_batches`` of its own module with the loader and a number, and has no hook there. So the
name in that module stands for another function as long as a training of this process is followed; for loaders that
nobody follows that does what it did.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import transformers.trainer

from vaultlayer_hf.state.data.followed import follower_of

_NAME = "skip_first_batches"
_lock = threading.Lock()
_users: set[Skipping] = set()


class Skipping:
    """One training's use of the function in the place of the Trainer's own."""

    def replace(self) -> None:
        """Have loaders that are followed asked."""
        module: Any = transformers.trainer
        with _lock:
            _users.add(self)
            current = getattr(module, _NAME)
            if not hasattr(current, "_vaultlayer_original"):
                setattr(module, _NAME, _asking(current))

    def put_back(self) -> None:
        """Put back what was there, unless another training needs it, or somebody has put a function on top of it."""
        module: Any = transformers.trainer
        with _lock:
            _users.discard(self)
            original = getattr(getattr(module, _NAME), "_vaultlayer_original", None)
            if not _users and original is not None:
                setattr(module, _NAME, original)


def _asking(original: Any) -> Any:
    @functools.wraps(original)
    def skip_first_batches(dataloader: Any, num_batches: int = 0) -> Any:
        follower = follower_of(dataloader)
        if follower is None or follower.guard.why:
            return original(dataloader, num_batches)
        return follower.skip(num_batches)

    skip_first_batches._vaultlayer_original = original  # type: ignore[attr-defined] # a mark, and the way back
    return skip_first_batches
