"""What `vl init` proposes for scripts of many kinds."""

from __future__ import annotations

import logging

import pytest

from tests.run.insert.kit import EDITED, GOLDEN, LEFT_ALONE, SCRIPTS, proposal, proposal_text, proposed
from vaultlayer_hf.errors import VaultUriError
from vaultlayer_hf.run.insert import loop_edits, trainers
from vaultlayer_hf.run.insert.propose import Unrecognised, propose


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


@pytest.mark.parametrize(("name", "part"), [("epochs", loop_edits), ("trainer", trainers)])
@pytest.mark.parametrize("error", [TypeError("no name"), ValueError("no value"), RecursionError()])
def test_an_error_of_ours_leaves_the_script_alone(name, part, error, monkeypatch, caplog) -> None:
    """Whatever a part raises at code that nobody has thought of is said with its place, and its traceback is logged."""

    def breaks(*_: object) -> None:
        raise error

    for planned in ("find_loop", "_trained"):
        monkeypatch.setattr(part, planned, breaks, raising=False)
    with caplog.at_level(logging.DEBUG, "vaultlayer_hf"):
        found = propose(SCRIPTS / f"{name}.py", "v")
    assert isinstance(found, Unrecognised)
    assert f"isn't understood ({type(error).__name__} in test_propose.py, line" in found.reason
    assert found.trains
    assert "Traceback" in caplog.text
