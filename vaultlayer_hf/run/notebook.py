"""A notebook as a program: `vl run -- notebook.ipynb` runs its cells from the top, in a kernel of its own.

    python -m vaultlayer_hf.run.notebook NOTEBOOK

What the cells print is printed as it comes. The notebook with its outputs is written into the attempt's folder, never
over the one that was given. Exits with 1 where a cell fails, with 137 where the kernel was killed, and where the
notebook was told to end with 130 (Ctrl-C), 75 (its training has saved) or 143.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED

_KILLED, _ENDED = 137, 143


def execute(path: Path, to: Path | None) -> int:
    """Run a notebook's cells; return the exit code. ``to`` gets it with its outputs."""
    import nbformat as untyped
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    from vaultlayer_hf.run.notebook_client import Client, ToldError

    nbformat: Any = untyped
    notebook = nbformat.read(path, as_version=4)
    client = Client(notebook, timeout=None, resources={"metadata": {"path": str(path.absolute().parent)}})
    code = 0
    try:
        client.execute()
    except CellExecutionError as error:
        if client.told is None:
            sys.stderr.write(f"{error}\n")
            code = 1
        else:
            code = _say_told(client.told, client.where, error)
    except DeadKernelError:
        if client.told is None:
            sys.stderr.write("the notebook's kernel has died\n")
            code = _KILLED
        else:
            code = _say_told(client.told, client.where)
    except (ToldError, KeyboardInterrupt):  # between two cells, or before the first and behind the last one
        code = _say_told(client.told or signal.SIGINT, client.where)
    finally:
        if to is not None:
            nbformat.write(notebook, to / path.name)
    return code


def _say_told(told: signal.Signals, where: str, error: Any = None) -> int:
    """Say in one line that a notebook was told to end; return the exit code.

    ``error``: what its cell has ended with. What a training says with it names what was saved.
    """
    name, value = (
        (getattr(error, "ename", ""), getattr(error, "evalue", "")) if error is not None else ("", "")
    )
    how = "interrupted" if told is signal.SIGINT else f"told to end ({told.name})"
    sys.stderr.write(f"the notebook was {how} {where}{f': {value}' if value else ''}\n")
    if name == "SystemExit" and value.startswith(str(PREEMPTED)):
        return PREEMPTED
    return INTERRUPTED if told is signal.SIGINT else _ENDED


if __name__ == "__main__":
    named = os.environ.get("VAULTLAYER_RUN_ATTEMPT")
    sys.exit(execute(Path(sys.argv[1]), Path(named) if named else None))
