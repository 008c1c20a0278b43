"""Starting over: what an archive does to the state, and what its claim notes. Pure.

An archive is a claim, so that whoever writes to the vault is fenced, and what that writer has left on its disk isn't
adopted. Its state leaves every checkpoint behind, so that there is none to go on from, and pins it, so that no release
retires it: one that knows nothing of archives reads such a vault, and begins anew as well. The claim's detail notes how
it was before. No object is moved or copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vaultlayer_hf.errors import NoSuchCheckpointError, SettingsError
from vaultlayer_hf.vault.log.entry import Commit, Entry, VaultState

ARCHIVE, UNDO = "archive", "unarchive"
"""Names in a claim's detail: the archive that it made (its name, and how it was before); the name of one that it took
back."""
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


def archived_as(detail: dict[str, Any]) -> str | None:
    """Return the name of the archive that a claim has made; None for any other entry."""
    said = detail.get(ARCHIVE)
    return said["name"] if isinstance(said, dict) and isinstance(said.get("name"), str) else None


def taken_back(detail: dict[str, Any]) -> str | None:
    """Return the name of the archive that a claim has taken back; None for any other entry."""
    said = detail.get(UNDO)
    return said if isinstance(said, str) else None


def since_archive(history: Iterable[Entry]) -> list[Entry]:
    """Return the entries of the run that the vault holds now: those behind the last archive that stands."""
    found: list[Entry] = []
    before: dict[str, list[Entry]] = {}
    for entry in history:
        name, back = archived_as(entry.detail), taken_back(entry.detail)
        if name is not None:
            before[name], found = found, []
        elif back is not None:
            found = before.pop(back, []) + found
        else:
            found.append(entry)
    return found


def in_archive(commit: Commit) -> bool:
    """Tell whether a commit lies in an archive now: one that was taken back keeps the archive's name."""
    return commit.left_behind and bool(commit.archived)


def of_step(commits: Iterable[Commit], step: int | None) -> list[Commit]:
    """Return the commits of a step, the one that is meant by it first: the newest, and any before an archived one.

    An archived run may be the newer one, once an older run was taken back: then the run's own checkpoint is meant.
    """
    same = [commit for commit in commits if commit.step == step]
    return sorted(same, key=lambda commit: (in_archive(commit), -commit.number))


def archive(state: VaultState, name: str | None, token: int, uri: str) -> tuple[VaultState, dict[str, Any]]:
    """Return the state in which all that the vault holds is archived, and what the claim ``token`` notes.

    ``name``: None for ``archive-1``, ``archive-2``, … Raises SettingsError where it is taken or malformed,
    NoSuchCheckpointError where there is nothing to archive.
    """
    fresh = [commit for commit in state.commits if not in_archive(commit)]
    if not fresh:
        raise NoSuchCheckpointError(
            f"{uri} holds no checkpoint that isn't archived already: the next start begins at step 0 as it is"
        )
    taken = {commit.archived for commit in state.commits}
    if name is None:
        name = next(
            found for number in range(1, len(taken) + 2) if (found := f"archive-{number}") not in taken
        )
    if _NAME.fullmatch(name) is None:
        raise SettingsError(f"an archive's name has up to 64 letters, digits, '.', '_' and '-', not {name!r}")
    if name in taken:
        raise SettingsError(f"{uri} has an archive {name!r} already: name another one")
    detail = {
        "name": name,
        "commits": {
            str(commit.number): {"pinned": commit.pinned, "left_behind": commit.left_behind}
            for commit in fresh
        },
        "best_step": state.best_step,
        "finished": state.finished,
        "metrics": state.metrics,
    }
    numbers = {commit.number for commit in fresh}
    commits = tuple(
        replace(commit, archived=name, pinned=True, left_behind=True) if commit.number in numbers else commit
        for commit in state.commits
    )
    after = replace(state, token=token, commits=commits, best_step=None, finished=None, metrics={})
    return after, {ARCHIVE: detail}


def find_archive(history: Iterable[Entry], name: str | None, uri: str) -> Entry:
    """Return the claim that made an archive which stands; without a name, the newest. Raises NoSuchCheckpointError."""
    standing: dict[str, Entry] = {}
    for entry in history:
        made, back = archived_as(entry.detail), taken_back(entry.detail)
        if made is not None:
            standing.pop(made, None)
            standing[made] = entry
        elif back is not None:
            standing.pop(back, None)
    found = standing.get(name) if name is not None else next(reversed(standing.values()), None)
    if found is None:
        what = f"{uri} has no archive" + (f" {name!r}" if name else "")
        raise NoSuchCheckpointError(
            what + (f"; it has: {', '.join(standing)}" if standing else " to take back")
        )
    return found


def take_back(state: VaultState, made: Entry, token: int, uri: str) -> tuple[VaultState, dict[str, Any]]:
    """Return the state in which an archive's checkpoints are the run's again, and what the claim ``token`` notes.

    ``made``: the claim that made the archive. Raises SettingsError where a run has begun since and has committed: two
    runs' checkpoints aren't mixed.
    """
    name, said = str(archived_as(made.detail)), made.detail[ARCHIVE]
    if state.newest is not None:
        raise SettingsError(
            f"{uri}: a run has begun since {name} was archived, and has committed step {state.newest.step}: archive "
            f"it, too, then take {name} back: `vl archive {uri}`, then `vl archive {uri} --undo --name {name}`"
        )
    noted = said.get("commits")
    before: dict[str, Any] = noted if isinstance(noted, dict) else {}
    commits = []
    for commit in state.commits:
        was = before.get(str(commit.number))
        if isinstance(was, dict):
            left, pinned = was.get("left_behind") is True, was.get("pinned") is True
            commit = replace(commit, archived="", pinned=pinned, left_behind=left)
        commits.append(commit)
    best, finished, metrics = said.get("best_step"), said.get("finished"), said.get("metrics")
    figures = metrics if isinstance(metrics, dict) else {}
    after = replace(
        state,
        token=token,
        commits=tuple(commits),
        best_step=best if type(best) is int else None,
        finished=finished if type(finished) is int else None,
        metrics={key: float(value) for key, value in figures.items() if type(value) in (int, float)},
    )
    return after, {UNDO: name}
