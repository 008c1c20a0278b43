"""A loop of two ranks of which one has trouble that the other knows nothing of."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from tests.kit.inside import listen, settle
from tests.ranks.train_ranks import Journal
from vaultlayer_hf import Checkpointer, Settings


class Unloadable:
    """An object whose state this rank can't load."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def state_dict(self) -> dict[str, int]:
        return {"value": 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if self.error is not None:
            raise self.error


def train(
    vault: str,
    output: str,
    journal: str,
    result: str,
    *,
    settings: dict[str, Any],
    kind: str,
    unloadable: bool = False,
    filler: str | None = None,
) -> None:
    """Train three steps, saving at each; note the error that ends it.

    ``unloadable``: this rank's object raises while it is loaded. ``filler``: a file that fills its disk, removed
    behind the first step.
    """
    notes = Journal(journal)
    torch.distributed.init_process_group("gloo")
    ckpt = Checkpointer(Settings(vault=vault, **settings), save_every=1, output_dir=output)
    listen(ckpt, lambda event: notes.note(event=event.kind, message=event.message))
    ckpt.add("object", Unloadable(AttributeError("other attribute") if unloadable else None))
    try:
        start = ckpt.resume()
    except Exception as error:
        notes.note(error=type(error).__name__, message=str(error))
        time.sleep(1)  # the store that ranks talk through ends with rank 0
        os._exit(3)
    for step in range(start, 3):
        ckpt.step()
        settle(ckpt)
        notes.note(step=step)
        if filler is not None:
            Path(filler).unlink(missing_ok=True)
    ckpt.finish()
    torch.distributed.barrier()
