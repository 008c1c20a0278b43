"""The contract of ``vaultlayer_hf.stores.base`` as tests. Every store passes them; subclass and give a store.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)           # empty, a new one for each test

        @pytest.fixture
        def opener(self, store):
            return functools.partial(MyStore, store.root)   # picklable: other processes open it, too

The name doesn't begin with ``Test``, so pytest collects only the subclasses.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from vaultlayer_hf.errors import AlreadyExistsError, ObjectNotFoundError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import probe_create

AWKWARD = ["with space", "plus+plus", "per%41cent%", "ünï-çødé", "a=b&c", "#hash?", "tilde~", "(x)'y", "日本"]
"""Parts of keys that a client may encode wrongly."""

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

ESCAPES = ["", "/", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "a/..", "./a", "a/./b", "a\\b", "a\0b"]
"""Keys that no store may take."""


class StoreConformance:
    """Subclass, override ``store``, and ``opener`` where other processes can open the same store."""

    big = 40 * 1024 * 1024 + 12345
    """Bytes of the large file; more than several parts."""

    rounds = 10
    """Races of each kind."""

    @pytest.fixture
    def store(self) -> Store:
        """A new, empty store for each test."""
        raise NotImplementedError("override the fixture `store`")

    @pytest.fixture
    def opener(self) -> Callable[[], Store] | None:
        """A picklable function that opens the same store in another process, or None."""
        return None

    @pytest.fixture
    def source(self, tmp_path: Path) -> Callable[[bytes], Path]:
        """Makes a local file with the given bytes."""

        def make(data: bytes) -> Path:
            path = tmp_path / f"source-{hashlib.sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            return path

        return make

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

    def test_racing_creates_of_threads(self, store: Store) -> None:
        """Of eight threads that create one key at once exactly one wins, and its content stands."""
        with ThreadPoolExecutor(8) as pool:
            for turn in range(self.rounds):
                barrier = threading.Barrier(8)
                outcomes = list(pool.map(lambda me: _race_once(store, barrier, turn, me), range(8)))  # noqa: B023
                winners = [me for me, won in enumerate(outcomes) if won]
                assert len(winners) == 1, f"round {turn}: {winners}"
                assert store.read(f"race/{turn}", limit=100) == _body(winners[0])

    def test_racing_creates_of_processes(self, store: Store, opener: Callable[[], Store] | None) -> None:
        """Of four processes that create one key at once exactly one wins, and its content stands."""
        if opener is None:
            pytest.skip("this store can't be opened by another process")
        rounds, count = self.rounds, 4
        context = multiprocessing.get_context("spawn")
        barrier, answers = context.Barrier(count), context.Queue()
        processes = [
            context.Process(target=_race, args=(opener, barrier, answers, rounds, me)) for me in range(count)
        ]
        for process in processes:
            process.start()
        try:
            results = dict(answers.get(timeout=120) for _ in processes)
        finally:
            for process in processes:
                process.join(10)
                process.kill()
                process.join()
            answers.close()
            answers.join_thread()
        for turn in range(rounds):
            winners = [me for me in range(count) if results[me][turn]]
            assert len(winners) == 1, f"round {turn}: {winners}"
            assert store.read(f"race/{turn}", limit=100) == _body(winners[0])

    def test_probe_agrees(self, store: Store) -> None:
        """The probe finds what supports_create promises, and leaves nothing behind."""
        assert probe_create(store) is store.supports_create
        assert list(store.list("")) == []

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

    def test_short_ranges(self, store: Store) -> None:
        """A range that the object can't fill is an error, never fewer bytes."""
        store.write("x", b"12345")
        for start, length in [(0, 6), (3, 3), (5, 1), (6, 1), (100, 10), (6, 0), (-1, 2), (1, -1)]:
            with pytest.raises(StoreError):
                store.read_range("x", start, length)

    def test_absent_objects(self, store: Store) -> None:
        """Whatever reads an absent object raises ObjectNotFoundError with operation and key."""
        store.write("here/x", b"x")
        for key in ("absent", "here/absent", "here", "here/x/below"):
            for operation, call in (
                ("read", lambda key: store.read(key, limit=10)),
                ("read_range", lambda key: store.read_range(key, 0, 1)),
                ("head", store.head),
                ("copy", lambda key: store.copy(key, "target")),
            ):
                with pytest.raises(ObjectNotFoundError) as caught:
                    call(key)
                assert (caught.value.operation, caught.value.key) == (operation, key)
            assert not store.exists(key)
        assert store.exists("here/x")
        assert not store.exists("target")

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
        data = random.Random(1).randbytes(self.big)
        seen: list[int] = []
        store.upload("big", source(data), size=self.big, pace=seen.append)
        assert sum(seen) == self.big
        assert len(seen) > 3
        digest, step = hashlib.sha256(), 7_000_001
        for start in range(0, self.big, step):
            digest.update(store.read_range("big", start, min(step, self.big - start)))
        assert digest.digest() == hashlib.sha256(data).digest()

    def test_upload_takes_the_first_bytes_only(self, store: Store, source: Callable[[bytes], Path]) -> None:
        """A file that has grown since it was measured is stored with its measured size."""
        store.upload("x", source(b"0123456789"), size=4)
        assert store.read("x", limit=100) == b"0123"

    @pytest.mark.parametrize("have", [3, 20 * 1024 * 1024])
    def test_upload_of_a_short_file(self, store: Store, source: Callable[[bytes], Path], have: int) -> None:
        """A file shorter than announced is an error, and nothing becomes visible."""
        with pytest.raises(StoreError):
            store.upload("x", source(bytes(have)), size=have + 9_000_000)
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

    # keys

    @pytest.mark.parametrize("part", AWKWARD)
    def test_awkward_names(self, store: Store, source: Callable[[bytes], Path], part: str) -> None:
        """Spaces, percent signs, plus signs and letters of all scripts survive in each operation."""
        key, other = f"dir {part}/{part}.bin", f"copy/{part}"
        data = part.encode() * 10
        store.create(key, data)
        with pytest.raises(AlreadyExistsError):
            store.create(key, b"again")
        store.copy(key, other)
        store.upload(f"up/{part}", source(data), size=len(data))
        assert store.read(key, limit=1000) == bytes(store.read_range(other, 0, len(data))) == data
        assert [info.key for info in store.list("")] == sorted([key, other, f"up/{part}"], key=str.encode)
        assert [info.key for info in store.list(f"dir {part}/")] == [key]
        store.delete([key, other, f"up/{part}"])
        assert list(store.list("")) == []

    @pytest.mark.parametrize("key", ESCAPES)
    def test_escapes_are_refused(self, store: Store, source: Callable[[bytes], Path], key: str) -> None:
        """No key that could leave the vault is taken by any operation."""
        store.write("x", b"x")
        path = source(b"data")
        for call in (
            lambda: store.read(key, limit=10),
            lambda: store.read_range(key, 0, 1),
            lambda: store.head(key),
            lambda: store.create(key, b"x"),
            lambda: store.write(key, b"x"),
            lambda: store.upload(key, path, size=4),
            lambda: store.copy(key, "y"),
            lambda: store.copy("x", key),
            lambda: store.delete([key]),
        ):
            with pytest.raises(StoreError):
                call()
        assert [info.key for info in store.list("")] == ["x"]

    # threads, and readers beside writers

    def test_use_from_threads(self, store: Store, source: Callable[[bytes], Path]) -> None:
        """Eight threads write, upload, copy, read, list and delete in one store without harm."""
        blobs = {i: source(random.Random(i).randbytes(9_000_000 + i)) for i in range(2)}

        def work(me: int) -> None:
            data = blobs[me % 2]
            size = data.stat().st_size
            for turn in range(3):
                key = f"t/{me}/{turn}"
                store.upload(f"{key}/a", data, size=size)
                store.copy(f"{key}/a", f"{key}/b")
                store.write(f"{key}/c", key.encode())
                assert bytes(store.read_range(f"{key}/b", 0, size)) == data.read_bytes()
                names = [info.key for info in store.list(f"t/{me}/{turn}/")]
                assert names == [f"{key}/a", f"{key}/b", f"{key}/c"]
                store.delete([f"{key}/a", f"{key}/b"])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert len(list(store.list("t/"))) == 24

    def test_readers_see_whole_objects(self, store: Store, source: Callable[[bytes], Path]) -> None:
        """While an object is replaced again and again, a reader sees one version, never a mixture."""
        size = 300_000
        paths = [source(bytes([value]) * size) for value in range(4)]
        store.upload("x", paths[0], size=size)
        done = threading.Event()

        def replace() -> None:
            try:
                for turn in range(30):
                    store.upload("x", paths[turn % 4], size=size)
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(replace)
            while not done.is_set():
                assert len(set(store.read("x", limit=size))) == 1
            writing.result()

    def test_messages_name_operation_and_key(self, store: Store) -> None:
        """An error names the operation and the key on one line."""
        with pytest.raises(ObjectNotFoundError, match=r"\Ahead log/7: [^\n]*\Z"):
            store.head("log/7")


def _body(me: int) -> bytes:
    return f"writer {me}".encode()


def _race_once(store: Store, barrier: Any, turn: int, me: int) -> bool:
    barrier.wait(60)
    try:
        store.create(f"race/{turn}", _body(me))
    except AlreadyExistsError:
        return False
    return True


def _race(opener: Callable[[], Store], barrier: Any, answers: Any, rounds: int, me: int) -> None:
    """In a process of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    store = opener()
    answers.put((me, [_race_once(store, barrier, turn, me) for turn in range(rounds)]))
