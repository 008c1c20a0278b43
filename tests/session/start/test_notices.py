"""What a start says of the checkpoint that it has chosen, or of the vault that holds none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.vault.vaults import start, train
from vaultlayer_hf import Settings
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.notices import empty_text


@pytest.mark.parametrize("start", ["from elsewhere", "from a folder below"])
def test_an_empty_vault_names_the_one_that_may_be_meant(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vault's name leads elsewhere from another folder: that of the script, or the one above, has the run's own."""
    home, here = tmp_path / "project", tmp_path / ("home" if start == "from elsewhere" else "project/below")
    (home / "my-vault" / "log").mkdir(parents=True)
    here.mkdir()
    script = home / "train.py" if start == "from elsewhere" else here / "train.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)

    def said(vault: str | Path) -> str:
        monkeypatch.chdir(here)
        text = empty_text(Session(Settings(vault=vault), tmp_path / "out"))
        assert "is empty: the run starts fresh" in text
        return text

    assert f"; there is a vault at {home}/my-vault, if that one is meant" in said("my-vault")
    for other in ("another", tmp_path / "far" / "my-vault", "s3://bucket/my-vault"):
        assert "there is a vault" not in said(other)


def test_an_empty_vault_names_the_one_beside_it_whose_name_was_mistyped(tmp_path: Path) -> None:
    """A typo begins no run anew without a word of the vault that is there; names of other runs are no typos."""
    for vault in ("my-vault", "my-vualt", "fold-0", "run-a"):
        (tmp_path / vault / "log").mkdir(parents=True)
    (tmp_path / "my-vualt" / "log").rmdir()  # the claim has made it by then, or not

    def said(name: str) -> str:
        (tmp_path / name / "log").mkdir(parents=True, exist_ok=True)
        return empty_text(Session(Settings(vault=tmp_path / name), tmp_path / "out"))

    assert f"; there is a vault {tmp_path}/my-vault, if the name is mistyped: stop this run" in said(
        "my-vualt"
    )
    for other in ("fold-1", "run-b", "my-vault-2", "another"):
        assert "there is a vault" not in said(other)


def test_a_vault_within_a_vault_is_said(tmp_path: Path) -> None:
    """Whoever deletes the outer vault deletes the inner one, too: a start there says so, one beside it doesn't."""
    outer = tmp_path / "my-vault"
    for part in ("log", "data"):
        (outer / part).mkdir(parents=True)

    def said(vault: Path) -> str:
        (vault / "log").mkdir(parents=True, exist_ok=True)  # the claim has made it by then
        return empty_text(Session(Settings(vault=vault), tmp_path / "out"))

    assert f"; it lies within another vault, {outer}, so whoever moves" in said(outer / "inner")
    for beside in (tmp_path / "my-vault-2", tmp_path / "deep" / "inner"):
        assert "within another vault" not in said(beside)


def test_a_folder_that_lacks_files_is_passed_over_for_what_is_known_of_it(tmp_path: Path) -> None:
    """It may be of a save that a kill has cut short, or of another run that wrote into this folder: it says both."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2)
    (output / "checkpoint-5").mkdir()
    (output / "checkpoint-5" / "config.json").write_text("{}")
    path, heard = start(vault, output)
    assert path == output / "checkpoint-2"
    said = heard.reasons("notice")
    assert "checkpoint-5 on this disk isn't gone on from: it lacks " in said
    assert said.endswith("as where a kill cut its save short, or where another run wrote it")
