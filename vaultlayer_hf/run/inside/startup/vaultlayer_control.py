"""The line between a spare interpreter and `vl run` (vaultlayer_hf/run/engines/spare_process.py), from inside."""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SLICE = 0.05
"""Seconds of a rest between two looks for an order."""


class Line:
    """Tells `vl run` how it goes, and is told to go.

    Args:
        control: the descriptor.
    """

    def __init__(self, control: int) -> None:
        self._control = control
        self._data = b""

    def tell(self, **fields: "Any") -> None:
        """Send one message."""
        os.write(self._control, ascii(fields).encode() + b"\n")

    def rest(self, seconds: float) -> None:
        """Do nothing for these seconds, or until an order comes."""
        end = time.monotonic() + seconds
        while not self._comes() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))

    def receive(self) -> "dict[str, Any]":
        """Wait for an order."""
        while not self._data.endswith(b"\n"):
            self._take()
        found: dict[str, Any] = value(self._data.decode())
        return found

    def _comes(self) -> bool:
        """Tell whether an order has begun to come."""
        os.set_blocking(self._control, False)
        try:
            self._take()
        except BlockingIOError:
            pass
        finally:
            os.set_blocking(self._control, True)
        return bool(self._data)

    def _take(self) -> None:
        """Take what has come. `vl run` that is gone ends the spare."""
        got = os.read(self._control, 65536)
        if not got:
            os._exit(0)
        self._data += got


def value(text: str) -> "Any":
    """Return what a Python literal means. It comes from `vl run`, whose command this process is."""
    return eval(text, {"__builtins__": {}})  # ast would be a module that the script hasn't imported
