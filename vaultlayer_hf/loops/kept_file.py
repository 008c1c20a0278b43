"""A file that a loop writes on its way and needs at its end, such as its best weights: its bytes go with a checkpoint.

    ckpt.add("best", Checkpointer.file("best.pt"))

Without it a start on another disk would look for it in vain, and one on the same disk might find that of a later step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files


class KeptFile:
    """A file whose bytes are its state.

    Args:
        path: where the script writes it, and reads it. It needn't be there yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.abspath(os.fspath(path)))

    def state_dict(self) -> dict[str, Any]:
        """Return what the file holds; nothing where it isn't there. Raises OSError."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        # A tensor, for ``torch.load`` reads it without unpickling anything.
        return {"bytes": torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Write the file as it was; where there was none, what is there stays. Raises OSError."""
        if "bytes" not in state:
            return
        files.make_folder(self._path.parent)
        like = self._path if self._path.exists() else None
        files.write_file(self._path, state["bytes"].to(torch.uint8).numpy().tobytes(), like=like)
