"""Tests use the package as its users do: what is private is reached through tests/kit/inside.py alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

THEIRS = {"_save_checkpoint", "_load_best_model", "_exit", "_replace", "_iterator"}
"""Of transformers, os, named tuples and torch's DataLoader, though we have one of the name, too."""


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id


def _reaches(path: Path, private: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in private:
            if ast.unparse(node.value) not in ("self", "cls", "super()"):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaultlayer_hf"):
            for alias in filter(lambda alias: _private(alias.name), node.names):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.module}.{alias.name}"


def test_private_attributes_are_the_kits() -> None:
    """No test but the kit names a private attribute of the package: what is rebuilt inside breaks one file."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "vaultlayer_hf").rglob("*.py")]
    private = {name for tree in trees for name in _defined(tree) if _private(name)} - THEIRS
    assert "_vaultlayer" in private
    tests = sorted(path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "kit")
    assert [place for path in tests for place in _reaches(path, private)] == []
