"""State beside the model, and nan, on two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.launch import Ranks
from tests.trainer.kit import steps_of

PROGRAM = "tests.ranks.added_part:train"


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["one disk", "a disk each"])
def test_what_is_added_comes_back_on_every_rank(shared: bool, forks: ForkServer, tmp_path: Path) -> None:
    """An average comes back as rank 0 had it, a buffer as each rank had its own; killed twice, on other disks."""
    unbroken = Ranks(forks, tmp_path / "u", [tmp_path / "u" / "out"] * 2, program=PROGRAM).start()
    unbroken.succeed()
    vault = str(tmp_path / "vault")
    for number, step in enumerate((5, 7, 0)):
        outputs = [tmp_path / (f"out-{number}" if shared else f"out-{number}-{rank}") for rank in range(2)]
        ranks = Ranks(forks, tmp_path / str(number), outputs, program=PROGRAM, vault=vault, dies=step)
        group = ranks.start()
        if step:
            assert all(group.wait())
        else:
            group.succeed()
    assert group.results() == unbroken.results()
    assert group.results()[0][2] != group.results()[1][2]  # each rank has a buffer of its own
    assert group.events(0, "restore")
    assert not group.events(0, "inexact")


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["one disk", "a disk each"])
def test_the_last_finite_checkpoint_of_two_ranks_stays(
    shared: bool, forks: ForkServer, tmp_path: Path
) -> None:
    """However many checkpoints of nan two ranks save, the last finite one is kept, and rank 0 says so once."""
    outputs = [tmp_path / ("out" if shared else f"out-{rank}") for rank in range(2)]
    vault = str(tmp_path / "vault")
    settings = {"keep_last": 2}
    ranks = Ranks(
        forks,
        tmp_path / "a",
        outputs,
        program=PROGRAM,
        vault=vault,
        poison=5,
        settings=settings,
        max_steps=12,
    )
    group = ranks.start()
    group.succeed()
    assert steps_of(vault) == [4, 10, 12]
    said = [message for message in group.events(0, "notice") if "isn't finite" in message]
    assert len(said) == 1
    assert said[0].startswith("checkpoint-6 isn't finite: model.embed_tokens.weight")
