"""What a process's first save would take longer for, done ahead of it, beside the training.

transformers 5 has a table of the names of all its architectures' weights, made when a process first saves or loads a
model: 900 regular expressions, 0.1 s on one core. A model that was made from its config meets that in the first save,
which training waits for, and so behind each restart once more.
"""

from __future__ import annotations

import contextlib
import sys
import threading


def prepare_first_save() -> None:
    """Have that table made, on a thread of its own; nothing where it is there, or this transformers has none."""
    module = sys.modules.get("transformers.conversion_mapping")
    make = getattr(module, "get_checkpoint_conversion_mapping", None)
    if make is None or getattr(module, "_checkpoint_conversion_mapping_cache", None) is not None:
        return

    def run() -> None:
        with contextlib.suppress(Exception):  # of another version: the save itself then meets it
            make("")

    threading.Thread(target=run, name="vaultlayer-first-save", daemon=True).start()
