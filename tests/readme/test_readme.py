"""The README and the guides are true: no block escapes, each table is compared with the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests import ROOT
from tests.readme.blocks import GUIDES, README, Block, blocks, install_commands, table_after

TEXT = README.read_text()


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.place)
def test_every_block_is_of_a_kind_that_is_run(block: Block) -> None:
    """No block of the README or of a guide escapes: it is of one kind, and a test runs that kind."""
    assert block.kind is not None, "no test runs a block like this: add a kind to KINDS, and a test for it"
    asked = f'of_kind("{block.kind}")'
    assert any(asked in path.read_text() for path in Path(__file__).parent.glob("*.py")), asked


def test_settings_table_is_complete_and_right(monkeypatch) -> None:
    """Each option is in the table with its variable and the default that the code has."""
    from vaultlayer_hf import Settings
    from vaultlayer_hf.session.settings import settings_table

    for name in list(os.environ):
        if name.startswith("VAULTLAYER_"):
            monkeypatch.delenv(name)
    rows = {row[0].strip("`"): row[1].strip("`") for row in table_after("## Settings")}
    defaults = Settings()
    expected = {}
    for variable, field in settings_table():
        value = getattr(defaults, field)
        expected[variable] = (
            "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        )
    for name in ("VAULTLAYER_KEEP_BEST", "VAULTLAYER_LOG_FIGURES"):
        expected[name] = expected[name].lower()
    assert rows == expected


def test_every_extra_that_a_person_needs_is_in_the_table() -> None:
    """The table of extras holds those of pyproject.toml, but for what only this repository's tests and tools need."""
    own = {"test", "oldest", "testbase", "docs", "deepspeed", "testtrackers", "teststores", "bench"}
    there = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    told = {name for row in table_after("## Install") for name in re.findall(r"`(\w+)`", row[0])}
    assert told == there - own


def test_exit_codes_are_those_of_the_code() -> None:
    """The table of exit codes is what `vl` ends with."""
    from vaultlayer_hf.cli.common import EXIT_CODES

    rows = {int(row[0]): row[1] for row in table_after("| exit code |")}
    assert rows == {int(code): meaning for code, meaning in EXIT_CODES.items()}


def test_exit_codes_of_a_training_are_those_of_the_code() -> None:
    """The table of how a training ends that was told to stop names the codes that it ends with."""
    from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED

    assert [int(row[0]) for row in table_after("| exit code of a training |")] == [PREEMPTED, INTERRUPTED]


def test_ci_runs_the_second_command() -> None:
    """CI takes its test command from the README, so the two can't part."""
    assert len(install_commands()) == 2
    pattern = re.search(r"grep -m1 '(\^[^']+)' README.md", (ROOT / ".ci" / "run").read_text())[1]
    assert re.findall(pattern + r".*", TEXT, re.MULTILINE) == [install_commands()[1]]


_LINKED = [
    README,
    *GUIDES,
    *(ROOT / name for name in ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md")),
]


@pytest.mark.parametrize("file", _LINKED, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    """Each link names a file that is there, and a heading in it where it names one."""
    for target in re.findall(r"(?:\]\(|src(?:set)?=\")([^)\"]+)[)\"]", file.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (file.parent / path).resolve() if path else file
        assert found.exists(), target
        headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {_anchor(heading) for heading in headings}, target


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_first_command_works_from_nothing(tmp_path) -> None:
    """The first command, word for word, on a copy of the sources and with a Python that has nothing else."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in tracked.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    kept = {"PATH", "HOME", "LANG", "TMPDIR"}
    environment = {
        name: value for name, value in os.environ.items() if name in kept or name.startswith(("PIP_", "SSL_"))
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", install_commands()[0]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "bit-identical" in done.stdout
    assert (tmp_path / ".venv" / "bin" / "vl").exists()
