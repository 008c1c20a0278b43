"""The part of the conformance suite that reads and lists."""

from __future__ import annotations

import errno
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from vaultlayer_hf.errors import ObjectNotFoundError, StoreError
from vaultlayer_hf.stores.base import Store

UNORDERED = ["日/本", "n/100.x", "n/100/z", "n/1"]
UNORDERED += [
    "a b",
    "a+b",
    "a-b",
    "a.b",
    "a/x",
    "a/y/z",
    "a0",
    "ab/c",
    "d/x",
    "d/y/z",
    "d-e/f",
    "A",
    "z",
    "ü",
]
"""Keys that a walk from folder to folder lists in another order than their bytes say."""


class ReadingTests:
    """See ``StoreConformance``, which gives the fixtures."""

    # read

    def test_read_refuses_more_than_the_limit(self, store: Store) -> None:
        """An object larger than the limit is an error, one of exactly the limit isn't."""
        store.write("x", b"12345")
        assert store.read("x", limit=5) == b"12345"
        with pytest.raises(StoreError):
            store.read("x", limit=4)

    def test_ranges(self, store: Store) -> None:
        """A range gives exactly the bytes asked for, at the start, in the middle, at the end, and all."""
        data = bytes(range(256)) * 40
        store.write("x", data)
        for start, length in [(0, 1), (0, len(data)), (100, 1000), (len(data) - 7, 7), (5, 0)]:
            got = store.read_range("x", start, length)
            assert isinstance(got, memoryview)
            assert bytes(got) == data[start : start + length]

    def test_pieces(self, store: Store) -> None:
        """A range in pieces is the range: in order, without a gap, in no piece more than 8 MiB."""
        data = bytes(range(256)) * 80_000
        store.write("x", data)
        for start, length in [(0, len(data)), (100, 1000), (len(data) - 7, 7), (5, 0), (3, 9 * 2**20)]:
            came = bytearray()

            def take(offset: int, piece: memoryview, start: int = start, came: bytearray = came) -> None:
                assert offset == start + len(came)
                assert 0 < len(piece) <= 8 * 2**20
                came += piece

            store.read_pieces("x", start, length, take)
            assert came == data[start : start + length]

    def test_a_take_that_raises(self, store: Store) -> None:
        """What the taker of pieces raises, a full disk say, comes out as it is."""
        store.write("x", b"12345")

        def take(offset: int, piece: memoryview) -> None:
            raise OSError(errno.ENOSPC, "full")

        with pytest.raises(OSError, match="full"):
            store.read_pieces("x", 0, 5, take)

    def test_short_ranges(self, store: Store) -> None:
        """A range that the object can't fill is an error, never fewer bytes."""
        store.write("x", b"12345")
        for start, length in [(0, 6), (3, 3), (5, 1), (6, 1), (100, 10), (6, 0), (-1, 2), (1, -1)]:
            with pytest.raises(StoreError):
                store.read_range("x", start, length)
            with pytest.raises(StoreError):
                store.read_pieces("x", start, length, lambda offset, piece: None)

    def test_absent_objects(self, store: Store) -> None:
        """Whatever reads an absent object raises ObjectNotFoundError with operation and key."""
        store.write("here/x", b"x")
        for key in ("absent", "here/absent", "here", "here/x/below"):
            for operation, call in (
                ("read", lambda key: store.read(key, limit=10)),
                ("read_range", lambda key: store.read_range(key, 0, 1)),
                ("read_range", lambda key: store.read_pieces(key, 0, 1, lambda offset, piece: None)),
                ("head", store.head),
                ("copy", lambda key: store.copy(key, "target")),
            ):
                with pytest.raises(ObjectNotFoundError) as caught:
                    call(key)
                assert (caught.value.operation, caught.value.key) == (operation, key)
            assert not store.exists(key)
        assert store.exists("here/x")
        assert not store.exists("target")

    def test_messages_name_operation_and_key(self, store: Store) -> None:
        """An error names the operation and the key on one line."""
        with pytest.raises(ObjectNotFoundError, match=r"\Ahead log/7: [^\n]*\Z"):
            store.head("log/7")

    # list

    def test_listing_is_ordered_by_key(self, store: Store) -> None:
        """Listings go by the bytes of the key, where a/b sorts behind a-b, and `after` cuts exactly there."""
        for key in random.Random(3).sample(UNORDERED, len(UNORDERED)):
            store.write(key, key.encode())
        expected = sorted(UNORDERED, key=str.encode)
        assert [(info.key, info.size) for info in store.list("")] == [(k, len(k.encode())) for k in expected]
        for after in [*expected, "a", "a/", "b", "d", "d/", "d/x0", "0", "~", "日", "n/10", "n/100"]:
            got = [info.key for info in store.list("", after=after)]
            assert got == [key for key in expected if key.encode() > after.encode()], after

    def test_listing_of_a_prefix(self, store: Store) -> None:
        """A prefix names a folder: its siblings with the same beginning stay out, absent ones are empty."""
        for key in ("log/1", "log/2", "log/3/x", "log-old/1", "logs/1", "data/log/1"):
            store.write(key, b"x")
        assert [info.key for info in store.list("log/")] == ["log/1", "log/2", "log/3/x"]
        assert [info.key for info in store.list("log/", after="log/1")] == ["log/2", "log/3/x"]
        assert [info.key for info in store.list("log/", after="log/3/x")] == []
        assert [info.key for info in store.list("log/3/")] == ["log/3/x"]
        for absent in ("lo/", "log/1/", "nothing/", "log/9/"):
            assert list(store.list(absent)) == []

    def test_folders(self, store: Store) -> None:
        """What folders lie directly in a place is told right, where it is told at all."""
        for key in ("log/1", "log-old/1", "data/7/x", "top"):
            store.write(key, b"x")
        for prefix, expected in (
            ("", ["data", "log", "log-old"]),
            ("data", ["7"]),
            ("absent", []),
            ("top", []),
        ):
            assert sorted(store.folders(prefix)) in ([], expected)

    def test_listing_of_many(self, store: Store) -> None:
        """A listing of more than one page of a server is complete, and goes on behind a numbered name."""
        keys = [f"log/{i:020d}.json" for i in range(1, 1101)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.write(key, b"{}"), keys))
        assert [info.key for info in store.list("log/")] == keys
        assert [info.key for info in store.list("log/", after=keys[1090])] == keys[1091:]

    def test_listing_agrees_with_head(self, store: Store) -> None:
        """A listing says of an object what head says, so its tag can be compared later."""
        store.write("a/b", b"12345")
        assert list(store.list("")) == [store.head("a/b")]
