"""`python -m tests.notebook`: executes every notebook in every way (minutes); more arguments go to pytest.

What a browser has drawn of them, to look at, goes to the folder that VAULTLAYER_TEST_PICTURES names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["VAULTLAYER_TEST_NOTEBOOKS"] = "all"
sys.exit(pytest.main(["-q", "-m", "slow or not slow", str(Path(__file__).parent), *sys.argv[1:]]))
