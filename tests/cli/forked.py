"""`vl` in a process that was forked with everything imported: 50 ms where a fresh interpreter takes a second."""

from __future__ import annotations

import os
import sys


def run(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Be `vl` with these arguments."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["vl", *arguments]
    from vaultlayer_hf.cli import main

    main()
