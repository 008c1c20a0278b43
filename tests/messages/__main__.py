"""Print every message from its situation: ``python -m tests.messages``; ``--write`` keeps them in messages.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.messages import commands, deaths, keys, runs, wrong  # noqa: F401  they register their situations
from tests.messages.situations import page

KEPT = Path(__file__).with_name("messages.md")


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write messages.md")
    if parser.parse_args().write:
        KEPT.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
