"""Other servers that speak S3: one keeps the contract; what another lacks is found out, and true of two writers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.stores.others import INSTALL, OtherServer, moto, s3rver
from vaultlayer_hf.errors import AlreadyExistsError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.testing import StoreConformance

pytestmark = pytest.mark.slow


def started(
    command: Callable[..., list[str] | None], folder_of: pytest.TempPathFactory
) -> Iterator[OtherServer]:
    """A running server; skips where it isn't installed."""
    if command(0, folder_of.getbasetemp()) is None:
        pytest.skip(f"no {command.__name__} here: {INSTALL[command]}")
    server = OtherServer(command)
    yield server
    server.close()


@pytest.fixture(scope="module")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    """A running server of moto."""
    yield from started(moto, tmp_path_factory)


@pytest.fixture(scope="module")
def s3rver_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    """A running s3rver."""
    yield from started(s3rver, tmp_path_factory)


def at(server: OtherServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vault URI on the server that nobody has used; variables lead to it."""
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket}/test-{uuid.uuid4().hex[:12]}"


class TestMoto(StoreConformance):
    """moto's server: create-if-absent, as on AWS."""

    @pytest.fixture
    def uri(self, moto_server: OtherServer, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> str:
        return at(moto_server, monkeypatch)

    @pytest.fixture
    def store(self, uri: str) -> Store:
        return open_store(uri)

    @pytest.fixture
    def opener(self, uri: str) -> Callable[[], Store]:
        return partial(open_store, uri)


def test_a_server_without_create_if_absent(
    s3rver_server: OtherServer, no_aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s3rver takes If-None-Match and doesn't heed it: the probe finds out, and of eight writers at once several win."""
    store = open_store(at(s3rver_server, monkeypatch))
    assert store.supports_create
    assert probe_create(store) is False

    def create(me: int) -> bool:
        try:
            store.create("race", str(me).encode())
        except AlreadyExistsError:
            return False
        return True

    for promised in (True, False):  # by the header, and by the look before it that is left
        store.supports_create = promised
        most = 0
        for _ in range(10):
            store.delete(["race"])
            with ThreadPoolExecutor(8) as pool:
                most = max(most, sum(pool.map(create, range(8))))
        assert most > 1
    assert not create(9)  # a single writer is kept from replacing what it has made
