"""The part of the conformance suite that creates, writes, uploads, copies and deletes."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vaultlayer_hf.errors import AlreadyExistsError, StoreError
from vaultlayer_hf.stores.base import Store

BIG = 40 * 1024 * 1024 + 12345
"""Bytes of a large file; more than several parts."""


class WritingTests:
    """See ``StoreConformance``, which gives the fixtures."""

    # create

    def test_create_makes_an_object(self, store: Store) -> None:
        """What create was given can be read back, and its size is known."""
        store.create("log/1.json", b"one")
        assert store.read("log/1.json", limit=100) == b"one"
        assert store.head("log/1.json").size == 3

    def test_create_refuses_an_existing_object(self, store: Store) -> None:
        """A second create raises AlreadyExistsError, with operation and key, and changes nothing."""
        store.create("log/1.json", b"one")
        with pytest.raises(AlreadyExistsError) as caught:
            store.create("log/1.json", b"two")
        assert (caught.value.operation, caught.value.key) == ("create", "log/1.json")
        assert store.read("log/1.json", limit=100) == b"one"

    def test_create_after_delete(self, store: Store) -> None:
        """A deleted key is free again."""
        store.create("x", b"one")
        store.delete(["x"])
        store.create("x", b"two")
        assert store.read("x", limit=100) == b"two"

    # write

    def test_write_replaces(self, store: Store) -> None:
        """A write replaces an object by a longer and by a shorter one, and the tag changes."""
        tags = set()
        for data in (b"one", b"a longer second", b"3"):
            store.write("x", data)
            assert store.read("x", limit=100) == data
            tags.add(store.head("x").etag)
        assert len(tags) == 3 or tags == {None}

    def test_empty_objects(self, store: Store, source: Callable[[bytes], Path]) -> None:
        """Empty objects can be created, written, uploaded, copied, listed and read."""
        store.create("e/1", b"")
        store.write("e/2", b"")
        store.upload("e/3", source(b""), size=0)
        store.copy("e/3", "e/4")
        assert [(info.key, info.size) for info in store.list("e/")] == [(f"e/{i}", 0) for i in range(1, 5)]
        for i in range(1, 5):
            assert store.read(f"e/{i}", limit=10) == b""
            assert bytes(store.read_range(f"e/{i}", 0, 0)) == b""

    def test_modified_is_now(self, store: Store) -> None:
        """The time of modification is in seconds since the epoch, about now."""
        store.write("x", b"x")
        assert abs(store.head("x").modified - time.time()) < 3600

    # upload

    @pytest.mark.parametrize("size", [1, 4096, 8 * 1024 * 1024, 8 * 1024 * 1024 + 1])
    def test_upload(self, store: Store, source: Callable[[bytes], Path], size: int) -> None:
        """An upload of less, exactly and more than one part arrives whole, and reports what was stored."""
        data = random.Random(size).randbytes(size)
        info = store.upload("data/1/file", source(data), size=size)
        assert (info.key, info.size) == ("data/1/file", size)
        assert info == store.head("data/1/file")
        assert bytes(store.read_range("data/1/file", 0, size)) == data

    def test_big_upload(self, store: Store, source: Callable[[bytes], Path]) -> None:
        """A file of several parts arrives bit by bit, and the pace sees each of its bytes once."""
        data = random.Random(1).randbytes(BIG)
        seen: list[int] = []
        store.upload("big", source(data), size=BIG, pace=seen.append)
        assert sum(seen) == BIG
        assert len(seen) > 3
        digest, step = hashlib.sha256(), 7_000_001
        for start in range(0, BIG, step):
            digest.update(store.read_range("big", start, min(step, BIG - start)))
        assert digest.digest() == hashlib.sha256(data).digest()

    def test_upload_takes_the_first_bytes_only(self, store: Store, source: Callable[[bytes], Path]) -> None:
        """A file that has grown since it was measured is stored with its measured size."""
        store.upload("x", source(b"0123456789"), size=4)
        assert store.read("x", limit=100) == b"0123"

    @pytest.mark.parametrize(("have", "size"), [(0, 1), (3, 100), (3, 30_000_000), (20_000_000, 30_000_000)])
    def test_upload_of_a_short_file(
        self, store: Store, source: Callable[[bytes], Path], have: int, size: int
    ) -> None:
        """A file shorter than announced is an error, and nothing becomes visible."""
        with pytest.raises(StoreError):
            store.upload("x", source(bytes(have)), size=size)
        assert not store.exists("x")

    def test_upload_of_an_absent_file(self, store: Store, tmp_path: Path) -> None:
        """A local file that isn't there is an error of its own, and not an absent object."""
        with pytest.raises(StoreError) as caught:
            store.upload("x", tmp_path / "absent", size=1)
        assert type(caught.value) is StoreError
        assert not store.exists("x")

    @pytest.mark.parametrize(
        "kind", [KeyError, TimeoutError, FileNotFoundError, ValueError, KeyboardInterrupt]
    )
    @pytest.mark.parametrize("size", [100, 40 * 1024 * 1024])
    def test_cancelled_upload(
        self, store: Store, source: Callable[[bytes], Path], kind: type[BaseException], size: int
    ) -> None:
        """What a pace raises comes out as it is, and neither a new nor a replaced object shows anything."""
        store.write("old", b"old")
        path, error, seen = source(bytes(size)), kind("stop"), [0]

        def pace(count: int) -> None:
            seen[0] += count
            if seen[0] > size // 2:
                raise error

        for key in ("new", "old"):
            seen[0] = 0
            with pytest.raises(kind) as caught:
                store.upload(key, path, size=size, pace=pace)
            assert caught.value is error
        assert [info.key for info in store.list("")] == ["old"]
        assert store.read("old", limit=10) == b"old"
        store.upload("new", path, size=size)
        assert store.head("new").size == size

    # copy and delete

    def test_copy(self, store: Store, source: Callable[[bytes], Path]) -> None:
        """A copy has the same bytes, replaces what was there, and outlives its original."""
        data = random.Random(2).randbytes(3_000_000)
        store.upload("data/1/a", source(data), size=len(data))
        store.write("data/2/b", b"old")
        info = store.copy("data/1/a", "data/2/b")
        assert (info.key, info.size) == ("data/2/b", len(data))
        store.delete(["data/1/a"])
        assert bytes(store.read_range("data/2/b", 0, len(data))) == data

    def test_delete(self, store: Store) -> None:
        """Deleting removes what is named and nothing else; an absent key or a folder is no error."""
        for key in ("a/1", "a/2", "a/3", "b"):
            store.write(key, b"x")
        store.delete(["a/1", "absent/x", "a/3", "a"])
        store.delete(iter(["a/1"]))
        store.delete([])
        assert [info.key for info in store.list("")] == ["a/2", "b"]
