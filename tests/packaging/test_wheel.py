"""What the built wheel holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from tests import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from a copy of what the repository tracks."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout: what belongs into the wheel can't be told")
    for name in tracked.stdout.decode().split("\0"):
        if name.startswith("vaultlayer_hf/") or name in ("pyproject.toml", "README.md", "LICENSE"):
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    code = f"import setuptools.build_meta as b; print(b.build_wheel({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "source", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_holds_the_package_and_nothing_else(wheel) -> None:
    """The wheel carries every module and guide and the py.typed mark, and no test, notebook or CI file."""
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert "vaultlayer_hf/py.typed" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "vaultlayer_hf").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    assert {name.split("/")[0] for name in names} == {"vaultlayer_hf"}
    guides = {str(path.relative_to(ROOT)) for path in (ROOT / "vaultlayer_hf").rglob("README.md")}
    assert guides == {name for name in names if name.endswith(".md")}


def test_wheel_names_its_command_and_licence(wheel) -> None:
    """The wheel installs `vl` and carries the licence text."""
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "vl = vaultlayer_hf.cli:main" in wheel.read(entry).decode()
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


def test_wheel_depends_on_ranges(wheel) -> None:
    """Installing the wheel into somebody's environment never pins torch; only the extras do."""
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = wheel.read(metadata).decode().splitlines()
    torch = [line for line in lines if line.startswith("Requires-Dist: torch")]
    assert torch, "torch isn't declared"
    assert all("extra ==" in line for line in torch if "==" in line.split(";")[0])
    assert any("extra" not in line for line in torch)
