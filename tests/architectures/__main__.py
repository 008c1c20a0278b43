"""Print the table: which architectures a Trainer's resume loads whole, by stock and with a vault.

    python -m tests.architectures [KIND ...] [--all]

Without ``--all`` only those are listed that stock transformers doesn't load whole.
"""

from __future__ import annotations

import argparse

import transformers

from tests.architectures.table import Row, rows
from tests.architectures.tiny import architectures


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.architectures", description=__doc__)
    parser.add_argument("kinds", nargs="*", help="model types; all of this transformers by default")
    parser.add_argument("--all", action="store_true", help="list those that stock loads whole, too")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known = architectures()
    found: list[Row] = []
    print(f"transformers {transformers.__version__}")
    print(f"{'model type':28} {'tensors':>8}  stock: not loaded  ours: not loaded")
    for row in rows((kind, known[kind]) for kind in options.kinds or known):
        found.append(row)
        if row.why and options.all:
            print(f"{row.kind:28} not tried: {row.why}", flush=True)
        elif not row.why and (options.all or row.stock or row.ours != 0):
            ours = "refused" if row.ours is None else row.ours
            print(f"{row.kind:28} {row.tensors:>8}  {row.stock:>17}  {ours:>16}", flush=True)
    tried = [row for row in found if not row.why]
    stock, ours = sum(not row.stock for row in tried), sum(row.ours == 0 for row in tried)
    refused = sum(row.ours is None for row in tried)
    print(
        f"\n{len(tried)} of {len(found)} architectures tried: loaded whole by stock {stock}, by ours {ours}; "
        f"refused by ours {refused}"
    )


if __name__ == "__main__":
    main()
