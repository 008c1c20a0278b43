"""What `vl init` proposes for scripts of many kinds."""

from __future__ import annotations

import pytest

from tests.run.insert.kit import EDITED, GOLDEN, LEFT_ALONE, SCRIPTS, proposal, proposal_text, proposed
from vaultlayer_hf.errors import VaultUriError


@pytest.mark.parametrize("name", [*EDITED, *LEFT_ALONE])
def test_diff_and_explanations_are_these(name) -> None:
    """Each script gets exactly the edits, the explanations and the remarks that somebody has read and approved."""
    assert proposal_text(name) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", EDITED)
def test_an_edited_script_is_left_alone(name, tmp_path) -> None:
    """What was integrated once is recognised as such: a second `vl init` has nothing to do."""
    found = proposal(name)
    again = proposed(tmp_path, found.after)
    assert (again.kind, again.hunks, again.after) == ("integrated", (), found.after)


@pytest.mark.parametrize("name", EDITED)
def test_every_changed_line_is_explained_and_no_other_is_changed(name) -> None:
    """Without the added and with the removed lines of its hunks the edited script is the old one; none lacks a why."""
    found = proposal(name)
    assert all(hunk.why for hunk in found.hunks)
    removed = [line[1:] for hunk in found.hunks for line in hunk.diff if line[0] == "-"]
    added = [line[1:] for hunk in found.hunks for line in hunk.diff if line[0] == "+"]
    before, after = found.before.decode().splitlines(), found.after.decode().splitlines()
    for line in added:
        after.remove(line)
    for line in removed:
        before.remove(line)
    assert sorted(after) == sorted(before)


def test_vault_is_the_given_one_the_variable_or_a_folder(tmp_path, monkeypatch) -> None:
    """`--vault` is written as it is; else VAULTLAYER_VAULT is read at each start; else it is a folder by the name."""
    text = (SCRIPTS / "trainer.py").read_text()
    monkeypatch.setenv("VAULTLAYER_VAULT", "s3://somewhere/else")
    assert b'resume="s3://b/r",' in proposed(tmp_path, text, "s3://b/r").after
    assert b"resume=True," in proposed(tmp_path, text, None).after
    monkeypatch.delenv("VAULTLAYER_VAULT")
    assert b'resume="vaults/train",' in proposed(tmp_path, text, None).after
    with pytest.raises(VaultUriError, match="ftp"):
        proposed(tmp_path, text, "ftp://nowhere")
