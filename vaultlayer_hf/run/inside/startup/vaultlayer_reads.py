"""Whether an import reads variables of the environment that will have other values in what is forked later."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


class Reads:
    """Watches os.environ, which keeps its variables in a dict of its own, as bytes.

    A read of a variable by its name counts. Whoever goes through all of them searches for names that begin in some way
    (tqdm, fsspec), or makes a copy: a copy that a module keeps counts, too (``kept``). What a library in C reads isn't
    seen.

    Args:
        names: of the variables.
    """

    def __init__(self, names: "frozenset[str]") -> None:
        self._names = frozenset(os.fsencode(name) for name in names)
        self._usual: dict[bytes, bytes] = {}
        self._read: set[bytes] = set()

    def begin(self) -> None:
        """Watch from here on."""
        if not self._names:
            return
        names, read, passed = self._names, self._read, set[bytes]()

        class Watched(dict):  # type: ignore[type-arg]
            def __getitem__(self, name: "Any") -> "Any":
                if name in passed:
                    passed.discard(name)
                elif name in names:
                    read.add(name)
                return dict.__getitem__(self, name)

            def __iter__(self) -> "Iterator[Any]":
                passed.update(names)
                return dict.__iter__(self)

        environment: Any = os.environ
        self._usual = environment._data
        environment._data = Watched(self._usual)

    def end(self) -> str:
        """Watch no more; return the names that were read, or nothing."""
        if not self._names:
            return ""
        environment: Any = os.environ
        now = list(dict.items(environment._data))
        self._usual.clear()
        self._usual.update(now)
        environment._data = self._usual
        found = b", ".join(sorted(self._read))
        self._read.clear()
        return os.fsdecode(found)

    def kept(self, modules: "Iterable[Any]") -> str:
        """Return the name of a module that keeps a copy of the environment; nothing where none does."""
        mark = os.environ.get("MASTER_PORT") if self._names else None
        if mark is None:
            return ""
        for module in modules:
            for value in list(getattr(module, "__dict__", {}).values()):
                # Not isinstance, which asks the value: one that stands for something else may do anything then.
                if issubclass(type(value), dict) and dict.get(value, "MASTER_PORT") == mark:
                    return f"the whole environment for {module.__name__}"
        return ""
