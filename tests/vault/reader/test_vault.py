"""A vault from outside a run: what its object says of itself."""

from __future__ import annotations

from pathlib import Path

from tests.vault.tools import claim, commit_step, memory_store
from tests.vault.vaults import train
from vaultlayer_hf import open_vault
from vaultlayer_hf.vault.reader.vault import Vault


def test_a_vault_says_where_it_is_and_what_is_newest(tmp_path: Path) -> None:
    """Printed, a vault shows its URI and the newest commit that it knows of, in the log's own numbers."""
    train(str(tmp_path / "vault"), tmp_path / "output", 10, 20)
    with open_vault(tmp_path / "vault") as vault:
        assert repr(vault) == f"<Vault {vault.uri}, newest: step 20 (log entry 3)>"
        assert vault.uri.startswith("file://")


def test_a_vault_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    """A vault that was claimed and holds nothing yet is printed as that; an opened one stays as it was."""
    store = memory_store()
    writer = claim(store)
    vault = Vault(store)
    commit_step(store, writer, tmp_path, 10)
    assert repr(vault) == "<Vault memory://vault, newest: no checkpoint yet>"
