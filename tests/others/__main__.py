"""All programs, on one rank and on two, killed under `vl run`, as a table: ``python -m tests.others``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.others.compare import PROGRAMS, compare


def main() -> None:
    """Play all; exit 1 where one doesn't end bit-identical."""
    failed = False
    for program in PROGRAMS:
        for ranks in (1, 2):
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="vl-others-") as folder:
                try:
                    compared = compare(program, ranks, Path(folder))
                except AssertionError as error:
                    print(f"{program.name}, {ranks} ranks: {error}")
                    failed = True
                    continue
            good = compared.code == 0 and compared.same
            failed |= not good
            print(
                f"{program.name:45} {ranks} rank{'s' if ranks > 1 else ' '}  "
                f"{'by vl init' if compared.edited else 'unedited  '}  killed and resumed: "
                f"{'bit-identical' if good else f'NO (exit {compared.code})'}  {time.monotonic() - began:.0f} s",
                flush=True,
            )
            if not good:
                print(compared.output)
    sys.exit(failed)


if __name__ == "__main__":
    main()
