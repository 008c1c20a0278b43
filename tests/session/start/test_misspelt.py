"""A misspelt variable of the environment isn't passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vault.vaults import start


def test_a_start_names_what_has_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start says once which variable nothing reads, and which one may have been meant."""
    monkeypatch.setenv("VAULTLAYER_KEEPLAST", "3")
    _, heard = start(str(tmp_path / "vault"), tmp_path / "output")
    told = "the variable VAULTLAYER_KEEPLAST has no effect: did you mean VAULTLAYER_KEEP_LAST?"
    assert heard.reasons("notice").splitlines() == [told]
