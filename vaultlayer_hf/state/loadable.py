"""Whether the files of a checkpoint can be loaded, tried beside the training: what can't be is no checkpoint.

A file that a script's own save has torn, or an optimizer state with an object that ``torch.load(weights_only=True)``
refuses, has good digests. Unsaid, it would be found at the next start, when every earlier checkpoint may be gone.

What a look costs must not depend on the bytes: of safetensors it is the header and the file's size, of an archive by
``torch.save`` its directory. Loading such an archive, with its tensors left on the disk, takes 0.1 ms a tensor on the
interpreter, of which the training wants all: so that is done at a run's first save, and where the pickle within has
another length than at the save before, as it has when it holds other types.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

Kind = Literal["tensors", "adapter", "json", "archive", "weights"]
"""A file of safetensors; one of an adapter; of JSON; by torch.save; by torch.save, and loaded by
``torch.load(weights_only=True)``."""
_PICKLE = "data.pkl"
_SHOWN = 200  # characters of an error


class LoadTrial:
    """Tries the files of one run's checkpoints. On one thread at a time.

        trial = LoadTrial(lambda path: "tensors" if path.endswith(".safetensors") else None)
        trial(folder, {"model.safetensors"})  # ["model.safetensors can't be loaded: ..."], or []

    Args:
        kind_of: how a path is loaded; None: it isn't, or a resume does without it.
        other: returns in words that the files of a folder hold something else than what is trained; empty: they don't.
    """

    def __init__(
        self,
        kind_of: Callable[[str], Kind | None],
        other: Callable[[Path, Collection[str]], str] = lambda folder, paths: "",
    ) -> None:
        self._kind_of, self._other = kind_of, other
        self._looked = False  # whether the files were those of what is trained, which is looked at once
        self._lengths: dict[str, int] = {}  # of the pickle within each archive that was loaded

    def __call__(self, folder: Path, paths: Collection[str]) -> list[str]:
        """Return what can't be loaded of a folder's files, each with the reason; empty: nothing. Never raises."""
        found = []
        for path in sorted(paths):
            kind = self._kind_of(path)
            try:
                reason = self._why_not(folder / path, path, kind) if kind is not None else ""
            except Exception as error:  # each library raises what it likes
                reason = _in_words(error)
            if reason:
                found.append(f"{path} can't be loaded: {reason}")
        if not (found or self._looked):
            with contextlib.suppress(Exception):  # of files that a script has made in its own way
                reason = self._other(folder, paths)
                self._looked = not reason
                found += [reason] if reason else []
        return found

    def _why_not(self, file: Path, path: str, kind: Kind) -> str:
        if kind in ("tensors", "adapter") and not holds_all_tensors(file):
            return "it is shorter than its header says, or has none"
        if kind == "adapter" and not _holds_a_tensor(file):
            return (
                "it holds no tensor, as PEFT saves torch.compile(model): compile the model's layers instead"
            )
        if kind in ("tensors", "adapter"):
            return ""
        if kind == "json":
            return "" if is_json(file) else "it is no JSON"
        length = _length_of_pickle(file)
        if kind == "weights" and (length is None or self._lengths.get(path) != length):
            _load(file, mapped=length is not None)
            if length is not None:
                self._lengths[path] = length
        return ""


def holds_all_tensors(path: Path) -> bool:
    """Tell whether a file of safetensors is as long as its header says. Raises OSError."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
        if not 0 < length <= size - 8:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
            return size == 8 + length + max(ends, default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return False


def _holds_a_tensor(path: Path) -> bool:
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size > 8 + int.from_bytes(file.read(8), "little")


def is_json(path: Path) -> bool:
    """Tell whether a file is JSON. Raises OSError."""
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def _length_of_pickle(file: Path) -> int | None:
    """Return the length of the pickle in an archive of torch's; None: a file of torch's format before 1.6.

    Raises RuntimeError where it is neither, and OSError.
    """
    import torch

    with open(file, "rb") as opened:
        start = opened.read(2)
    if start == b"\x80\x02":  # a pickle of protocol 2, as that format begins: it has no directory
        return None
    return len(torch._C.PyTorchFileReader(os.fspath(file)).get_record(_PICKLE))


def _load(file: Path, *, mapped: bool) -> None:
    """Load a file as the Trainer does, its tensors left on the disk where they can be. Raises what torch raises."""
    import torch

    torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)


def _in_words(error: Exception) -> str:
    """Return an error in one line: of torch's refusal of a pickle, the line that names the class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in lines if "WeightsUnpickler error" in line), None)
    if named is None:
        return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_SHOWN].split(". ")[0]
    return (
        f"{named.replace('WeightsUnpickler error: ', '')[:_SHOWN].split('. ')[0]} (torch.load refuses it with "
        "weights_only=True: keep tensors, numbers and text there, or allow the class by "
        "torch.serialization.add_safe_globals at the top of the script)"
    )
