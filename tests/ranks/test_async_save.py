"""Several ranks save beside their training: all of them or none, at the same steps, and the files are stock's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import live, same_run
from tests.ranks.launch import Group, Ranks
from tests.trainer.async_kit import contents
from vaultlayer_hf.vault.workspace import workspace

ARGUMENTS = {"training_args.bin"}
"""They name the output folder."""


def copied(group: Group, rank: int) -> list[int]:
    """The size of each copy that a rank has made of something, in bytes."""
    return [note["copied"] for note in group.notes(rank) if note.get("copied")]


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_files_are_stocks(
    forks: ForkServer, tmp_path: Path, reference: Callable[[str, int], Group], shared: bool
) -> None:
    """Two ranks, on one disk or on one each: rank 0 copies, every file has stock's bytes, and all is committed."""
    outputs = [tmp_path / ("output" if shared else f"output-{rank}") for rank in range(2)]
    expected = reference("ddp", 2)
    vault = str(tmp_path / "vault")
    group = Ranks(
        forks, tmp_path, outputs, vault=vault, beside="well", pace=0.05, settings={"keep_last": None}
    ).start()
    group.succeed()
    same_run(expected, [group])
    assert len(copied(group, 0)) == 4  # the last step's save has nothing to run beside
    assert not copied(group, 1)
    found = {name: digest for output in outputs for name, digest in contents(output, ARGUMENTS).items()}
    assert found == contents(expected.output, ARGUMENTS)
    assert [commit.step for commit in live(vault)][-1] == 10
    assert not group.events(0, "abandon")
    assert not [path for output in outputs for path in workspace(output).glob("pending-*")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fsdp-full", "fsdp-sharded"])
def test_fsdp(forks: ForkServer, tmp_path: Path, reference: Callable[[str, int], Group], kind: str) -> None:
    """FSDP 2 on two ranks: a state that is gathered is written beside the training, one in shards isn't, on no rank;
    which is said, once. A run that goes on from such a checkpoint ends the same."""
    vault, full = str(tmp_path / "vault"), kind == "fsdp-full"
    ranks = Ranks(
        forks,
        tmp_path,
        [tmp_path / "output"] * 2,
        kind=kind,
        vault=vault,
        beside="well",
        pace=0.05,
        settings={"keep_last": None},
    )
    killed = ranks.start(at={"begin": {"7": ["kill"]}})
    assert -9 in killed.wait(agents=False)
    group = ranks.start()
    group.succeed()
    same_run(reference(kind, 2), [killed, group])
    for one in (killed, group):
        said = [note["message"] for note in one.notes(0) if "async_save" in note.get("message", "")]
        assert len(said) == 1, said
        assert ("gathers the state" if full else "in shards") in said[0]
        assert bool(copied(one, 0)) == full
        assert not copied(one, 1)
    assert {commit.step for commit in live(vault)} >= {4, 10}
    assert not group.events(0, "abandon")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "rank", "said"),
    [
        ("no room", 0, "rank 0: the copy needs"),
        ("unwritable", 0, "rank 0: OSError: a disk of this test"),
        ("unwritable", 1, "rank 1: OSError: a disk of this test"),
        ("no barrier", 0, "rank 0: TornError: the state couldn't be copied: the optimizer stepped before"),
    ],
)
def test_what_fails_on_one_rank_fails_on_all(
    forks: ForkServer,
    tmp_path: Path,
    reference: Callable[[str, int], Group],
    how: str,
    rank: int,
    said: str,
) -> None:
    """A rank without room, one that can't write, a step that doesn't wait: all ranks go on alike, and say why."""
    vault = str(tmp_path / "vault")
    ranks = Ranks(
        forks,
        tmp_path,
        [tmp_path / "output"] * 2,
        vault=vault,
        beside="well",
        pace=0.05,
        settings={"keep_last": None},
    )
    group = ranks.start(per_rank={rank: {"beside": how}})
    group.succeed()
    same_run(reference("ddp", 2), [group])
    messages = [note["message"] for note in group.notes(0) if "message" in note]
    assert any(said in message for message in messages), messages
    assert [commit.step for commit in live(vault)][-1] == 10
    if how == "no barrier":
        assert not (tmp_path / "output" / "checkpoint-4").exists()  # that of step 2 was copied at once
