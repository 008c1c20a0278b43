"""A misspelt variable of the environment isn't passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vault.vaults import start
from vaultlayer_hf import SettingsError


def test_a_start_names_what_would_have_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start ends, before it makes anything, at a variable that nothing reads, with the one that was meant."""
    monkeypatch.setenv("VAULTLAYER_KEEPLAST", "3")
    with pytest.raises(
        SettingsError, match=r"no variable VAULTLAYER_KEEPLAST: did you mean VAULTLAYER_KEEP_LAST\?"
    ):
        start(str(tmp_path / "vault"), tmp_path / "output")
    assert not list(tmp_path.iterdir())
