"""Who imports whom inside a package, read from its source without importing it.

Every import counts: at a module's top, inside a function, under TYPE_CHECKING, and a module that is named in a string
(a table of lazily imported names, `python -m`), as all of them say that one module knows another.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOOR = "__init__"  # a folder's own __init__, as a child of that folder


@dataclass(frozen=True)
class Module:
    """One file of the package.

    Attributes:
        name: its dotted name within the package, such as ``vault.log.entry``; a folder's ``__init__`` ends so.
        path: where it lies.
        lines: how many lines it has.
        docstring: its docstring, or "".
        targets: the modules of the package that it imports, by name.
        libraries: the top names of everything else that it imports, such as ``torch``.
    """

    name: str
    path: Path
    lines: int
    docstring: str
    targets: frozenset[str]
    libraries: frozenset[str]


def read_package(folder: Path) -> dict[str, Module]:
    """Return every module of the package in ``folder`` by its name within the package."""
    paths = {_name(folder, path): path for path in sorted(folder.rglob("*.py"))}
    return {name: _read(name, path, folder.name, set(paths)) for name, path in paths.items()}


def _name(folder: Path, path: Path) -> str:
    return ".".join(path.relative_to(folder).with_suffix("").parts)


def _read(name: str, path: Path, package: str, names: set[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    imported = list(_imported(tree, [package, *name.split(".")[:-1]]))
    inside = {_module(dotted, package, names) for dotted in imported}
    outside = {dotted.split(".")[0] for dotted in imported}
    return Module(
        name=name,
        path=path,
        lines=text.count("\n"),
        docstring=ast.get_docstring(tree) or "",
        targets=frozenset(target for target in inside if target and target != name),
        libraries=frozenset(outside - {package, "__future__"}),
    )


def _imported(tree: ast.Module, folder: list[str]) -> Iterator[str]:
    """Yield the dotted name of all that a module imports, names from a module included, and what its strings name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and _is_dotted(node.value, folder[0]):
            yield str(node.value)


def _is_dotted(value: object, package: str) -> bool:
    return (
        isinstance(value, str) and value.startswith(f"{package}.") and value.replace(".", "").isidentifier()
    )


def _module(dotted: str, package: str, names: set[str]) -> str | None:
    """Return the package's module that a dotted name leads to: itself, a name in it, or a folder's ``__init__``."""
    parts = dotted.split(".")
    if parts[0] != package:
        return None
    for end in (len(parts), len(parts) - 1):
        inner = ".".join(parts[1:end])
        for name in (inner, f"{inner}.{DOOR}".lstrip(".")):
            if name in names:
                return name
    return None


def children(modules: dict[str, Module], folder: str) -> dict[str, str]:
    """Return, for each module in ``folder`` ("" is the package), which of the folder's entries it belongs to."""
    inside = {name: name.removeprefix(folder).lstrip(".") for name in modules if _within(name, folder)}
    return {name: rest.split(".")[0] for name, rest in inside.items()}


def _within(name: str, folder: str) -> bool:
    return not folder or name.startswith(folder + ".")


def folders(modules: dict[str, Module]) -> list[str]:
    """Return the package's folders, "" first."""
    return sorted({name.rpartition(".")[0] for name in modules})


def arrows(modules: dict[str, Module], folder: str) -> Counter[tuple[str, str]]:
    """Return how many imports lead from one entry of ``folder`` to another."""
    entry = children(modules, folder)
    return Counter(
        (entry[name], entry[target])
        for name in entry
        for target in modules[name].targets
        if target in entry and entry[name] != entry[target]
    )


def circles(pairs: Counter[tuple[str, str]]) -> list[list[str]]:
    """Return the sets of entries that reach each other in a circle, each sorted."""
    after: dict[str, set[str]] = defaultdict(set)
    for source, target in pairs:
        after[source].add(target)
    reached = {source: _reach(source, after) for source in list(after)}
    rings = {
        tuple(sorted(other for other in reached[source] if source in reached.get(other, ())))
        for source in reached
        if source in reached[source]
    }
    return sorted(list(ring) for ring in rings)


def _reach(source: str, after: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(after[source])
    while todo:
        entry = todo.pop()
        if entry not in seen:
            seen.add(entry)
            todo.extend(after.get(entry, ()))
    return seen
