"""Imports in the package point down, never in a circle: read from its source."""

from __future__ import annotations

from pathlib import Path

import pytest

import vaultlayer_hf
from tests.structure.imports import DOOR, arrows, children, circles, folders, read_package
from tests.structure.order import ORDER, against_the_order, knows_transformers, long_without_reason

PACKAGE = Path(vaultlayer_hf.__file__).parent
MODULES = read_package(PACKAGE)


@pytest.mark.parametrize("folder", ORDER, ids=lambda folder: folder or "the package")
def test_imports_point_down(folder: str) -> None:
    """No import leads to a layer further up, or from one part of a layer to another."""
    assert not against_the_order(MODULES, folder)


@pytest.mark.parametrize("folder", folders(MODULES), ids=lambda folder: folder or "the package")
def test_no_circle(folder: str) -> None:
    """A folder's entries, be they files or folders, never import each other in a circle."""
    assert circles(arrows(MODULES, folder)) == []


def test_only_the_trainers_seam_imports_transformers() -> None:
    """transformers is imported by the Trainer's seam and by what runs in the training's processes, by nobody else."""
    assert knows_transformers(MODULES) == []


def test_files_are_short() -> None:
    """No file is above 300 lines, but for one that says at its top why it is one file."""
    assert [module.path.name for module in long_without_reason(MODULES)] == []


def test_the_top_is_small() -> None:
    """Whoever opens the package sees its rooms and nothing else."""
    layers = {entry for layer in ORDER[""] for entry in layer}
    assert set(children(MODULES, "").values()) == layers
    assert len(layers) <= 12
    beside = {path.name for path in PACKAGE.iterdir() if path.is_file() and path.suffix != ".py"}
    assert beside == {"py.typed", "ARCHITECTURE.md"}


def test_the_state_knows_no_vault() -> None:
    """What a training's state is can be read without the protocol: the folder rests on the ground alone."""
    targets = {
        target for name, module in MODULES.items() if name.startswith("state.") for target in module.targets
    }
    assert {target.split(".")[0] for target in targets} <= {"state", "base", "errors"}


def test_the_reader_of_imports(tmp_path: Path) -> None:
    """Each way to know another module is seen: at the top, in a function, for types only, by name, and in a string."""
    package = tmp_path / "p"
    (package / "low").mkdir(parents=True)
    (package / "__init__.py").write_text('_LAZY = {"x": "p.low.one"}\n')
    (package / "low" / "__init__.py").write_text("")
    (package / "low" / "one.py").write_text("import p.low.two, json\n")
    (package / "low" / "two.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.low.one import X\n"
    )
    (package / "high.py").write_text("def f():\n    from . import low\n    from .low import two\n")
    modules = read_package(package)
    assert {name: sorted(module.targets) for name, module in modules.items()} == {
        DOOR: ["low.one"],
        "low.__init__": [],
        "low.one": ["low.two"],
        "low.two": ["low.one"],
        "high": ["low.__init__", "low.two"],
    }
    assert circles(arrows(modules, "low")) == [["one", "two"]]
    assert arrows(modules, "")["high", "low"] == 2
