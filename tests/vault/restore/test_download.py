"""Download: what the digest vouches for is what the file holds, however the bytes come."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.stores.base import Take
from vaultlayer_hf.vault.manifest import FileEntry
from vaultlayer_hf.vault.restore import download as module
from vaultlayer_hf.vault.restore.download import download

DATA = bytes(range(256)) * 40
PIECE = 1000


class From:
    """A source that hands out bytes in pieces, in one of several ways."""

    def __init__(self, give: Callable[[bytes, int, Take], None], data: bytes = DATA) -> None:
        self.give, self.data = give, data

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        """As ``Store.read_pieces``."""
        self.give(self.data[start : start + length], start, take)


def whole(data: bytes, start: int, take: Take) -> None:
    """Pieces of bytes, as a store gives them."""
    for at in range(0, len(data), PIECE):
        take(start + at, memoryview(data[at : at + PIECE]))


def through_a_buffer(data: bytes, start: int, take: Take) -> None:
    """One buffer that is filled again and again, read-only or not, as a socket is read."""
    buffer = bytearray(PIECE)
    for at in range(0, len(data), PIECE):
        count = len(data[at : at + PIECE])
        buffer[:count] = data[at : at + PIECE]
        view = memoryview(buffer)[:count]
        take(start + at, view.toreadonly() if at else view)
    buffer[:] = bytes(PIECE)


def first_wrong(data: bytes, start: int, take: Take) -> None:
    """The first two pieces come damaged, and once more as they are."""
    for at in (0, PIECE):
        take(start + at, memoryview(bytes(len(data[at : at + PIECE]))))
    whole(data, start, take)


def last_wrong(data: bytes, start: int, take: Take) -> None:
    """The first piece comes once more at the end, damaged."""
    whole(data, start, take)
    take(start, memoryview(bytes(len(data[:PIECE]))))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH", 4096)
    monkeypatch.setattr(module, "_FLUSH", 3000)
    monkeypatch.setattr(module, "_BUFFER", 700)


def entries(data: bytes = DATA) -> list[FileEntry]:
    """Two files and an empty one."""
    return [
        FileEntry("a/one.bin", len(data), digest_bytes(data)),
        FileEntry("empty", 0, digest_bytes(b"")),
        FileEntry("two.bin", 5000, digest_bytes(data[:5000])),
    ]


@pytest.mark.parametrize("give", [whole, through_a_buffer, first_wrong])
def test_files_come_whole(tmp_path: Path, give: Callable[[bytes, int, Take], None]) -> None:
    """Bytes, a buffer that is used again, pieces that come twice: files are right, and every byte is counted once."""
    counts: list[int] = []
    download(From(give), "folder", entries(), tmp_path, concurrency=3, on_bytes=counts.append)
    assert (tmp_path / "a" / "one.bin").read_bytes() == DATA
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "two.bin").read_bytes() == DATA[:5000]
    assert sum(counts) == len(DATA) + 5000


@pytest.mark.parametrize("at", [0, 4095, 4096, 9000, len(DATA) - 1])
def test_a_wrong_byte_is_refused(tmp_path: Path, at: int) -> None:
    """One wrong byte anywhere is found."""
    wrong = DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]
    with pytest.raises(CorruptError, match="digest"):
        download(From(whole, wrong), "folder", entries(), tmp_path)


def test_what_overwrites_bytes_is_digested(tmp_path: Path) -> None:
    """Where a source writes over what it gave before, the digest is that of the file, and the file is refused."""
    with pytest.raises(CorruptError, match="digest"):
        download(From(last_wrong), "folder", entries(), tmp_path)


def test_no_byte_comes_where_the_disk_has_no_room(tmp_path: Path) -> None:
    """A file that can't have its place on the disk is an error of the disk before anything is fetched."""
    asked = []

    def give(data: bytes, start: int, take: Take) -> None:
        asked.append(start)

    probe = tmp_path / "probe"
    probe.touch()
    files.reserve(probe, 10**6)
    if probe.stat().st_size != 10**6:
        pytest.skip("this file system reserves no space")
    huge = FileEntry("huge.bin", 2**60, digest_bytes(b""))
    with pytest.raises(OSError, match="huge") as caught:
        download(From(give), "folder", [huge], tmp_path)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert not asked


def test_what_is_reserved_has_its_blocks(tmp_path: Path) -> None:
    """A reserved file is as large as what will come, and its blocks are its own; an empty one has none."""
    for size in (0, 5 * 10**6):
        path = tmp_path / str(size)
        path.touch()
        files.reserve(path, size)
        info = path.stat()
        assert info.st_size in (0, size)
        assert info.st_size == 0 or info.st_blocks * 512 >= size


def test_a_flush_begun_is_no_error_of_anything(tmp_path: Path) -> None:
    """Beginning to flush is a help only: of an absent file, of a pipe, it says nothing."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    files.start_flush(tmp_path / "pipe")
    files.start_flush(tmp_path / "absent")
    os.close(reader)
