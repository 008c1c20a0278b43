"""What an exception's name, text and number say of its reason. Pure.

For the process in which it is raised, which still has its number, and for `vl run`, which may have its text alone.
"""

from __future__ import annotations

import errno


def means_memory(name: str, message: str, number: int | None = None) -> bool:
    """Tell whether an exception (its class's name, its text, its errno) says that memory has run out."""
    plain = name.rpartition(".")[2]
    if plain in ("MemoryError", "OutOfMemoryError") or number == errno.ENOMEM:
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
    return plain in ("RuntimeError", "OSError", "AcceleratorError") and any(word in message for word in words)


def means_not_empty(name: str, message: str) -> bool:
    """Tell whether an exception (its class's name, its text) says that a script wants an output folder of its own.

    Such as the examples of transformers, whose words many scripts and LLaMA-Factory have taken over, say so; others
    let ``os.makedirs`` fail, or end with a sentence of their own.
    """
    if name.rpartition(".")[2] == "FileExistsError":
        return True
    text = message.lower()
    place = ("director", "folder", "output", "path", "checkpoint")
    return ("exists" in text or "not empty" in text) and any(word in text for word in place)


def means_full(name: str, message: str, number: int | None = None) -> bool:
    """Tell whether an exception says that a disk, or a quota on it, is full."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return True
    words = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
    # torch's own writer hides the reason.
    torchs = ("PytorchStreamWriter failed", "unexpected pos", "basic_ios::clear: iostream error")
    hidden = name.endswith("RuntimeError") and any(word in message for word in torchs)
    return hidden or any(word in message for word in words)
