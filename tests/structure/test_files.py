"""Local files are linked, renamed and flushed in one place, where a test can stop a process; locks are in another."""

from __future__ import annotations

import ast
from pathlib import Path

import vaultlayer_hf

PACKAGE = Path(vaultlayer_hf.__file__).parent
KEPT = {
    "os": {"link", "rename", "renames", "replace", "fsync", "fdatasync", "sync", "symlink"},
    "shutil": {"move"},
    "fcntl": {"flock", "lockf"},
}
"""Functions of modules that only ``base/files.py`` and, the locks, ``base/locks.py`` call."""
OF_A_PATH = {"hardlink_to", "symlink_to"}
"""Methods that only paths have."""


def test_one_module_alone_changes_what_a_name_stands_for() -> None:
    """Every link, rename and flush goes through base/files.py, so the kill campaign has a point at each."""
    elsewhere = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path in (PACKAGE / "base" / "files.py", PACKAGE / "base" / "locks.py"):
            continue
        tree = ast.parse(path.read_text())
        paths = {
            node.target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and "Path" in ast.unparse(node.annotation)
        } | {
            node.arg
            for node in ast.walk(tree)
            if isinstance(node, ast.arg)
            and node.annotation is not None
            and ast.unparse(node.annotation) == "Path"
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            owner = ast.unparse(node.value)
            if (
                node.attr in KEPT.get(owner, ())
                or node.attr in OF_A_PATH
                or (node.attr in ("rename", "replace") and owner in paths)
            ):
                elsewhere.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {owner}.{node.attr}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in KEPT:
                names = [alias.name for alias in node.names if alias.name in KEPT[node.module]]
                elsewhere += [
                    f"{path.relative_to(PACKAGE)}:{node.lineno} from {node.module} import {name}"
                    for name in names
                ]
    assert not elsewhere, "call vaultlayer_hf.base.files or base.locks instead:\n" + "\n".join(elsewhere)
