"""Host memory that the copies of a state go to: taken once, touched beforehand, and used again at every save.

Memory that is fresh from the system costs far more than the copy itself: each of its pages is zeroed at its first touch
(817 to 4744 ms for a fresh clone of 2.4 GB, against 62 to 120 ms into pages that are there). So it is made ready beside
the training, ahead of the first save.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from typing import Any

import torch

ALIGNMENT = 4096
"""Bytes at a multiple of which each piece begins: a page, so that no two pieces share one."""
_WIPE_ON_FORK = 18 if sys.platform == "linux" else None
"""MADV_WIPEONFORK of madvise(2), which Python's mmap doesn't name."""


class Arena:
    """One block of host memory, cut into pieces.

        arena = Arena()
        arena.reserve(2 * 2**30)
        first, second = arena.cut([100, 200])  # byte tensors

    Args:
        pinned: whether a GPU is to copy into it; it is pinned then, so that the copy needn't wait for the processor.

    Attributes:
        size: bytes that it holds.
        pinned: whether it is pinned, and so can be copied into without waiting.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self.size = 0
        self._pin = pinned
        self.pinned = False
        self._block: mmap.mmap | None = None
        self._bytes: torch.Tensor | None = None

    def __repr__(self) -> str:
        return f"Arena({self.size} bytes{', pinned' if self.pinned else ''})"

    def reserve(self, size: int) -> None:
        """Hold at least ``size`` bytes, each of them touched; what the pieces held until now is lost.

        Raises OSError or MemoryError where the system has no more.
        """
        if size <= self.size:
            return
        self.release()
        size = _aligned(size)
        # A worker of a DataLoader is forked off, and would share these pages: the next copy would have to take each of
        # them anew. So it gets empty ones: where there were none, its interpreter's end crashed. Large pages make the
        # first touch cheap.
        block = (
            mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MAP_PRIVATE")
            else mmap.mmap(-1, size)
        )
        for advice in (_WIPE_ON_FORK, getattr(mmap, "MADV_HUGEPAGE", None)):
            _advise(block, advice)
        self._block, self.size = block, size
        self._bytes = torch.frombuffer(block, dtype=torch.uint8)
        self._bytes.zero_()  # without the interpreter's lock, which mmap's own way to touch them would hold
        if self._pin:
            # Not torch's pinned allocator: that takes the next power of two, up to twice as much.
            self.pinned = int(_cuda().cudaHostRegister(self._bytes.data_ptr(), size, 0)) == 0

    def cut(self, sizes: Sequence[int]) -> list[torch.Tensor]:
        """Return one piece for each size, in bytes, as byte tensors with storages of their own.

        What earlier pieces held is overwritten. Raises ValueError where it holds less than that: see ``needed``.
        """
        if needed(sizes) > self.size:
            raise ValueError(f"{needed(sizes)} bytes don't fit into {self.size}")
        pieces, begin = [], 0
        for size in sizes:
            if size:
                assert self._block is not None
                pieces.append(torch.frombuffer(self._block, dtype=torch.uint8, offset=begin, count=size))
            else:
                pieces.append(torch.empty(0, dtype=torch.uint8))
            begin += _aligned(size)
        return pieces

    def release(self) -> None:
        """Give the memory back, once the pieces are gone. Safe to call twice."""
        if self.pinned and self._bytes is not None:
            _cuda().cudaHostUnregister(self._bytes.data_ptr())
        self.pinned = False
        self._bytes = self._block = None  # unmapped with the last tensor on it
        self.size = 0


def _cuda() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def needed(sizes: Sequence[int]) -> int:
    """Return how many bytes an arena needs for pieces of these sizes. Pure."""
    return sum(map(_aligned, sizes))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _advise(block: mmap.mmap, advice: int | None) -> None:
    if advice is None or not hasattr(block, "madvise"):
        return
    try:
        block.madvise(advice)
    except OSError:  # a kernel without it: slower, that is all
        pass
