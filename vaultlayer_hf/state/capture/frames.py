"""The frames of files: all that stands around the contents of a file's tensors, learnt from one that a library wrote.

The libraries write files through the page cache, and can't be told otherwise: torch takes the name that stands in its
archives from the path, and safetensors takes nothing but a path. But from save to save only the contents change. So the
first file of its kind is written by its library, and the next ones are put together from the frame that it has left
and from the contents: byte for byte what the library would write, on a way of our own. What isn't quite as it was (a
pickle of another length, another tensor) is written by the library again, and learnt anew.

An archive also says the checksum of each content, and has an identity that is made of them. Both are asked of torch's
own writer, which is handed a file that takes everything and keeps nothing else.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOCAL, _LOCAL_SIZE = b"PK\3\4", 30
_BEHIND, _BEHIND_SIZE = b"PK\7\x08", 16
_LISTED, _LISTED_SIZE = b"PK\1\2", 46
_FLAGS, _LENGTHS_IN_LOCAL, _LENGTHS_LISTED, _SUM_BEHIND, _SUM_LISTED = 6, 26, 28, 4, 16
"""Where in these parts of a zip the flags stand, the lengths of name and extra field, and the checksum."""
_HAS_SUM_BEHIND = 8
"""The flag of a record whose checksum stands behind its content; that of an empty one doesn't."""


Content = tuple[str, int, int]
"""Its name, where in the file it begins, and its size."""


Put = Callable[[bytes | memoryview], object]
"""Appends bytes to a file."""


class UnlikeError(Exception):
    """A file isn't like the one whose frame is known."""


@dataclass(frozen=True)
class Frame:
    """What stands around the contents of a file.

    Attributes:
        kind: what has to be the same for another file to be like it.
        names: of the contents, in their order.
        sizes: of the contents, in bytes.
        gaps: the bytes in front of each content, and those behind the last one.
    """

    kind: object
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    gaps: tuple[bytes, ...]


def frame_of(path: Path, kind: object, contents: Sequence[Content]) -> Frame:
    """Read the frame of a file in which these contents are, in their order. Raises OSError."""
    gaps, at = [], 0
    with open(path, "rb") as file:
        for _, begin, size in contents:
            file.seek(at)
            gaps.append(file.read(begin - at))
            at = begin + size
        file.seek(at)
        gaps.append(file.read())
    return Frame(kind, tuple(one[0] for one in contents), tuple(one[2] for one in contents), tuple(gaps))


def contents_of_archive(path: Path) -> list[Content]:
    """Return where the records of an archive are; their names without the archive's own. Raises OSError, BadZipFile."""
    found = []
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        for one in sorted(archive.infolist(), key=lambda one: one.header_offset):
            file.seek(one.header_offset)
            lengths = struct.unpack_from("<HH", file.read(_LOCAL_SIZE), _LENGTHS_IN_LOCAL)
            begin = one.header_offset + _LOCAL_SIZE + sum(lengths)
            found.append((one.filename.partition("/")[2], begin, one.file_size))
    return found


def contents_of_safetensors(path: Path) -> list[Content]:
    """Return where the tensors of a file of safetensors are. Raises OSError, ValueError."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    places = {name: one["data_offsets"] for name, one in header.items()}
    ordered = sorted(places.items(), key=lambda one: one[1])
    return [(name, 8 + length + begin, end - begin) for name, (begin, end) in ordered]


class ArchiveWriter:
    """Takes an archive as torch writes it to a file of no name, and puts the contents into the frame of another.

        with serialization._open_zipfile_writer(ArchiveWriter(frame, put)) as file:
            file.write_record(...)

    Args:
        frame: of the archive that torch would write to the path.
        put: called with the bytes, in their order.
    """

    def __init__(self, frame: Frame, put: Put) -> None:
        self._frame, self._put = frame, put
        self._sums: list[bytes | None] = []  # None: of an empty record
        self._head = bytearray()  # of the record that begins, with its name and extra field
        self._missing = 0  # bytes of the content that is under way
        self._within = False
        self._error: Exception | None = None

    def write(self, data: memoryview) -> int:
        """Take the next bytes, in the portions in which torch writes them.

        Raises nothing, ``flush`` does: torch's writer writes on behind an error, and a second one ends the process.
        """
        try:
            if self._error is None:
                self._take(data)
        except Exception as error:
            self._error = error
        return len(data)

    def flush(self) -> None:
        """Put the end of the file; torch calls it when all is written. Raises UnlikeError, and what ``put`` raises."""
        if self._error is not None:
            raise self._error
        if self._within or len(self._sums) != len(self._frame.sizes):
            raise UnlikeError("it has fewer records than before")
        self._put(self._listed(self._summed(self._frame.gaps[-1])))

    def _take(self, data: memoryview) -> None:
        count = len(self._sums)
        if self._within and self._missing:
            self._missing -= len(data)
            if self._missing < 0:
                raise UnlikeError("a content is longer than it was")
            self._put(data)
        elif self._within:
            self._end(bytes(data))
        elif count < len(self._frame.sizes):
            self._head += data
            if len(self._head) >= _LOCAL_SIZE:
                self._begin(count)
        elif bytes(data[:4]) == _LOCAL:
            raise UnlikeError("it has more records than before")

    def _begin(self, count: int) -> None:
        if not self._head.startswith(_LOCAL):
            raise UnlikeError("it has fewer records than before")
        if len(self._head) < _LOCAL_SIZE + sum(struct.unpack_from("<HH", self._head, _LENGTHS_IN_LOCAL)):
            return
        self._put(self._summed(self._frame.gaps[count]))
        self._missing = self._frame.sizes[count]
        self._within = bool(self._head[_FLAGS] & _HAS_SUM_BEHIND)
        if not self._within:
            self._sums.append(None)
        self._head.clear()

    def _end(self, behind: bytes) -> None:
        if not behind.startswith(_BEHIND):
            raise UnlikeError("a content is longer than it was")
        self._sums.append(behind[_SUM_BEHIND : _SUM_BEHIND + 4])
        self._within = False

    def _summed(self, gap: bytes) -> bytes:
        """Return a gap with the checksum of the content in front of it."""
        if not self._sums or self._sums[-1] is None:
            return gap
        if not gap.startswith(_BEHIND):
            raise UnlikeError("its checksums stand elsewhere")
        return gap[:_SUM_BEHIND] + self._sums[-1] + gap[_SUM_BEHIND + 4 :]

    def _listed(self, end: bytes) -> bytes:
        """Return the end of an archive with the checksums in its list of records."""
        found, at = bytearray(end), end.find(_LISTED, _BEHIND_SIZE)  # the last record isn't empty
        for one in self._sums:
            if not found.startswith(_LISTED, at):
                raise UnlikeError("its list of records is another one")
            if one is not None:
                found[at + _SUM_LISTED : at + _SUM_LISTED + 4] = one
            at += _LISTED_SIZE + sum(struct.unpack_from("<HHH", found, at + _LENGTHS_LISTED))
        return bytes(found)
