"""Pages of the public names, from their docstrings: `python -m tests.readme.api` writes them to the folder api/.

pdoc makes them (`pip install -e '.[docs]'`); here is only which names they show.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests import ROOT

PUBLIC = ("vaultlayer_hf", "vaultlayer_hf.stores.base", "vaultlayer_hf.testing")
"""Modules whose names are for users, and for who writes a store."""


def main(folder: Path = ROOT / "api") -> None:
    """Write a page for each public module, and an index, into ``folder``."""
    import pdoc
    import pdoc.render

    for name in PUBLIC:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            getattr(module, public)  # some come late, and pdoc shows what is there
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*PUBLIC[:1], f"!{PUBLIC[0]}\\..+", *PUBLIC[1:], output_directory=folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
