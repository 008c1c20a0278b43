"""Look for hostile input that does harm, for as long as it takes: ``python -m tests.security [--times 20]``.

Runs the fuzz tests with so many times their examples, different ones each time. What is found is mended, and its
document goes into ``tests/security/corpus``.
"""

from __future__ import annotations

import argparse
import os
import sys

import pytest


def main() -> int:
    """Run them; return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.security", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="times the examples that CI looks at")
    options = parser.parse_args()
    os.environ["VAULTLAYER_TEST_FUZZ"] = str(options.times)
    return int(pytest.main(["-q", "-o", "timeout=3600", "tests/security", "-k", "fuzz"]))


if __name__ == "__main__":
    sys.exit(main())
