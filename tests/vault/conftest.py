"""Fixtures of the protocol's tests that read a vault which somebody has damaged or forged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.vault.vaults import train


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with two checkpoints, 100 and 200, whose run has not ended. Not to be changed."""
    folder = tmp_path_factory.mktemp("template")
    train(str(folder / "vault"), folder / "output", 100, 200)
    return folder / "vault"


@pytest.fixture
def bad_vault(template: Path, tmp_path: Path) -> Path:
    """A copy of that vault, to be damaged."""
    shutil.copytree(template, tmp_path / "vault")
    return tmp_path / "vault"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An empty disk."""
    return tmp_path / "output"
