"""The files for other machines are what the guides show, which tests hold to what `vl run --on` hands in."""

from __future__ import annotations

import pytest

from tests import ROOT
from tests.readme.job_files import FILES, FOLDER, text_of


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_its_guide_shows(name: str) -> None:
    """Word for word; ``python -m tests.readme.job_files --write`` writes them anew."""
    assert (FOLDER / name).read_text() == text_of(name)


def test_each_file_is_said_what_for() -> None:
    """The table of the guide lists each file that lies there, and no other."""
    guide = (ROOT / "notebooks/README.md").read_text()
    assert {path.name for path in FOLDER.iterdir()} == set(FILES)
    assert all(f"(jobs/{name})" in guide for name in FILES)
