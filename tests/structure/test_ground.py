"""What the ground of the package may rest on, read from its source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vaultlayer_hf

PACKAGE = Path(vaultlayer_hf.__file__).parent


@pytest.mark.parametrize(
    ("folder", "may_import"),
    [("base", ("base", "errors")), ("stores", ("stores", "base", "errors"))],
)
def test_it_looks_up_to_nobody(folder: str, may_import: tuple[str, ...]) -> None:
    """What anything may use imports nothing that rests on it."""
    found = set()
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaultlayer_hf"):
                names = (
                    [node.module]
                    if node.module != "vaultlayer_hf"
                    else [f"vaultlayer_hf.{a.name}" for a in node.names]
                )
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("vaultlayer_hf")]
            else:
                continue
            found |= {(path.name, name) for name in names if name.split(".")[1] not in may_import}
    assert not found
