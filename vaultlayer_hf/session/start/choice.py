"""Which checkpoints of a vault a start may go on from, newest first. Pure.

``VAULT@STEP`` goes back to that step once. The command that says it is started again as it stands after each death, and
must not throw away what it has trained since. So each claim notes which commit its ``@STEP`` has named (``AT``); where
the newest commit is of a run whose claim notes the same one, the start goes on from that newest commit. What is left
behind by going back is noted as well (``LEFT``), by every start on that line: retention spares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.errors import NoSuchCheckpointError
from vaultlayer_hf.vault.log.entry import Commit, VaultState

AT, LEFT = "at", "left"
"""Names in a claim's detail: number of the commit that ``@STEP`` has named; numbers of those that it left behind."""


@dataclass(frozen=True)
class StartChoice:
    """What a start may go on from.

    Attributes:
        candidates: newest first; the first that is whole is taken.
        adopts: a sealed snapshot on the disk that is newer may be gone on from instead.
        named: the commit that ``@STEP`` names; None without one.
        continues: the run went back to ``named`` before, and goes on from what it has trained since.
        left: commits that going back leaves behind, oldest first.
    """

    candidates: tuple[Commit, ...]
    adopts: bool = True
    named: Commit | None = None
    continues: bool = False
    left: tuple[Commit, ...] = ()

    @property
    def detail(self) -> dict[str, Any]:
        """What the claim notes of it."""
        if self.named is None:
            return {LEFT: [commit.number for commit in self.left]} if self.left else {}
        return {AT: self.named.number, LEFT: [commit.number for commit in self.left]}


def choose_start(
    state: VaultState,
    step: int | None,
    claims: Mapping[int, Mapping[str, Any]],
    *,
    uri: str,
    again: bool = False,
) -> StartChoice:
    """Choose what a start goes on from.

    Args:
        state: of the vault, before the claim.
        step: what ``@STEP`` asks for; None for the newest.
        claims: details of the newest claim and of the claim that made the newest commit, by token.
        uri: of the vault, for the error.
        again: go back to ``step`` whatever was trained since; nothing is noted then.

    Raises NoSuchCheckpointError.
    """
    newest = state.newest
    noted = _numbers(claims.get(state.token, {}).get(LEFT))
    if newest is not None:
        noted |= _numbers(claims.get(newest.token, {}).get(LEFT))
    spared = tuple(commit for commit in state.commits if commit.left_behind and commit.number in noted)
    live = tuple(commit for commit in reversed(state.commits) if not commit.left_behind)
    if step is None:
        return StartChoice(live, left=spared)
    same = tuple(commit for commit in reversed(state.commits) if commit.step == step)
    if not same:
        steps = ", ".join(str(commit.step) for commit in state.commits) or "none"
        raise NoSuchCheckpointError(
            f"{uri} has no checkpoint of step {step}; it has: {steps}. Name one of them, or leave out @<step> for the "
            "newest"
        )
    if again:
        return StartChoice(same, adopts=False, left=spared)
    named = same[0]

    def went_back(token: int) -> bool:
        return claims.get(token, {}).get(AT) == named.number

    if newest is not None and newest.number > named.number and went_back(newest.token):
        line = tuple(commit for commit in live if commit.number >= named.number)
        return StartChoice(line, True, named, True, spared)
    left = tuple(commit for commit in state.commits if commit.number > named.number)
    # Where the run that went back died before its first commit, what it has sealed is newer than that.
    return StartChoice(same, went_back(state.token), named, False, left)


def _numbers(value: Any) -> set[int]:
    """Return the numbers of a list that a log entry holds: what isn't one counts for nothing."""
    return {item for item in value if type(item) is int} if isinstance(value, list) else set()
