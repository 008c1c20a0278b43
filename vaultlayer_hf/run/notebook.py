"""A notebook as a program: `vl run -- notebook.ipynb` runs its cells from the top, in a kernel of its own.

    python -m vaultlayer_hf.run.notebook NOTEBOOK

What the cells print is printed. The notebook with its outputs is written into the attempt's folder, never over the
one that was given. Exits with 1 where a cell fails, and 137 where the kernel was killed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_KILLED = 137


def execute(path: Path, to: Path | None) -> int:
    """Run a notebook's cells; return the exit code. ``to`` gets it with its outputs."""
    import nbformat as untyped
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    nbformat: Any = untyped
    notebook = nbformat.read(path, as_version=4)

    def told(cell: Any, cell_index: int, execute_reply: Any) -> None:
        for output in cell.get("outputs", ()):
            stream = sys.stderr if output.get("name") == "stderr" else sys.stdout
            stream.write(output.get("text", ""))
        sys.stdout.flush()

    resources = {"metadata": {"path": str(path.absolute().parent)}}
    client = NotebookClient(notebook, timeout=None, resources=resources, on_cell_executed=told)
    code = 0
    try:
        client.execute()
    except CellExecutionError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    except DeadKernelError:
        sys.stderr.write("the notebook's kernel has died\n")
        code = _KILLED
    finally:
        if to is not None:
            nbformat.write(notebook, to / path.name)
    return code


if __name__ == "__main__":
    named = os.environ.get("VAULTLAYER_RUN_ATTEMPT")
    sys.exit(execute(Path(sys.argv[1]), Path(named) if named else None))
