"""Retention: which checkpoints to keep and why. Pure: data in, decisions with reasons out.

One function serves the vault, the local folder and any dry run. What it returns as ``keep=False`` may be
retired; whoever acts on it appends the entry first and deletes after.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vaultlayer_hf.vault.log.archive import in_archive
from vaultlayer_hf.vault.log.entry import Commit


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep: the newest ``last`` (None: all), steps that are a multiple of ``every``, the best."""

    last: int | None = 3
    every: int | None = None
    best: bool = True


@dataclass(frozen=True, slots=True)
class RetentionDecision:
    """Keep a checkpoint or not, and the reason."""

    commit: Commit
    keep: bool
    reason: str


def decide_retention(
    commits: Sequence[Commit],
    policy: Policy,
    *,
    best_step: int | None = None,
    protected: Collection[int] = (),
    finite: int | None = None,
) -> list[RetentionDecision]:
    """Return a decision for each commit, in the order given (the log's order, oldest first).

    ``protected`` holds numbers of commits that stay whatever the policy: the one this run resumed from, the
    newest verified one. ``finite`` is the number of the newest that holds no nan, which stays as well: what comes
    behind it may be lost. The newest live commit always stays. Commits that the run has left behind don't push
    others out, and stay only until as many newer ones exist.
    """
    line = [commit for commit in commits if not commit.left_behind]
    lately = [*line, *commits] if policy.last is None else [*line[-policy.last :], *commits[-policy.last :]]
    newest = {commit.number for commit in lately}
    best = [
        commit.number for commit in line if policy.best and best_step is not None and commit.step == best_step
    ]
    decisions = []
    for commit in commits:
        if commit.pinned and in_archive(commit):
            keep, reason = True, f"archived as {commit.archived}"
        elif commit.pinned:
            keep, reason = True, "pinned"
        elif commit.number in protected:
            keep, reason = True, "a start went on from it"
        elif line and commit.number == line[-1].number:
            keep, reason = True, "the newest"
        elif commit.number == finite:
            keep, reason = True, "the newest that is finite"
        elif best and commit.number == best[-1]:
            keep, reason = True, "the best"
        elif commit.number in newest:
            keep, reason = True, f"among the last {policy.last}" if policy.last else "all are kept"
        elif policy.every and commit.step % policy.every == 0 and not commit.left_behind:
            keep, reason = True, f"step is a multiple of {policy.every}"
        elif commit.left_behind:
            keep, reason = False, "the run went on from an older one"
        else:
            keep, reason = False, f"older than the last {policy.last}"
        decisions.append(RetentionDecision(commit, keep, reason))
    return decisions
