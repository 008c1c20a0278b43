"""What a start says of whoever used the vault before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from vaultlayer_hf import Settings
from vaultlayer_hf.base.events import Events
from vaultlayer_hf.session.access import Access

CLAIM = """
import sys
from vaultlayer_hf import Settings
from vaultlayer_hf.base.events import Events
from vaultlayer_hf.session.access import Access
access = Access(Settings(vault=sys.argv[1]), Events())
access.claim(access.last())
print("claimed", flush=True)
sys.stdin.read()
"""


def claim_here(vault: Path) -> str:
    """Claim the vault in this process; return what is said."""
    said: list[str] = []
    events = Events()
    events.listen(lambda event: said.append(event.message))
    access = Access(Settings(vault=str(vault)), events)
    access.claim(access.last())
    return "\n".join(said)


def test_only_a_writer_that_may_be_alive_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live process, or one of another machine, is warned of; this process, and one that is gone, are no alarm."""
    vault = tmp_path / "vault"
    child = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(vault)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "claimed\n"
    alive = claim_here(vault)
    assert "another process wrote to" in alive
    assert "a vault has one writer at a time" in alive
    assert "another process" not in claim_here(vault)  # it was this one
    child.communicate("")
    done = subprocess.run(
        [sys.executable, "-c", CLAIM, str(vault)], cwd=ROOT, input="", text=True, capture_output=True
    )
    assert done.stdout == "claimed\n"
    assert "another process" not in claim_here(vault)  # it is gone
    monkeypatch.setattr("vaultlayer_hf.session.access.platform.node", lambda: "elsewhere")
    assert "another process wrote to" in claim_here(vault)
