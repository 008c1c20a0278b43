"""What runs a notebook's cells: nbclient's client, which here prints as the cells do, and hands signals on to them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from nbclient import NotebookClient


class ToldError(Exception):
    """The notebook was told to end while no cell ran: none is begun any more."""


class Client(NotebookClient):
    """Runs a notebook's cells.

    nbclient itself shows no output before a cell has ended. At a signal it shuts the kernel down, which is killed 5 s
    later, be a save under way or not. So here the running cell gets the signal, as a script would, and ends by it.

    Attributes:
        told: the signal by which it was told to end; None while it wasn't.
        where: at which place it is, in words.
    """

    def __init__(self, notebook: Any, **options: Any) -> None:
        super().__init__(
            notebook,
            on_cell_start=self._begin,
            on_cell_complete=self._sent,
            on_cell_executed=self._end,
            **options,
        )
        self.told: signal.Signals | None = None
        self.where = "before its first cell"
        self._running = False

    async def async_start_new_kernel(self, **named: Any) -> None:
        """Start the kernel, with handlers of its own in place of nbclient's, which were set right before."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._note, number)
        await super().async_start_new_kernel(**named)

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Print what a cell prints as it comes."""
        if msg["msg_type"] == "stream":
            stream = sys.stderr if msg["content"].get("name") == "stderr" else sys.stdout
            stream.write(msg["content"].get("text", ""))
            stream.flush()
        return super().process_message(msg, cell, cell_index)

    def _note(self, number: signal.Signals) -> None:
        """Hand the first signal on to a running cell. A second one ends `vl run`'s attempt as a whole."""
        if self.told is not None:
            return
        self.told = number
        kernel: Any = self.km
        if self._running and kernel is not None:
            # To the kernel alone: the data's workers, of its process group, would die of SIGTERM.
            with suppress(ProcessLookupError):  # it has died, and nbclient will say so
                os.kill(int(kernel.provisioner.pid), number)

    def _begin(self, cell: Any, cell_index: int) -> None:
        if self.told is not None:
            raise ToldError
        self.where = f"in cell {cell_index + 1}"

    def _sent(self, cell: Any, cell_index: int) -> None:
        self._running = True  # nbclient's word for it is "complete": the kernel has got the cell

    def _end(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        self._running = False
        if execute_reply["content"]["status"] == "ok":
            self.where = f"behind cell {cell_index + 1}"
