"""Print the table: which architectures a Trainer's resume loads whole, by stock and with a vault.

    python -m tests.architectures [KIND ...] [--all] [--json FILE]
    python -m tests.architectures --compare FILE ... [--all]

Without ``--all`` only those are listed that stock transformers doesn't load whole. ``--json`` keeps the table in a
file, too, and ``--compare`` prints such files side by side: one for each version of transformers that it was run under.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.architectures.table import Row


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.architectures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", help="model types; all of this transformers by default")
    parser.add_argument("--all", action="store_true", help="list those that stock loads whole, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument(
        "--compare", type=Path, nargs="+", metavar="FILE", help="print these side by side instead"
    )
    options = parser.parse_args()
    if options.compare:
        print("\n".join(side_by_side(options.compare, every=options.all)))
    else:
        run(options.kinds, options.all, options.json)


def run(kinds: Iterable[str], every: bool, file: Path | None) -> None:
    """Try these architectures, or all, and print a row of each as it comes."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # some architectures would ask for a backbone
    logging.getLogger("vaultlayer_hf").setLevel(logging.ERROR)  # what it says of each stands in the table
    import transformers

    from tests.architectures.table import rows
    from tests.architectures.tiny import architectures

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known = architectures()
    found: list[Row] = []
    print(f"transformers {transformers.__version__}")
    print(f"{'model type':28} {'tensors':>8}  stock: not loaded  ours: not loaded")
    for row in rows((kind, known[kind]) for kind in kinds or known):
        found.append(row)
        if row.why and every:
            print(f"{row.kind:28} not tried: {row.why}", flush=True)
        elif not row.why and (every or row.stock or row.ours != 0):
            print(f"{row.kind:28} {row.tensors:>8}  {row.stock:>17}  {_ours(row):>16}", flush=True)
    print(f"\n{_sum(found)}")
    if file is not None:
        content = {"transformers": transformers.__version__, "rows": [asdict(row) for row in found]}
        file.write_text(json.dumps(content, indent=1) + "\n")


def side_by_side(files: Iterable[Path], *, every: bool = False) -> list[str]:
    """Return the lines of one table for several versions: of each, what stock and what ours haven't loaded."""
    tables = []
    for file in files:
        content = json.loads(file.read_text())
        tables.append((content["transformers"], {row["kind"]: Row(**row) for row in content["rows"]}))
    kinds = sorted({kind for _, rows in tables for kind in rows})
    lines = [
        "tensors that aren't what was saved, of those that a checkpoint holds: stock, ours",
        f"{'model type':28}" + "".join(f"  {'transformers ' + version:>24}" for version, _ in tables),
    ]
    for kind in kinds:
        here = [rows.get(kind) for _, rows in tables]
        tried = [row for row in here if row is not None and not row.why]
        if tried and (every or any(row.stock or row.ours != 0 for row in tried)):
            lines.append(f"{kind:28}" + "".join(f"  {_cell(row):>24}" for row in here))
    return [*lines, "", *(f"transformers {version}: {_sum(rows.values())}" for version, rows in tables)]


def _cell(row: Row | None) -> str:
    if row is None:
        return "unknown"
    return "not tried" if row.why else f"{row.stock}, {_ours(row)} of {row.tensors}"


def _ours(row: Row) -> str:
    return "refused" if row.ours is None else str(row.ours)


def _sum(rows: Iterable[Row]) -> str:
    found = list(rows)
    tried = [row for row in found if not row.why]
    stock, ours = sum(not row.stock for row in tried), sum(row.ours == 0 for row in tried)
    refused = sum(row.ours is None for row in tried)
    return (
        f"{len(tried)} of {len(found)} architectures tried: loaded whole by stock {stock}, by ours {ours}; "
        f"refused by ours {refused}"
    )


if __name__ == "__main__":
    main()
