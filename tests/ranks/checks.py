"""What must hold after a training of several ranks was killed and resumed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.ranks.launch import Group, Ranks, random_kill, samples
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.uri import parse_vault
from vaultlayer_hf.vault.entry import Commit
from vaultlayer_hf.vault.vault import Vault


def same_run(reference: Group, attempts: list[Group]) -> None:
    """The last attempt ended as the reference did, and every rank saw the same samples at every step."""
    expected, found = reference.results(), attempts[-1].results()
    for rank, (wanted, ours) in enumerate(zip(expected, found, strict=True)):
        assert ours["wrapped"] == wanted["wrapped"]
        assert ours["step"] == wanted["step"]
        assert ours["tensors"] == wanted["tensors"], f"rank {rank} ended with other weights"
        assert samples(attempts, rank) == samples([reference], rank), f"rank {rank} saw other samples"


def resumed_from_newest(attempts: list[Group]) -> list[int]:
    """Each attempt started, on all ranks alike, at least at the newest commit that was acknowledged before.

    Returns the steps that each kill has cost: what had been trained and was trained again.
    """
    acknowledged, reached = 0, 0
    lost = []
    for group in attempts:
        starts = {group.started(rank) for rank in range(len(group.runs))} - {None}
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
) -> list[int]:
    """Kill a training at random instants, resume it (on emptied disks), and check all that must hold."""
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
    assert live(ranks.spec["vault"])[-1].step == reference.results()[0]["step"]
    return lost
