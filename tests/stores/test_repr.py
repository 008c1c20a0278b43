"""A store says which vault it is, and holds back what is secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.retry import RetryingStore


def test_a_store_says_which_vault_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repr of a store is its class and its vault's URI, through any wrapper, without keys."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ACCESSKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRETKEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    folder = open_store(tmp_path / "vault")
    assert repr(folder) == f"FolderStore('file://{tmp_path}/vault')"
    assert repr(RetryingStore(folder)) == f"RetryingStore({folder!r})"
    assert repr(open_store("s3://bucket/run")) == "ObjectStore('s3://bucket/run')"
