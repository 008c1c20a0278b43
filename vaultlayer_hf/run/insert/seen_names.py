"""Names that a walk through a script meets: what they are called where it began, and what was done to each first.

A name of an attribute (``self.best``, ``args.rate``) is a variable of its own.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert.source import dotted


class SeenNames:
    """What was read, written and called.

    Args:
        defined: names that are set when it begins.
        proves: whether what is read counts as set from there on: the script would have ended there otherwise.

    Attributes:
        read_first: names that are read where they may not have been written yet, and the line.
        written: names that are assigned, and the line.
        defined: names that are surely assigned by now. A loop is taken to go round at least once.
        calls: (what a method is called on, its name, the call); ``__call__`` for a variable that is called itself.
        modules: what is asked for its parameters, or given weights: a module.
        given: what is given to a function of a library that by its name brings something up to date.
        changed: variables of which an item is assigned or deleted, or that a method such as ``add_`` changes; the line.
    """

    def __init__(self, defined: set[str] | None = None, *, proves: bool = False) -> None:
        self._proves = proves
        self.defined = set(defined or ())
        self.read_first: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.changed: dict[str, int] = {}
        self.modules: set[str] = set()
        self.given: dict[str, int] = {}
        self.members: dict[str, list[str]] = {}
        """Of the variables of loops on the way: what they go through."""
        self._listed: dict[str, list[str]] = {}
        """Of the variables of loops over lists in their heads: the names that each stands for."""
        self._names: dict[str, str] | None = None
        """In a function that is followed: what each of its own names stands for; ``""`` for none."""

    def _named(self, name: str) -> str:
        """Return what a name is called where the walk began; ``""`` for one that isn't known there."""
        if self._names is None or not name:
            return name
        first, dot, rest = name.partition(".")
        outer = self._names.get(first, first)
        return outer + dot + rest if outer else ""

    def _stands_for(self, name: str) -> list[str]:
        """Return what a name is of each member of a list that a loop goes through: of ``meter.sum`` ``loss.sum``."""
        first, dot, rest = name.partition(".")
        return [one + dot + rest for one in self._listed.get(first, ()) if one != first]

    def _read(self, name: str, line: int) -> None:
        for one in self._stands_for(name):
            self._read(one, line)
        name = self._named(name)
        parts = name.split(".") if name else []
        for number in range(1, len(parts) + 1):
            prefix = ".".join(parts[:number])
            if prefix in self.defined:
                return
            self.read_first.setdefault(prefix, line)
            if self._proves:
                self.defined.add(prefix)
                if number < len(parts):
                    return

    def _write(self, name: str, line: int) -> None:
        for one in self._stands_for(name) if "." in name else ():
            self._write(one, line)
        if self._names is not None and name in self._names:
            return  # a function's own name is bound anew, be it a parameter: nothing outside sees it
        name = self._named(name)
        if name:
            self.written.setdefault(name, line)
            self.defined.add(name)


def root(node: Any) -> str:
    """Return the name at the start of what items, attributes and methods are taken from; ``""`` where there is none."""
    while not dotted(node):
        kind = type(node).__name__
        if kind in ("Subscript", "Attribute"):
            node = node.value
        else:
            return ""
    return dotted(node)
