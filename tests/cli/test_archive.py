"""`vl archive`: start over in the same vault, see what was there, take it back."""

from __future__ import annotations

from pathlib import Path

from tests.vault.vaults import train

from .conftest import vl


def test_archived_listed_and_taken_back(tmp_path: Path) -> None:
    """What was archived is listed under its name by ls, show, why and logs, and copied out; --undo takes it back."""
    vault, output = str(tmp_path / "vault"), tmp_path / "output"
    train(vault, output, 2, 4)
    done = vl("archive", vault, "--name", "first")
    assert (done.code, done.err) == (0, "")
    assert "archived as first: steps 2, 4. The next start begins at step 0" in done.out
    assert "begins at step 0" in vl("why", vault).err
    status = vl("status", vault).out
    assert "archived: the next start begins at step 0" in status
    assert not {"lost", "attempt"} & set(status.split()), (
        "of the run that the vault holds now nothing is known"
    )
    train(vault, tmp_path / "other", 4)
    listed = vl("ls", vault, "--json").json()["checkpoints"]
    assert [item["state"] for item in listed] == ["archived as first", "archived as first", "newest"]
    old = str(listed[1]["number"])
    assert vl("show", f"{vault}@4", "--json").json()["state"] == "newest"
    assert vl("show", f"{vault}@4", "--entry", old, "--json").json()["state"] == "archived as first"
    why = vl("why", f"{vault}@4", "--entry", old, "--json").json()
    assert (why["verdict"], why["resumes"]) == ("archived", False)
    assert "was archived as first by `vl archive`: the next start resumes from step 4" in why["reason"]
    assert "archived as first: the next start begins anew" in [line["text"] for line in why["walk"]]
    assert vl("pull", vault, str(tmp_path / "out"), "--entry", old).code == 0
    verified = vl("verify", vault).out.splitlines()
    assert [line.partition(": ")[0] for line in verified] == [
        "step 2 (archived as first)",
        "step 4 (archived as first)",
        "step 4",
    ]
    kept = vl("prune", vault, "--dry-run", "--json").json()["checkpoints"]
    assert [item["reason"] for item in kept] == ["archived as first", "archived as first", "the newest"]
    assert vl("status", vault, "--json").json()["commits"] == 1, "the archived run's aren't this run's"
    entries = [item["text"] for item in vl("logs", vault, "--json").json()["entries"]]
    assert any(text.startswith("archived as first; token") for text in entries)
    refused = vl("archive", vault, "--undo")
    assert (refused.code, "archive it, too" in refused.err) == (2, True)
    assert vl("archive", vault).code == 0
    back = vl("archive", vault, "--undo", "--name", "first")
    assert (back.code, back.out) == (0, "first is taken back: the next start goes on from step 4\n")
    assert vl("archive", f"{vault}@4").code == 2
