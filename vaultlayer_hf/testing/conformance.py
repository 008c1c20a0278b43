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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from vaultlayer_hf.errors import AlreadyExistsError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.testing._reading import ReadingTests
from vaultlayer_hf.testing._writing import WritingTests

AWKWARD = ["with space", "plus+plus", "per%41cent%", "ünï-çødé", "a=b&c", "#hash?", "tilde~", "(x)'y", "日本"]
"""Parts of keys that a client may encode wrongly."""

ESCAPES = ["", "/", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "a/..", "./a", "a/./b", "a\\b", "a\0b"]
"""Keys that no store may take."""


class StoreConformance(ReadingTests, WritingTests):
    """Subclass, override ``store``, and ``opener`` where other processes can open the same store."""

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

    # races

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
