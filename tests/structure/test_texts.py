"""The texts for people who change this project name what is there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests import ROOT

TESTS = (ROOT / "tests" / "README.md").read_text()
PROMISES = TESTS.partition("## Promise and test")[2]
KINDS = (ROOT / "tests" / "cases" / "README.md").read_text()
NAMED = sorted(set(re.findall(r"`([a-z0-9_/]+\.py)(?:::(test_\w+))?`", PROMISES + KINDS)))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda part: part)
def test_each_promise_has_its_test(file: str, test: str) -> None:
    """A test that the table of promises names exists."""
    text = (ROOT / "tests" / file).read_text()
    assert f"def {test or 'test_'}" in text


def test_each_case_is_of_a_kind() -> None:
    """The text on the kinds of cases names each case once, and none that isn't there; each kind names its tests."""
    registered = [
        name
        for path in (ROOT / "tests" / "cases").glob("*.py")
        for name in re.findall(r'^@case\(\n    "([a-z0-9-]+)"', path.read_text(), re.M)
    ]
    lines = re.findall(r"^- Cases: (.*?)\.$", KINDS, re.M | re.S)
    assert sorted(re.findall(r"`([a-z0-9-]+)`", " ".join(lines))) == sorted(registered)
    assert KINDS.count("\n- Tests: ") == len(lines) == KINDS.count("\n## ")


def test_the_table_of_promises_is_read() -> None:
    """Each row of the table names a test."""
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert all(re.search(r"`[a-z_/]+\.py", row.rpartition(" | ")[2]) for row in rows)


@pytest.mark.parametrize(
    "text",
    ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/README.md", "vaultlayer_hf/ARCHITECTURE.md"],
)
def test_texts_name_what_is_there(text: str) -> None:
    """Every path and link in the texts leads to something."""
    file = ROOT / text
    found = file.read_text()
    for name in re.findall(r"\]\(([^)#]+)\)", found):
        assert name.startswith("http") or (file.parent / name).exists(), name
    for name in re.findall(r"`((?:tests|vaultlayer_hf)/[\w./]*)", found):
        assert (ROOT / name).exists(), name


def test_the_changelog_is_of_this_release() -> None:
    """The changelog's newest heading is the version that the package has, with its day."""
    (newest, *_), (version,) = (
        re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
        for pattern, file in (
            (r"^## (.+)$", "CHANGELOG.md"),
            (r'^__version__ = "(.+)"$', "vaultlayer_hf/base/versions.py"),
        )
    )
    assert re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", newest), newest


def test_the_kits_are_there() -> None:
    """Every file and folder of tests that the table of kits names exists."""
    table = TESTS.partition("## Repeat")[0]
    for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)", table):
        roots = (ROOT / "tests", ROOT / "vaultlayer_hf", ROOT)
        assert any((root / name).exists() for root in roots), name


def test_one_version_of_each_tool() -> None:
    """pre-commit runs the ruff that the test extra installs, and every tool of it is pinned."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    pins = dict(line.split("==") for line in extra if line.startswith(("ruff", "mypy")))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.search(r"ruff-pre-commit\n\s+rev: v(\S+)", hooks)[1] == pins["ruff"]  # type: ignore[index]
    assert re.search(r"entry: python -m mypy$", hooks, re.MULTILINE)
    assert set(pins) == {"ruff", "mypy"}


def _strings(path: Path) -> set[str]:
    return set(re.findall(r'"(tests(?:\.\w+)+)(?::\w+)?"', path.read_text()))


def test_programs_that_are_named_in_strings_exist() -> None:
    """A module of tests that a test starts by its name is there."""
    for path in (ROOT / "tests").rglob("*.py"):
        for name in _strings(path):
            file = ROOT / name.replace(".", "/")
            found = file.is_dir() or any(one.with_suffix(".py").exists() for one in (file, file.parent))
            assert found, f"{path}: {name}"  # a module, or a name in it


def test_the_architecture_names_what_is_there() -> None:
    """Each file and folder that ARCHITECTURE.md names exists, and each folder of the package is named."""
    package = ROOT / "vaultlayer_hf"
    text = (package / "ARCHITECTURE.md").read_text()
    names = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?|[a-z_]+\.py)`", text))
    assert [name for name in sorted(names) if not (package / name).exists()] == []
    inside = {
        f"{path.parent.relative_to(package)}/" for path in package.rglob("*.py") if path.parent != package
    }
    assert sorted(inside - names) == []


FOLDERS = sorted(path for path in (ROOT / "vaultlayer_hf").rglob("__init__.py") if path.parent.parent != ROOT)


@pytest.mark.parametrize("file", FOLDERS, ids=lambda path: path.parent.name)
def test_a_folder_says_what_lives_there(file: Path) -> None:
    """A folder's docstring lists each of its files and folders, with a few words, and nothing else."""
    docstring = ast.get_docstring(ast.parse(file.read_text()), clean=False) or ""
    listed = dict(re.findall(r"^    ([a-z_0-9]+(?:\.py|/)) +(\S.*)$", docstring, re.MULTILINE))
    files = {path.name for path in file.parent.glob("*.py")} - {"__init__.py", "__main__.py"}
    rooms = {f"{path.name}/" for path in file.parent.iterdir() if any(path.glob("*.py"))}
    assert set(listed) - {"__main__.py"} == files | rooms
