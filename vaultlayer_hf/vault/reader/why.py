"""Why a checkpoint is, or is not, the one that the next start resumes from. Pure: the log in, words out.

The rule (log.py, 5): the last commit of the log that is neither retired nor left behind. Walking the log forward, each
entry that changed the answer for this checkpoint is a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vaultlayer_hf.vault.log.archive import archived_as, of_step, taken_back
from vaultlayer_hf.vault.log.entry import Commit, Entry, VaultState
from vaultlayer_hf.vault.log.origin import fork_of, forked_from

Verdict = Literal["newest", "older", "left behind", "archived", "retired"]


@dataclass(frozen=True, slots=True)
class Line:
    """An entry that mattered: its number, its time (for people) and what it did."""

    number: int
    time: str
    text: str


@dataclass(frozen=True, slots=True)
class Why:
    """The answer.

    Attributes:
        commit: the checkpoint asked about, as its commit entry had it.
        verdict: ``newest`` is resumed from; the others are not.
        reason: one sentence.
        walk: the entries that made it so, oldest first.
    """

    commit: Commit
    verdict: Verdict
    reason: str
    walk: tuple[Line, ...]


def committed(history: Sequence[Entry], step: int | None = None, number: int | None = None) -> Commit | None:
    """Return the commit asked about: of log entry ``number``, of a step, or the newest; None where there is none.

    Of several commits of one step that one is meant which `of_step` names, or else the newest.
    """
    commits = [entry.state.commits[-1] for entry in history if entry.kind == "commit" and entry.state.commits]
    state = history[-1].state if history else None
    if number is None and step is None:
        return state.newest if state else None
    if number is None and state is not None and (live := of_step(state.commits, step)):
        step, number = None, live[0].number
    wanted = [
        commit for commit in commits if commit.number == number or (number is None and commit.step == step)
    ]
    return max(wanted, key=lambda commit: commit.number, default=None)


def explain(history: Sequence[Entry], commit: Commit) -> Why:
    """Explain a commit by the whole log, oldest entry first."""
    walk: list[Line] = []
    before: Commit | None = None
    newest: int | None = None
    retired: Entry | None = None
    left: Entry | None = None
    for entry in history:
        now = _find(entry.state, commit)
        for text in _changes(entry, commit, before, now, newest):
            walk.append(Line(entry.number, entry.time, text))
        if before is not None and now is None:
            retired = entry
        if now is not None and (before is None or now.left_behind != before.left_behind):
            left = entry if now.left_behind else None
        before, newest = now, entry.state.newest.number if entry.state.newest else None
    fork = fork_of(history, commit)
    if fork is not None:
        line = Line(fork.number, fork.time, f"its run began as a fork of {forked_from(fork.detail)}")
        place = next((index for index, one in enumerate(walk) if one.number > fork.number), len(walk))
        walk.insert(place, line)
    last = history[-1].state.newest
    archived = before.archived if before is not None and before.left_behind else ""
    this = f"step {commit.step} (log entry {commit.number})"
    instead = f"step {last.step} (entry {last.number})" if last else "nothing"
    if before is None:
        said = retired.detail.get("retired") if retired else None
        cause = said.get(str(commit.number), "") if isinstance(said, dict) else ""
        reason = f"{this} was retired" + (f" by entry {retired.number}" if retired else "")
        reason += (f": {cause}" if cause else "") + f"; the next start resumes from {instead}"
        return Why(commit, "retired", reason, tuple(walk))
    if archived:
        here = f"the next start resumes from {instead}" if last else "the next start begins at step 0"
        reason = f"{this} was archived as {archived} by `vl archive`: {here}"
        return Why(commit, "archived", reason, tuple(walk))
    if left is not None:
        reason = (
            f"{this} was left behind by entry {left.number}: a later attempt (token {left.token}) went on "
            f"from an older checkpoint; the next start resumes from {instead}"
        )
        return Why(commit, "left behind", reason, tuple(walk))
    if last is not None and last.number == commit.number:
        reason = (
            f"{this} is where the next start resumes: the last commit that is neither retired nor left behind"
        )
        return Why(commit, "newest", reason, tuple(walk))
    later = sum(item.number > commit.number and not item.left_behind for item in history[-1].state.commits)
    plural = "s" if later != 1 else ""
    reason = f"{this} is older: {later} later checkpoint{plural} can be resumed from, the newest is {instead}"
    return Why(commit, "older", reason, tuple(walk))


def _find(state: VaultState, commit: Commit) -> Commit | None:
    return next((item for item in state.commits if item.number == commit.number), None)


def _changes(
    entry: Entry, commit: Commit, before: Commit | None, now: Commit | None, newest: int | None
) -> list[str]:
    """Return what an entry did to a checkpoint, in words."""
    if entry.number == commit.number:
        return [f"step {commit.step} committed under token {entry.token}: from here on the newest"]
    if entry.number == commit.token:
        host = entry.detail.get("host")
        return ["its writer claimed the vault" + (f" on {host}" if isinstance(host, str) else "")]
    if before is None:
        return []
    if now is None:
        return ["retired"]
    if (name := archived_as(entry.detail)) is not None:
        same = now.archived == before.archived
        return [
            f"the run since then was archived as {name}"
            if same
            else f"archived as {name}: the next start begins anew"
        ]
    if (name := taken_back(entry.detail)) is not None:
        same = now.archived == before.archived
        return [f"{name} was taken back" + ("" if same else ": it is the run's again")]
    found = []
    if now.pinned != before.pinned:
        found.append("pinned" if now.pinned else "let go: no longer pinned")
    if now.left_behind != before.left_behind:
        found.append(
            f"a later attempt (token {entry.token}) committed step {entry.state.commits[-1].step}, having gone on from "
            + (
                "an older checkpoint: this one is left behind"
                if now.left_behind
                else "this one: it counts again"
            )
        )
    last = entry.state.newest
    if not found and last is not None and last.number != newest:
        if commit.number == newest:
            found.append(f"step {last.step} committed: from here on the newest")
        elif last.number == commit.number:
            found.append("from here on the newest again")
    if entry.kind == "claim":
        found.append(f"another attempt claimed the vault (token {entry.token})")
    if entry.kind == "finish" and now is not None:
        found.append(f"the run finished at step {entry.state.finished}")
    return found
