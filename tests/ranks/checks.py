"""What must hold after a training of several ranks was killed and resumed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.forks import ForkServer
from tests.ranks.launch import Attempt, Group, Ranks, random_kill, samples
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.reader.vault import Vault


def same_run(reference: Attempt, attempts: Sequence[Attempt]) -> None:
    """The last attempt ended as the reference did, and every rank saw the same samples at every step."""
    expected, found = reference.results(), attempts[-1].results()
    for rank, (wanted, ours) in enumerate(zip(expected, found, strict=True)):
        assert ours["wrapped"] == wanted["wrapped"]
        assert ours["step"] == wanted["step"]
        assert ours["tensors"] == wanted["tensors"], f"rank {rank} ended with other weights"
        assert samples(attempts, rank) == samples([reference], rank), f"rank {rank} saw other samples"


def resumed_from_newest(attempts: Sequence[Attempt]) -> list[int]:
    """Each attempt started, on all ranks alike, at least at the newest commit that was acknowledged before.

    Returns the steps that each kill has cost: what had been trained and was trained again.
    """
    acknowledged, reached = 0, 0
    lost = []
    for group in attempts:
        starts = {group.started(rank) for rank in range(group.world)} - {None}
        assert len(starts) <= 1, f"the ranks started at different steps: {starts}"
        for start in starts:
            assert start is not None
            assert start >= acknowledged, f"started at {start}, and {acknowledged} was committed"
            lost.append(max(0, reached - start))
        notes = group.notes(0)
        acknowledged = max(
            [acknowledged, *(note["about"] for note in notes if note.get("event") == "commit")]
        )
        reached = max([reached, *(note["step"] for note in notes if set(note) == {"step"})])
    return lost[1:]


def live(vault: str | Path) -> list[Commit]:
    """The live checkpoints of a vault, oldest first; each of them verified."""
    found = Vault(open_store(parse_vault(str(vault))))
    for commit in found.checkpoints():
        report = found.verify(commit)
        assert report.ok, report.problems
    return found.checkpoints()


def kill_and_resume(
    ranks: Ranks,
    reference: Group,
    chance: random.Random,
    *,
    kills: int,
    longest: float,
    empty: bool = True,
    saves_end: bool = True,
) -> list[int]:
    """Kill a training at random instants, resume it (on emptied disks), and check all that must hold.

    ``saves_end``: the training saves its last step, and numbers its checkpoints by steps.
    """
    for _ in range(kills):
        group = ranks.start()
        print(random_kill(group, chance, longest))
        if not any(outcome.code for outcome in group.outcomes.values()):
            break  # it was done before the kill came
        if empty:
            for output in set(ranks.outputs):
                shutil.rmtree(output, ignore_errors=True)
    ranks.start().succeed()
    same_run(reference, ranks.attempts)
    lost = resumed_from_newest(ranks.attempts)
    newest = live(ranks.spec["vault"])[-1]
    assert not saves_end or newest.step == reference.results()[0]["step"]
    return lost


def change_world_size(
    forks: ForkServer,
    folder: Path,
    kind: str,
    written: int,
    now: int,
    convert: Callable[[Path], object] | None = None,
) -> Group:
    """Train at one number of ranks, go on at another, and compare with what stock makes of the same checkpoint.

    ``convert`` does by hand what stock needs to load it. Returns the group that went on.
    """
    vault = folder / "vault"
    before = Ranks(forks, folder / "before", [folder / "output"] * written, kind=kind, vault=str(vault))
    group = before.start(max_steps=8, per_rank={0: {"at": {"end": {"7": [f"await {folder}/never"]}}}})
    group.await_note(0, event="commit", about=6)
    group.kill_all()
    group.wait()
    shutil.rmtree(folder / "output")
    commit = live(vault)[-1]
    assert commit.step == 6
    copy = folder / "stock" / "checkpoint-6"
    shutil.copytree(vault / commit.folder, copy, ignore=shutil.ignore_patterns(".vault"))
    if convert is not None:
        convert(copy)
    stock = Ranks(forks, folder / "stock-run", [folder / "stock"] * now, kind=kind, resume_from=str(copy))
    theirs = stock.start(max_steps=8, **({"universal": True} if convert is not None else {}))
    theirs.succeed()
    after = Ranks(forks, folder / "after", [folder / "output"] * now, kind=kind, vault=str(vault))
    ours = after.start(max_steps=8)
    ours.succeed()
    assert [ours.started(rank) for rank in range(now)] == [6] * now
    assert ours.losses() == theirs.losses()
    assert set(ours.losses()) == {7, 8}
    assert abs(ours.losses()[7] - group.losses()[6]) < 0.5, "the loss doesn't go on where it was"
    assert [one["tensors"] for one in ours.results()] == [one["tensors"] for one in theirs.results()]
    said = [text for text in ours.events(0, "notice") if f"written by {written} rank" in text]
    assert len(said) == 1
    assert "random states" in said[0]
    return ours
