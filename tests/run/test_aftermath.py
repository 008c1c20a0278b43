"""What the other commands tell of a real `vl run`: one training, killed once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli import schema
from tests.cli.conftest import vl
from tests.run.deaths import KINDS, play
from tests.run.programs import Ran


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A training of 12 steps that SIGKILL ended after step 7, and that `vl run` has brought to its end."""
    found = play(KINDS["SIGKILL"], 1, tmp_path_factory.mktemp("aftermath"))
    assert found.code == 0, found.err[-3000:]
    return found


def test_status_tells_attempts_causes_and_steps(ran: Ran) -> None:
    """`vl status` beside the script: it is done, what ended each attempt and after which step, what was lost."""
    found = vl("status", "--json", cwd=ran.folder).json()
    assert schema.misfits(found, schema.STATUS) == []
    assert (found["state"], found["step"], found["max_steps"]) == ("finished", 12, 12)
    first, second = found["attempts"]
    assert (first["cause"], first["began_at"], first["step"]) == ("killed", 0, 7)
    assert "SIGKILL ended it after step 7" in first["detail"]
    assert "it goes on from the newest checkpoint (step 6, or a newer one on this disk)" in first["decision"]
    assert (second["cause"], second["began_at"], second["step"]) == ("finished", 6, 12)
    assert found["lost_steps"] == first["lost"] == 1
    assert found["last_commit_step"] == 12
    assert found["commits"] >= 2
    assert 0 < found["goodput"] < 1
    text = vl("status", cwd=ran.folder)
    assert text.err == ""
    assert text.out.splitlines()[0] == "Finished: step 12 of 12; the program has ended well"
    assert re.search(r"1 +\S+ \S+ +0 +7 +1 +killed: SIGKILL ended it after step 7", text.out), text.out
    assert re.search(r"2 +\S+ \S+ +6 +12 +0 +finished: it ended with exit code 0", text.out), text.out


def test_logs_hold_what_each_attempt_said(ran: Ran) -> None:
    """`vl logs`: the last attempt's output, and the first one's on demand; of the vault, each entry in words."""
    last, first = vl("logs", cwd=ran.folder), vl("logs", "--attempt", "1", cwd=ran.folder)
    assert f"WEIGHTS {ran.weights}" in last.out
    assert "restored and verified" in last.out
    assert "claimed by this process (log entry 1)" in first.out
    assert "WEIGHTS" not in first.out
    (vault,) = (ran.folder / ".vl").glob("vault-*")
    entries = [line.split() for line in vl("logs", str(vault)).out.splitlines()[1:]]
    kinds = [words[3] for words in entries]
    assert kinds.count("claim") == 2
    assert "commit" in kinds[kinds.index("claim", 1) :], "the second attempt has committed"
    assert kinds[-1] == "finish"


def test_report_shows_the_death(ran: Ran, tmp_path: Path) -> None:
    """`vl report` writes one page with both attempts, the decision between them and the commits."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'vaultlayer-hf[report]'")
    out, png = tmp_path / "run.html", tmp_path / "run.png"
    done = vl("report", str(ran.folder / ".vl"), "--out", str(out), "--png", str(png))
    assert (done.code, done.err) == (0, "")
    page = out.read_text()
    assert "SIGKILL ended it after step 7. restart: it goes on from the newest checkpoint (step 6, or" in page
    for mark in ("training", "death", "killed", "next attempt", "commit"):
        assert f">{mark}</text>" in page, mark
    assert page.count("<svg") == 5
    assert png.stat().st_size > 20_000
