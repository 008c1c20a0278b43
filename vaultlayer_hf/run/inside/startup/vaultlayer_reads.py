"""Whether an import reads variables of the environment that may have other values in the attempt, or the rank."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_BLOCK, _SHORT = 2**20, 2


class Reads:
    """Watches os.environ, which keeps its variables in a dict of its own, as bytes.

    A read of a variable by its name counts. Whoever goes through all of them searches for names that begin in some way
    (tqdm, fsspec), or makes a copy: a copy that a module keeps counts, too (``kept``). What a library in C reads isn't
    seen (``named_in_libraries``).

    Args:
        names: of the variables.
    """

    def __init__(self, names: "Iterable[str]") -> None:
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

    def end(self) -> "set[str]":
        """Watch no more; return the names that were read."""
        if not self._names:
            return set()
        environment: Any = os.environ
        now = list(dict.items(environment._data))
        self._usual.clear()
        self._usual.update(now)
        environment._data = self._usual
        found = {os.fsdecode(name) for name in self._read}
        self._read.clear()
        return found

    def kept(self, modules: "Iterable[Any]") -> "set[str]":
        """Return the names that modules keep a copy of, with all of the environment or a part of it."""
        names = [(name, os.environ[name]) for name in map(os.fsdecode, self._names) if name in os.environ]
        found: set[str] = set()
        if not names:
            return found
        path = os.environ.get("PATH")
        for module in modules:
            for value in list(getattr(module, "__dict__", {}).values()):
                # Not isinstance, which asks the value: one that stands for something else may do anything then.
                if not issubclass(type(value), dict):
                    continue
                whole = path is not None and _is(dict.get(value, "PATH"), path)
                for name, had in names:
                    # A single 0 or 1 under such a name is a default rather than a copy.
                    if (whole or len(had) > _SHORT) and _is(dict.get(value, name), had):
                        found.add(name)
        return found


def _is(value: "Any", text: str) -> bool:
    return type(value) is str and value == text


def named_in_libraries(names: "Iterable[str]") -> "set[str]":
    """Return those of these names that stand in a library which is loaded here: what is written in C may read them."""
    left = {name: os.fsencode(name) for name in names}
    found: set[str] = set()
    if not left:
        return found
    with open("/proc/self/maps") as file:
        fields = [line.rstrip("\n").split(None, 5) for line in file]
    for path in {line[5] for line in fields if len(line) == 6 and line[5][0] == "/" and "x" in line[1]}:
        try:
            with open(path, "rb") as file:
                rest = b""
                while block := file.read(_BLOCK):
                    text = rest + block
                    found.update(name for name, code in left.items() if code in text)
                    rest = text[-max(map(len, left.values())) :]
        except OSError:
            return set(left)  # deleted since: nobody can tell
    return found
