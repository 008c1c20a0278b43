"""The vault that may have been meant, in a bucket: in a folder the commands' tests and those of a start tell."""

from __future__ import annotations

import time

import obstore.store
import pytest

from vaultlayer_hf.errors import StoreDeniedError
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.vault import near
from vaultlayer_hf.vault.keys import entry_key
from vaultlayer_hf.vault.near import is_slip, near_vault

VAULTS = ("runs/my-run", "runs/other", "alone/in/here", "team/a-1", "team/a-2")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A bucket with these vaults, and with a folder that is none."""
    store = ObjectStore(obstore.store.MemoryStore(), uri="s3://bucket")
    for vault in VAULTS:
        store.write(f"{vault}/{entry_key(1)}", b"{}")
    store.write("runs/my-rum/notes.txt", b"x")
    monkeypatch.setattr(near, "open_store", lambda address, create: store)
    return store


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("runs/my-rnu", "runs/my-run"),
        ("runs/my-rum", "runs/my-run"),
        ("runs/my-run/data/3/checkpoint-500", "runs/my-run"),
        ("runs/my-run/log", "runs/my-run"),
        ("alone/in", "alone/in/here"),
        ("alone/in/heer", "alone/in/here"),
        ("runs", None),
        ("team", None),
        ("quite/another", None),
        ("", None),
    ],
)
def test_what_was_meant(named: str, meant: str | None, bucket: ObjectStore) -> None:
    """A vault around the place, the only one in it, or the one beside it whose name is much like; never another."""
    found = near_vault(parse_vault(f"s3://bucket/{named}@7"))
    assert found == (None if meant is None else f"s3://bucket/{meant}")


@pytest.mark.parametrize(
    ("name", "other", "slip"),
    [
        ("my-vualt", "my-vault", True),
        ("my-valt", "my-vault", True),
        ("my-vaultt", "my-vault", True),
        ("my-vaolt", "my-vault", True),
        ("lama-7b", "llama-7b", True),
        ("run-a", "run-b", False),
        ("fold-0", "fold-1", False),
        ("llama-7b", "llama-8b", False),
        ("my-run-2", "my-run", False),
        ("sft", "dpo", False),
        ("train-high", "train-low", False),
        ("my-vault", "my-vault", False),
    ],
)
def test_a_slip_is_told_from_another_name(name: str, other: str, slip: bool) -> None:
    """One letter of a longer word is a slip; another number, a short word or more letters are another name."""
    assert is_slip(name, other) is is_slip(other, name) is slip


def test_a_vault_is_not_near_to_itself(bucket: ObjectStore) -> None:
    """A vault that a start has just claimed is no answer to what else may have been meant."""
    bucket.write(f"runs/my-rnu/{entry_key(1)}", b"{}")
    assert near_vault(parse_vault("s3://bucket/runs/my-rnu")) == "s3://bucket/runs/my-run"


def test_who_may_not_look_beside_a_vault_is_told_of_none(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is for one prefix alone finds nothing beside it, and that is no error."""

    def denied(prefix: str) -> list[str]:
        raise StoreDeniedError("list", prefix, "access denied")

    monkeypatch.setattr(bucket, "folders", denied)
    assert near_vault(parse_vault("s3://bucket/runs/my-rnu")) is None


def test_a_bucket_that_takes_long_keeps_nobody_waiting(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that there is no vault comes, also where what lies beside it isn't known in time."""
    monkeypatch.setattr(near, "_PATIENCE", 0.1)
    monkeypatch.setattr(bucket, "folders", lambda prefix: time.sleep(3) or [])
    begin = time.monotonic()
    assert near_vault(parse_vault("s3://bucket/runs/my-rnu")) is None
    assert time.monotonic() - begin < 2
