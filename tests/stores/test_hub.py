"""A vault in a repository of the Hugging Face Hub: huggingface_hub's own client against a double of the Hub."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.stores.hub import HubServer
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing import StoreConformance

# huggingface_hub 2's own upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.mark.slow
class TestHub(StoreConformance):
    """The contract, over what a repository of the Hub can do."""

    rounds = 3

    @pytest.fixture
    def store(self, hub_uri: str) -> Store:
        return open_store(hub_uri)

    @pytest.fixture
    def opener(self, hub_uri: str) -> Callable[[], Store]:
        return partial(open_store, hub_uri)


def test_what_somebody_else_commits_meanwhile(the_hub: HubServer, hub_uri: str) -> None:
    """A create goes on behind commits of others, and loses against one that creates its key; nothing is replaced."""
    store = open_store(hub_uri)
    others = iter([("README.md", b"a card"), ("some/where/log/2", b"theirs")])

    def commit() -> None:
        the_hub.before_commit = lambda: None
        the_hub.commit([next(others)], "of somebody else")

    the_hub.before_commit = commit
    store.create("log/1", b"ours")
    assert store.read("log/1", limit=10) == b"ours"
    the_hub.before_commit = commit
    with pytest.raises(AlreadyExistsError):
        store.create("log/2", b"ours")
    assert store.read("log/2", limit=10) == b"theirs"


def test_a_lost_answer(the_hub: HubServer, hub_uri: str) -> None:
    """A commit whose answer is lost is trouble that passes; tried again, the create finds its own object there."""
    store = open_store(hub_uri)
    the_hub.lose = 1
    with pytest.raises(StoreUnavailableError):
        store.create("log/1", b"ours")
    with pytest.raises(AlreadyExistsError):
        store.create("log/1", b"ours")
    assert store.read("log/1", limit=10) == b"ours"


def test_refusals_in_the_hubs_words(
    the_hub: HubServer, hub_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No token, a wrong one, one that may only read, no such repository, the limit of commits, and a full account."""

    def said(kind: type[StoreError], uri: str = hub_uri) -> str:
        with pytest.raises(StoreError) as caught:
            open_store(uri).write("x", b"x")
        assert type(caught.value) is kind
        assert the_hub.token not in str(caught.value)
        assert the_hub.reader not in str(caught.value)
        return str(caught.value)

    the_hub.commits_left = 0
    assert "rate limit" in said(StoreUnavailableError)
    assert "128 commits an hour" in said(StoreUnavailableError)
    the_hub.full = True
    assert "storage" in said(StoreFullError)
    the_hub.full = False
    assert "no repository me/other" in said(StoreDeniedError, "hf://me/other/run")
    monkeypatch.setenv("HF_TOKEN", the_hub.reader)
    assert "allowed to write to me/vault" in said(StoreDeniedError)
    assert not open_store(hub_uri).exists("x")  # it may look, though
    monkeypatch.setenv("HF_TOKEN", "hf_aTokenThatNobodyKnows012345")
    assert "doesn't take this access token" in said(StoreDeniedError)
    monkeypatch.delenv("HF_TOKEN")
    assert "no access token was found" in said(StoreDeniedError)
    assert "hf auth login" in said(StoreDeniedError)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError, match="can't be reached"):
        open_store(hub_uri).read("x", limit=10)


def test_a_public_repository_is_read_without_a_token(
    the_hub: HubServer, hub_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who only reads needs no account."""
    open_store(hub_uri).write("x", b"here")
    the_hub.private = False
    monkeypatch.delenv("HF_TOKEN")
    store = open_store(hub_uri)
    assert store.read("x", limit=10) == b"here"
    assert [info.key for info in store.list("")] == ["x"]
    assert not store.credentials


def test_a_token_that_is_renewed(
    the_hub: HubServer, hub_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who logs in again while a training runs needn't start it again."""
    file = tmp_path / "token"
    file.write_text("hf_aTokenThatHasBeenRevoked012345")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(file))
    store = open_store(hub_uri)
    assert store.credentials == "hf auth login"
    with pytest.raises(StoreDeniedError, match="hf auth login"):
        store.write("x", b"x")
    file.write_text(the_hub.token)
    store.write("x", b"x")
    assert store.read("x", limit=1) == b"x"


def test_a_file_that_gitignore_leaves_out(the_hub: HubServer, hub_uri: str, tmp_path: Path) -> None:
    """What the Hub leaves out of a commit is an error at once, not a checkpoint with a hole."""
    the_hub.repository.ignored = r"\.pt$"
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(StoreError, match="gitignore"):
        open_store(hub_uri).upload("optimizer.pt", tmp_path / "a", size=3)


def test_large_files_by_lfs(
    the_hub: HubServer, hub_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are sent in parts, copied without being sent again, and read from the server that the Hub leads to."""
    store = open_store(hub_uri)
    data = bytes(range(256)) * 80_000
    (tmp_path / "a").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        store.upload("a", tmp_path / "a", size=len(data))
    sent = len(the_hub.requests)
    store.copy("a", "b")
    assert not [place for _, place in the_hub.requests[sent:] if place.startswith("/upload")]
    assert bytes(store.read_range("b", 256_000, 512)) == data[:512]
    assert len(the_hub.repository.objects) == 1
    assert not caplog.records


def test_what_it_needs_is_loaded_for_it_alone(tmp_path: Path) -> None:
    """A vault elsewhere doesn't wait for huggingface_hub's modules."""
    for name in [name for name in sys.modules if name.startswith("vaultlayer_hf.stores.hub")]:
        del sys.modules[name]
    open_store(tmp_path / "vault")
    assert "vaultlayer_hf.stores.hub.store" not in sys.modules


def test_retries_for_a_vault_are_not_said_by_the_client_too(
    hub_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the client says of its retries is left out for the vault's own repository, and for no other."""
    open_store(hub_uri)
    repository = "/".join(hub_uri.removeprefix("hf://").split("/")[:2])
    logger = logging.getLogger("huggingface_hub.utils._http")
    for name in (repository, "other/repository"):
        logger.warning(f"'no answer' thrown while requesting GET https://hub/api/models/{name}/tree/main")
        logger.warning("Retrying in 1s [Retry 1/5].")
    said = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert [("other/repository" in text, text.startswith("Retrying")) for text in said] == [
        (True, False),
        (False, True),
    ]
