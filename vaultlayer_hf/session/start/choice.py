"""Which checkpoints of a vault a start may go on from, newest first. Pure.

``VAULT@STEP`` goes back to that step once, and ``VAULT@best`` to what is the best then. The command that says it is
started again as it stands after each death, and must not throw away what it has trained since. So each claim notes
which commit was gone back to, and how it was named (``AT``, ``AS``); where the newest commit is of a run whose claim
notes the same name, the start goes on from that newest commit. What is left behind by going back is noted as well
(``LEFT``), by every start on that line: retention spares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.errors import NoSuchCheckpointError
from vaultlayer_hf.vault.log.archive import in_archive, of_step
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.log.origin import BEST, FORK

AT, AS, LEFT = "at", "as", "left"
"""Names in a claim's detail: number of the commit that was gone back to; how it was named behind the ``@`` (``500``,
``best``); numbers of those that this left behind."""


@dataclass(frozen=True)
class Fork:
    """What a run begins from that is a fork of another one.

    Attributes:
        uri: of the vault that it is forked from, without a step.
        commit: in there.
        state: of that vault.
        plain: its files aren't encrypted, and a key is set, which is the new vault's.
        unsigned: nor are its entries signed, and a key for that is set.
        best: it is asked for as the best one, which may be another one by the next start.
    """

    uri: str
    commit: Commit
    state: VaultState
    plain: bool = False
    unsigned: bool = False
    best: bool = False

    @property
    def detail(self) -> dict[str, Any]:
        """What the claim notes of it."""
        commit = self.commit
        return {
            "uri": self.uri,
            "step": commit.step,
            "number": commit.number,
            "vault_id": self.state.vault_id,
            **({BEST: True} if self.best else {}),
        }


@dataclass(frozen=True)
class StartChoice:
    """What a start may go on from.

    Attributes:
        candidates: newest first; the first that is whole is taken.
        adopts: a sealed snapshot on the disk that is newer may be gone on from instead.
        at: number of the commit that ``@STEP`` names; None without one.
        name: what stands behind the ``@``; empty without one.
        named: that commit; None where it has been retired since, or nothing is named.
        continues: the run went back to it before, and goes on from what it has trained since.
        left: commits that going back leaves behind, oldest first.
        fork: the run begins as a fork; ``candidates`` is empty then.
    """

    candidates: tuple[Commit, ...]
    adopts: bool = True
    at: int | None = None
    name: str = ""
    named: Commit | None = None
    continues: bool = False
    left: tuple[Commit, ...] = ()
    fork: Fork | None = None

    @property
    def detail(self) -> dict[str, Any]:
        """What the claim notes of it."""
        if self.fork is not None:
            return {FORK: self.fork.detail}
        left = {LEFT: [commit.number for commit in self.left]}
        if self.at is None:
            return left if self.left else {}
        return {AT: self.at, AS: self.name, **left}


def choose_start(
    state: VaultState,
    step: int | None,
    claims: Mapping[int, Mapping[str, Any]],
    *,
    uri: str,
    name: str = "",
    again: bool = False,
) -> StartChoice:
    """Choose what a start goes on from.

    Args:
        state: of the vault, before the claim.
        step: what ``@STEP`` asks for; None for the newest, or for a best that the vault doesn't know.
        claims: details of the newest claim and of the claim that made the newest commit, by token.
        uri: of the vault, for the error.
        name: what stands behind the ``@``: the step, or ``best``; empty for the newest.
        again: go back to ``step`` whatever was trained since; nothing is noted then.

    Raises NoSuchCheckpointError.
    """
    newest = state.newest
    noted = _numbers(claims.get(state.token, {}).get(LEFT))
    if newest is not None:
        noted |= _numbers(claims.get(newest.token, {}).get(LEFT))
    spared = tuple(commit for commit in state.commits if commit.left_behind and commit.number in noted)
    live = tuple(commit for commit in reversed(state.commits) if not commit.left_behind)
    if step is None and not name:
        return StartChoice(live, left=spared)
    same = tuple(of_step(state.commits, step))

    def went_back(token: int) -> int | None:
        """Return the commit that a claim went back to under this name."""
        claim = claims.get(token, {})
        at = claim.get(AT)
        # Claims of earlier versions note the number alone.
        alike = claim[AS] == name if AS in claim else bool(same) and at == same[0].number
        return at if alike and type(at) is int else None

    # Not by ``same``: the best is another one by now, and a step that was gone back to may have been retired since.
    at = went_back(newest.token) if newest is not None and not again else None
    if newest is not None and at is not None and newest.number > at:
        line = tuple(commit for commit in live if commit.number >= at)
        named = next((commit for commit in state.commits if commit.number == at), None)
        return StartChoice(line, True, at, name, named, True, spared)
    if not same:
        raise _none_such(state, step, uri)
    if again:
        return StartChoice(same, adopts=False, left=spared)
    left = tuple(
        commit for commit in state.commits if commit.number > same[0].number and not in_archive(commit)
    )
    # Where the run that went back died before its first commit, what it has sealed is newer than that.
    adopts = went_back(state.token) == same[0].number
    return StartChoice(same, adopts, same[0].number, name, same[0], False, left)


def _none_such(state: VaultState, step: int | None, uri: str) -> NoSuchCheckpointError:
    # A step that was gone back beyond and trained again stands in the log twice.
    steps = ", ".join(map(str, sorted({commit.step for commit in state.commits}))) or "none"
    if step is None:
        return NoSuchCheckpointError(
            f"{uri} knows no best checkpoint: a Trainer with metric_for_best_model names one; it has: {steps}. Name "
            "one of them as @STEP, or leave out @best for the newest"
        )
    return NoSuchCheckpointError(
        f"{uri} has no checkpoint of step {step}; it has: {steps}. Name one of them, or leave out @<step> for the "
        "newest"
    )


def _numbers(value: Any) -> set[int]:
    """Return the numbers of a list that a log entry holds: what isn't one counts for nothing."""
    return {item for item in value if type(item) is int} if isinstance(value, list) else set()
