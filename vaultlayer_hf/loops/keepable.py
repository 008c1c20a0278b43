"""What a Checkpointer can keep beside what has a state of its own: loaders, files, gradients, options, contents."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vaultlayer_hf.loops.group_options import GroupOptions
from vaultlayer_hf.loops.kept_contents import KeptContents
from vaultlayer_hf.loops.kept_file import KeptFile
from vaultlayer_hf.loops.kept_gradients import KeptGradients
from vaultlayer_hf.loops.stream import Stream

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer


class Keepable:
    """Makers of objects with a ``state_dict``, for ``add()`` and ``carry()``."""

    @staticmethod
    def stream(loader: Iterable[Any], *, endless: bool = False) -> Stream:
        """Return a loader's batches for ``next()``, with a state for ``carry()``; ``iter()`` of it opens a new pass.

            stream = Checkpointer.stream(loader)
            batches = iter(stream)
            ckpt.resume()
            ckpt.carry(lambda: {"stream": stream})

        ``endless``: a pass that is over is followed by the next one. For a loop of one process.
        """
        return Stream(loader, endless=endless)

    @staticmethod
    def file(path: str | os.PathLike[str]) -> KeptFile:
        """Return a file whose bytes each save takes along: ``ckpt.add("best", Checkpointer.file("best.pt"))``."""
        return KeptFile(path)

    @staticmethod
    def gradients(model: Module) -> KeptGradients:
        """Return a model's gradients, for ``add()``: of a loop that never sets them to zero."""
        return KeptGradients(model)

    @staticmethod
    def options(optimizer: Optimizer) -> GroupOptions:
        """Return what an optimizer's groups are trained with, such as their learning rates, for ``carry()``.

        For an epoch that changes them ahead of its batches: ``in_pass=True`` right ahead of these.
        """
        return GroupOptions(optimizer)

    @staticmethod
    def contents(container: Any) -> KeptContents:
        """Return what a list, dict, set or deque holds, for ``carry()``: it stays the same object.

        For one that the caller of the loop's function reads behind it: what ``carry()`` returns would be another
        object. Raises SettingsError for anything else.
        """
        return KeptContents(container)
