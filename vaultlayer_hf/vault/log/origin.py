"""Where a run began that is a fork of another one: what the log says of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vaultlayer_hf.vault.log.archive import archived_as
from vaultlayer_hf.vault.log.entry import Commit, Entry

FORK = "fork"
"""Name in a claim's detail: uri, step, log entry (number) and vault_id of the checkpoint that its run began from."""
BEST = "best"
"""Name in that: whether the checkpoint was asked for as the best one. Releases before 0.2.0 don't note it."""


def forked_from(detail: dict[str, Any]) -> str | None:
    """Return in words which checkpoint a claim has begun from as a fork; None for any other claim."""
    fork = detail.get(FORK)
    if (
        not isinstance(fork, dict)
        or not isinstance(fork.get("uri"), str)
        or type(fork.get("step")) is not int
    ):
        return None
    return f"{fork['uri']}@{fork['step']}"


def fork_of(history: Iterable[Entry], commit: Commit) -> Entry | None:
    """Return the claim by which the run of a commit began as a fork; None where it didn't.

    A vault is forked into only while it holds no checkpoint, or all are archived, so the last such claim ahead of its
    run's first commit counts.
    """
    found, begun = None, False
    for entry in history:
        if entry.number > commit.number:
            break
        if archived_as(entry.detail) is not None:
            found, begun = None, False
        elif entry.kind == "claim" and not begun and forked_from(entry.detail) is not None:
            found = entry
        begun = begun or entry.kind == "commit"
    return found
