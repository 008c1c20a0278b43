"""Notebooks, executed for real in a kernel of their own: run through, killed in the middle, interrupted."""

from __future__ import annotations

import html
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import ROOT

NOTEBOOKS = ROOT / "notebooks"
COLAB = Path(__file__).with_name("colab")
"""Holds a stand-in for the module ``google.colab``."""
_PATIENCE = 90.0
"""Seconds until a run has committed something."""


@dataclass
class Execution:
    """One kernel's work on a notebook.

    Args:
        name: of the notebook's file.
        folder: where it runs.
        vault: the URI that it trains on.
        replaced: what stands for the folders and choices of its machine, text by text in its cells.

    Attributes:
        client: nbclient's, with the cells and their outputs.
    """

    name: str
    folder: Path
    vault: str
    replaced: Mapping[str, str] = field(default_factory=dict)
    client: Any = None

    def __post_init__(self) -> None:
        import nbclient
        import nbformat

        notebook = nbformat.read(NOTEBOOKS / self.name, as_version=4)  # type: ignore[no-untyped-call]
        for cell in notebook.cells:
            for old, new in self.replaced.items():
                cell["source"] = cell["source"].replace(old, new)
        self.folder.mkdir(exist_ok=True)
        self.client = nbclient.NotebookClient(
            notebook, timeout=150, kernel_name="python3", resources={"metadata": {"path": str(self.folder)}}
        )

    def run(self) -> Execution:
        """Run all cells."""
        self.client.execute()
        return self

    def run_and_kill(self) -> None:
        """Run all cells, and kill the kernel with SIGKILL at the vault's first commit."""
        from nbclient.exceptions import DeadKernelError

        killed = self._at_a_commit(lambda: os.kill(self.client.km.provisioner.pid, signal.SIGKILL))
        try:
            self.client.execute()
        except DeadKernelError:
            pass
        killed()
        assert "ended at step" not in self.printed("result"), "it was killed too late"

    def run_and_interrupt(self) -> Execution:
        """Run all cells; press the stop button at the first commit, and run the cell that trains once more."""
        from nbclient.exceptions import CellExecutionError

        with self.client.setup_kernel():
            for number, cell in enumerate(self.client.nb.cells):
                if cell["id"] == "train":
                    # As Jupyter's button does it: to the kernel and what it has started.
                    done = self._at_a_commit(
                        lambda: os.killpg(os.getpgid(self.client.km.provisioner.pid), signal.SIGINT)
                    )
                    try:
                        self.client.execute_cell(cell, number)
                    except CellExecutionError as error:
                        assert "Interrupt" in str(error) or "signal" in str(error).lower(), error  # noqa: PT017
                    else:
                        raise AssertionError("the cell ran to its end")
                    done()
                self.client.execute_cell(cell, number)
        return self

    def printed(self, cell_id: str) -> str:
        """What a cell printed, stdout and stderr together."""
        cell = next(cell for cell in self.client.nb.cells if cell["id"] == cell_id)
        return "".join(output.get("text", "") for output in cell.get("outputs", ()))

    def shown(self, cell_id: str) -> list[str]:
        """What a cell shows, as HTML: bars, tables and lines."""
        cell = next(cell for cell in self.client.nb.cells if cell["id"] == cell_id)
        return [
            f"<pre class='{output['name']}'>{html.escape(output['text'])}</pre>"
            if "text" in output
            else output["data"]["text/html"]
            for output in cell["outputs"]
            if "text" in output or "text/html" in output.get("data", {})
        ]

    @property
    def ended(self) -> str:
        """Its last line: the step, and a digest of the weights."""
        return re.findall(r"ended at step \d+, weights \w+", self.printed("result"))[-1]

    def _at_a_commit(self, act: Callable[[], None]) -> Callable[[], None]:
        """Act once the vault holds a commit, in a thread; the function that is returned waits for it."""
        acted = threading.Event()

        def watch() -> None:
            from vaultlayer_hf import ObjectNotFoundError, open_vault

            end = time.monotonic() + _PATIENCE
            while time.monotonic() < end:
                try:
                    with open_vault(self.vault) as vault:
                        held = vault.checkpoints()
                except ObjectNotFoundError:
                    held = []  # not claimed yet
                if held:
                    act()
                    acted.set()
                    return
                time.sleep(0.02)

        thread = threading.Thread(target=watch)
        thread.start()

        def done() -> None:
            thread.join()
            assert acted.is_set(), f"nothing was committed within {_PATIENCE:.0f} s"

        return done


def page(shown: list[str]) -> str:
    """A page with what a cell shows, laid out and coloured as a notebook does it, light and below it dark."""
    style = """
        body { font: 14px sans-serif; margin: 0 } div { padding: 12px } pre { margin: 0; white-space: pre-wrap }
        table { border-collapse: collapse } td, th { padding: 4px 8px } .stderr { background: #fdd }
        .dark { background: #111; color: #eee } .dark .stderr { background: #4e1d1c }
    """
    both = "".join(f"<div class='{theme}'>{''.join(shown)}</div>" for theme in ("light", "dark"))
    return f"<!doctype html><meta charset='utf-8'><style>{style}</style>{both}"
