"""A store of another author, as the guide shows it: its entry point makes it known, and it keeps the contract."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme.blocks import of_kind
from vaultlayer_hf.errors import MissingExtraError, VaultUriError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.others import GROUP
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.testing import StoreConformance


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The guide's store, as an installed package."""
    example, _ = of_kind("python:store")
    (toml,) = of_kind("toml:entry-point")
    points = tomllib.loads(toml.text)["project"]["entry-points"][GROUP]
    site = tmp_path / "site"
    (site / "my_stores-1.0.dist-info").mkdir(parents=True)
    (site / "my_stores.py").write_text(example.text)
    (site / "my_stores-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-stores\nVersion: 1.0\n"
    )
    lines = [
        f"[{GROUP}]",
        *(f"{name} = {value}" for name, value in points.items()),
        "broken = absent_module:Store",
    ]
    (site / "my_stores-1.0.dist-info/entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("my_stores", None)


@pytest.mark.slow
class TestSqlite(StoreConformance):
    """The guide's example, opened by its address."""

    rounds = 3

    @pytest.fixture
    def store(self, installed: None, tmp_path: Path) -> Store:
        return open_store(f"sqlite://{tmp_path}/vaults.db")


def test_the_guides_conformance_example(installed: None) -> None:
    """The guide's test class is one that pytest would run on that store."""
    namespace: dict[str, object] = {"SqliteStore": importlib.import_module("my_stores").SqliteStore}
    exec(of_kind("python:store")[1].text, namespace)
    made = namespace["TestSqlite"]
    assert isinstance(made, type)
    assert issubclass(made, StoreConformance)


def test_addresses(installed: None) -> None:
    """A step is split off, and what could be a secret is refused; a scheme that nobody has is none."""
    address = parse_vault("sqlite:///data/vaults.db@40")
    assert (address.uri, address.scheme, address.step) == ("sqlite:///data/vaults.db", "sqlite", 40)
    assert parse_vault(address.uri).uri == address.uri
    for text in ("sqlite://me:secret@host/x", "sqlite:///x?key=secret", "sqlite:///x@lates"):
        with pytest.raises(VaultUriError) as caught:
            parse_vault(text)
        assert "secret" not in str(caught.value)
    with pytest.raises(VaultUriError, match="nosql"):
        parse_vault("nosql://x")


def test_a_package_that_is_broken(installed: None) -> None:
    """A package that can't be imported is named as the reason."""
    with pytest.raises(MissingExtraError, match="absent_module"):
        open_store("broken://x")


def test_a_run_keeps_its_checkpoints_there(installed: None, tmp_path: Path) -> None:
    """A vault on it takes commits, and the next start goes on from them."""
    from tests.vault.vaults import start, train

    vault = f"sqlite://{tmp_path}/vaults.db"
    train(vault, tmp_path / "one", 1, 2)
    resumed, _ = start(vault, tmp_path / "two")
    assert resumed is not None
    assert resumed.name == "checkpoint-2"
