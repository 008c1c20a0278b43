"""The record of what a process imports, which an attempt writes (vaultlayer_hf/run/imports.py has its format)."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vaultlayer_hf.run.inside.startup.vaultlayer_looks import looks, makes_other_tensors
else:
    from vaultlayer_looks import looks, makes_other_tensors

_OWN = "VAULTLAYER_RUN_"
_LARGEST = 8 * 2**20
"""Bytes of the record of all processes of an attempt: one that starts Python again and again must not fill memory."""


class Recorder:
    """Tells `vl run` what this process imports, and what it looks like then. Opens nothing for longer.

    Attributes:
        stopped: nothing more is noted.
    """

    def __init__(self, path: str) -> None:
        self._path, self.stopped = path, False
        self._environment = dict(os.environ)
        self._raw = dict(getattr(os.environ, "_data", {}))
        self._sys_path: list[str] = []
        self._looks: dict[str, Any] = {}
        self._folder = os.getcwd()
        self._streams = sys.stdout, sys.stderr

    def imports(self, name: str) -> bool:
        """Note an import that begins; return whether further ones are to be noted."""
        lines: list[tuple[str, Any]] = []
        # As it is encoded: 50 times quicker to compare, at every import.
        raw = getattr(os.environ, "_data", None)
        if raw is None or raw != self._raw:
            now, self._raw = dict(os.environ), dict(raw or {})
            changed = {
                key for key in {*now, *self._environment} if now.get(key) != self._environment.get(key)
            }
            lines += [("e", (key, now.get(key))) for key in sorted(changed) if not key.startswith(_OWN)]
            self._environment = now
        if sys.path != self._sys_path:
            self._sys_path = list(sys.path)
            lines.append(("p", self._sys_path))
        if (seen := looks()) != self._looks:
            self._looks = seen
            lines.append(("l", seen))
        if (folder := os.getcwd()) != self._folder and _is_above_script(folder):
            self._folder = folder
            lines.append(("d", folder))
        going = folder == self._folder and (sys.stdout, sys.stderr) == self._streams
        if not going:
            lines.append(("!", "the script has changed its folder, or replaced stdout or stderr"))
        else:
            lines.append(("x" if makes_other_tensors() else "i", name))
        return self._write(lines) and going

    def stop(self, reason: str) -> None:
        """Note that what is imported from here on can't be imported beforehand."""
        self.stopped = True
        self._write([("!", reason)])

    def _write(self, lines: "list[tuple[str, Any]]") -> bool:
        text = "".join(f"{os.getpid()}\t{kind}\t{what!a}\n" for kind, what in lines)
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                return os.write(file, text.encode()) > 0 and os.fstat(file).st_size < _LARGEST
            finally:
                os.close(file)
        except OSError:
            return False  # `vl run` is gone, or out of reach: nothing then asks for it


def _is_above_script(folder: str) -> bool:
    """Tell whether a folder is the script's, or one above it, which is the same in each attempt."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(script, str) or not os.path.isabs(script):
        return False
    return os.path.join(os.path.realpath(os.path.dirname(script)), "").startswith(os.path.join(folder, ""))
