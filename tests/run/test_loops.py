"""A training loop of one's own under `vl run`: its Checkpointer is heard, and a death is answered as a Trainer's is."""

from __future__ import annotations

import textwrap

import pytest

from tests.cli.conftest import vl
from tests.run.programs import vl_run
from vaultlayer_hf.run.engines.base import Pulse
from vaultlayer_hf.run.journal import read_beats

LOOP = textwrap.dedent(
    """
    import glob, os, time, torch
    from vaultlayer_hf import Checkpointer

    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    ckpt = Checkpointer(model=model, optimizer=optimizer, save_every="2 steps")
    for step in range(ckpt.resume(), 12):
        if step == 7 and not os.path.exists("once"):
            open("once", "w").close()
            end = time.monotonic() + 60
            while time.monotonic() < end and not glob.glob(".vl/vault-*/log/*3.json"):
                time.sleep(0.05)
            exec(os.environ["FATE"])
        loss = (model(torch.rand(8, 4)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ckpt.step(loss=loss)
    ckpt.finish()
    print("SUM", sum(value.sum().item() for value in model.parameters()))
    """
)


@pytest.mark.slow
def test_a_loop_is_killed_and_goes_on(tmp_path) -> None:
    """The journal has its steps and commits, the second attempt goes on behind the first, and status tells it."""
    ran = vl_run(tmp_path, script=LOOP, FATE="os.kill(os.getpid(), 9)")
    assert ran.code == 0
    assert ran.causes == ["killed", "finished"]
    death = ran.lines("death")[0]
    assert (death["step"], death["began_at"]) == (7, 0)
    assert death["committed"] in (2, 4, 6)
    assert ran.notes(2, "train")[0]["step"] >= 2, "it started anew instead of resuming"
    assert [note["step"] for note in ran.notes(2, "trained")] == [12]
    assert {note["event"] for note in ran.notes(1, "vault")} >= {"commit"}
    beat = read_beats(tmp_path / ".vl" / "attempt-0002")[0]
    assert (beat["phase"], beat["step"]) == ("done", 12)
    assert "loop of your own" not in ran.err
    found = vl("status", "--json", cwd=tmp_path).json()
    assert (found["state"], found["step"], [one["cause"] for one in found["attempts"]]) == (
        "finished", 12, ["killed", "finished"],
    )  # fmt: skip
    undisturbed = tmp_path / "reference"
    undisturbed.mkdir()
    (undisturbed / "once").touch()
    assert "SUM" in ran.out
    assert vl_run(undisturbed, script=LOOP).out.splitlines()[-1] == ran.out.splitlines()[-1]


@pytest.mark.slow
def test_a_loop_that_hangs_is_ended_where_a_time_was_named(tmp_path) -> None:
    """--hang-after counts for a loop, too; its stacks show where."""
    ran = vl_run(
        tmp_path, script=LOOP, FATE="def stuck_here(): time.sleep(600)\nstuck_here()", options=("--hang-after", "5")
    )  # fmt: skip
    assert ran.code == 0
    assert ran.causes == ["hang", "finished"]
    assert "stuck_here" in (tmp_path / ".vl" / "attempt-0001" / "rank-0.stacks").read_text()


def test_how_long_a_loop_may_be_silent() -> None:
    """What was named counts between steps; else an hour; behind its end whatever it takes."""
    assert Pulse(fixed=5.0).limit({"loop"}) == 5.0
    assert Pulse(longest=1.0, seen=9).limit({"loop"}) == 3600.0
    assert Pulse(fixed=5.0).limit({"done"}) == float("inf")


def test_a_named_time_counts_outside_of_steps_where_it_is_more_than_an_hour() -> None:
    """An evaluation or a save may be silent for an hour, and for longer where --hang-after says so."""
    for phases in ({"start"}, {"between"}, {"end"}, {"train", "between"}):
        assert Pulse(fixed=5.0).limit(phases) == 3600.0
        assert Pulse(fixed=7200.0).limit(phases) == 7200.0
