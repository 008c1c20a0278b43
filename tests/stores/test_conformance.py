"""Every store passes the one suite of the contract, bare and inside its wrappers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.testing import FaultStore, StoreConformance
from vaultlayer_hf.vault.upload.mover import store as moving
from vaultlayer_hf.vault.upload.mover.store import MovingStore


class TestFolder(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "a vault")

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Store]:
        return partial(open_store, tmp_path / "a vault")


class TestFuse(StoreConformance):
    """A real FUSE mount without hard links and without an exclusive rename."""

    @pytest.fixture
    def store(self, fuse_folder: Path) -> Store:
        return open_store(fuse_folder / "vault")

    @pytest.fixture
    def opener(self, fuse_folder: Path) -> Callable[[], Store]:
        return partial(open_store, fuse_folder / "vault")


class TestS3(StoreConformance):
    rounds = 3  # SeaweedFS lets the losers of a race wait for seconds

    @pytest.fixture
    def store(self, s3_uri: str) -> Store:
        return open_store(s3_uri)

    @pytest.fixture
    def opener(self, s3_uri: str) -> Callable[[], Store]:
        return partial(open_store, s3_uri)


@pytest.mark.slow
class TestS3OddPrefix(StoreConformance):
    """A vault whose prefix needs encoding itself, with few parts at a time."""

    rounds = 3  # SeaweedFS lets the losers of a race wait for seconds

    @pytest.fixture
    def store(self, s3_uri: str) -> Store:
        return open_store(s3_uri + "/a b/ü+%41", upload_concurrency=2)

    @pytest.fixture
    def opener(self, s3_uri: str) -> Callable[[], Store]:
        return partial(open_store, s3_uri + "/a b/ü+%41")


@pytest.mark.slow
class TestAzure(StoreConformance):
    """Azure Blob Storage, as Azurite plays it."""

    @pytest.fixture
    def store(self, az_uri: str) -> Store:
        return open_store(az_uri)

    @pytest.fixture
    def opener(self, az_uri: str) -> Callable[[], Store]:
        return partial(open_store, az_uri)


@pytest.mark.slow
class TestGoogle(StoreConformance):
    """Google Cloud Storage, as a double in front of SeaweedFS plays it."""

    rounds = 3

    @pytest.fixture
    def store(self, gs_uri: str) -> Store:
        return open_store(gs_uri)

    @pytest.fixture
    def opener(self, gs_uri: str) -> Callable[[], Store]:
        return partial(open_store, gs_uri)


@pytest.mark.slow
class TestHuggingFace(StoreConformance):
    """Hugging Face Buckets, as a double of their S3 gateway in front of SeaweedFS plays them."""

    rounds = 3

    @pytest.fixture
    def store(self, hf_uri: str) -> Store:
        return open_store(hf_uri)

    @pytest.fixture
    def opener(self, hf_uri: str) -> Callable[[], Store]:
        return partial(open_store, hf_uri)


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return ObjectStore(MemoryStore(), uri="memory://", prefix="some/where")


class TestRetrying(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return RetryingStore(open_store(tmp_path / "vault"), RetryPolicy(retry_all=True, deadline=0.0))

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Store]:
        return partial(open_store, tmp_path / "vault")


class TestFaultless(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FaultStore(RetryingStore(open_store(tmp_path / "vault")))

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Store]:
        return partial(open_store, tmp_path / "vault")


class Moving(StoreConformance):
    """Every file, however small, is moved by a process of its own."""

    @pytest.fixture
    def store(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
        monkeypatch.setattr(moving, "LARGE", 0)
        said: list[str] = []
        store = MovingStore(open_store(uri), exact=True, say=said.append)
        yield store
        store.close()
        assert not said

    @pytest.fixture
    def opener(self, uri: str) -> Callable[[], Store]:
        return partial(open_store, uri)


class TestMovingToFolder(Moving):
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return str(tmp_path / "vault")


@pytest.mark.slow
class TestMovingToS3(Moving):
    rounds = 3  # SeaweedFS lets the losers of a race wait for seconds

    @pytest.fixture
    def uri(self, s3_uri: str) -> str:
        return s3_uri
