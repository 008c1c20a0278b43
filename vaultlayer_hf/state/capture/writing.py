"""Writes recorded files from the copy of a state: past the page cache where that is possible, digested on the way.

What is written beside a training takes processor time from it, and nearly all of that was the page cache's: 420 MB took
0.12 to 0.60 s of a core through it, and 0.04 to 0.05 s past it (O_DIRECT), the pass through a buffer included, on two
cores of an AMD EPYC (a virtual machine, ext4). The digest that the seal needs takes 0.05 s more here and saves a cold
read of the whole file there. The price: the upload reads the file from the disk, and so does a start that goes on from
it.

Turned down, since each costs more: a process that is forked off and writes from its own view of the memory (each page
that the next step touches is copied first: 3.0 s for 420 MB in place of 0.05 s); a pipe that the libraries write into
(they hold the interpreter's lock at times, and so whoever reads it here waits for ever); a process of lowest priority
in the place of the thread (several times as long on a busy machine).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import KnownDigest
from vaultlayer_hf.state.capture.direct import DirectFile
from vaultlayer_hf.state.capture.frames import Frame, UnlikeError, frame_of
from vaultlayer_hf.state.capture.recorded import Recorded, Storage

_NO_WAY = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What open(2) answers where a file system has no way past the page cache."""


class FileWriter:
    """Writes the recorded files of one training's saves. On one thread at a time."""

    def __init__(self) -> None:
        self._frames: dict[str, Frame] = {}
        self._past = True

    def write(
        self, recorded: Sequence[Recorded], copy_of: Callable[[Storage], Storage]
    ) -> dict[Path, KnownDigest]:
        """Write files, on the disk and by the names that they have at the end; return the digests that are known.

        Raises as ``Recorded.write``.
        """
        found = {}
        for one in recorded:
            known = self.write_file(one, copy_of)
            if known is not None:
                found[one.final or one.path] = known
            if one.final is not None:
                files.rename(one.path, one.final, flush=False)
        return found

    def write_file(self, one: Recorded, copy_of: Callable[[Storage], Storage]) -> KnownDigest | None:
        """Write one of them, on the disk; return its digest, where that was taken meanwhile."""
        known = self._put(one, copy_of)
        if known is None:
            one.write(copy_of)
            files.fsync_file(one.path)
            self._learn(one)
        return known

    def _put(self, one: Recorded, copy_of: Callable[[Storage], Storage]) -> KnownDigest | None:
        """Write a file whose frame is known; return None where it isn't, or no longer."""
        frame = self._frames.get(one.path.name)
        if frame is None or not self._past or frame.kind != one.kind:
            return None
        try:
            file = DirectFile(one.path)
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
            self._past = False
            return None
        try:
            with file:
                one.put(frame, copy_of, file.write)
        except UnlikeError:
            return None
        return KnownDigest(file.size, one.path.stat().st_mtime_ns, file.digest.text())

    def _learn(self, one: Recorded) -> None:
        """Read the frame of a file that a library has just written."""
        self._frames.pop(one.path.name, None)
        with contextlib.suppress(Exception):  # whatever it is, the next one is written by the library, too
            self._frames[one.path.name] = frame_of(one.path, one.kind, one.contents())
