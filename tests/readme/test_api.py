"""The pages of the public names can be made."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import vaultlayer_hf
from tests import ROOT


@pytest.mark.slow
def test_pages_are_made_without_a_warning(tmp_path) -> None:
    """The command makes a page with every public name, and no docstring or annotation that can't be read."""
    pytest.importorskip("pdoc", reason="needs pdoc: pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "tests.readme.api", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"Warn|Error", done.stderr), done.stderr
    page = (tmp_path / "vaultlayer_hf.html").read_text()
    assert [name for name in vaultlayer_hf.__all__ if f'id="{name}"' not in page] == []
