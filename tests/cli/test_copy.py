"""`vl copy`: a vault at another place, by one command."""

from __future__ import annotations

from pathlib import Path

from .conftest import vl


def test_copy(trained: Path, tmp_path: Path) -> None:
    """The copy verifies, a second call copies nothing, and the sentence says what is there."""
    target = tmp_path / "copy"
    done = vl("copy", str(trained), str(target))
    assert (done.code, done.err) == (0, ""), done.err
    assert f"{target}: 3 checkpoints, verified" in done.out
    assert vl("verify", str(target)).code == 0
    assert vl("copy", str(trained), str(target), "--json").json()["copied"] == 0


def test_wrong_use(trained: Path, tmp_path: Path) -> None:
    """One checkpoint, the same place, no vault and another vault are refused with the fix."""
    assert "vl pull" in vl("copy", f"{trained}@40", str(tmp_path / "x")).err
    same = vl("copy", str(trained), str(trained))
    assert (same.code, "the same vault" in same.err) == (2, True)
    none = vl("copy", str(tmp_path / "none"), str(tmp_path / "x"))
    assert (none.code, "there is no vault" in none.err) == (1, True)
    assert vl("copy", str(trained), str(tmp_path / "y")).code == 0
    assert vl("copy", str(tmp_path / "y"), str(trained)).code == 2
