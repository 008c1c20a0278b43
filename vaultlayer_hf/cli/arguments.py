"""What a checkpoint's training_args.bin says, without running it.

The file is a pickle: loading it as torch does runs what it names, and needs the versions that wrote it. Here each
class that it names becomes an inert stand-in, so that only plain values come out, whoever wrote the file.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

_LIMIT = 4 * 2**20
"""Bytes: the largest pickle that is read; that of a Trainer has a few thousand."""
_LONGEST = 20
"""Items of a list that are shown."""


class _Inert:
    """Stands for an object of any class: what it was made with, and its attributes."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> _Inert:  # pickle makes some objects without __init__
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle._Unpickler):  # the one in C can be made to take all memory
    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        return _Inert(pid)


def read_arguments(data: bytes) -> dict[str, Any] | None:
    """Return the plain settings in a training_args.bin by name; None where it can't be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (member,) = (item for item in archive.infolist() if item.filename.endswith("/data.pkl"))
            if member.file_size > _LIMIT:
                return None
            found = _Reader(io.BytesIO(archive.read(member))).load()
    except Exception:  # whatever a hostile or foreign file makes of it
        return None
    state = getattr(found, "state", None)
    if not isinstance(state, dict):
        return None
    settings = {}
    for name, value in state.items():
        plain, simple = _plain(value)
        if isinstance(name, str) and not name.startswith("_") and plain:
            settings[name] = simple
    return settings


def _plain(value: Any) -> tuple[bool, Any]:
    """Return whether a value is a plain one, and that value; an enum counts as its name's text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return True, value
    if isinstance(value, _Inert) and len(value.arguments) == 1 and isinstance(value.arguments[0], str):
        return True, value.arguments[0]
    if isinstance(value, (list, tuple)) and len(value) <= _LONGEST:
        items = [_plain(item) for item in value if not isinstance(item, (list, tuple))]
        if len(items) == len(value) and all(plain for plain, _ in items):
            return True, [item for _, item in items]
    return False, None
