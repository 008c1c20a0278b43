"""Why a writer may write no more, in words. Pure."""

from __future__ import annotations

from vaultlayer_hf.vault.log.archive import archived_as, taken_back
from vaultlayer_hf.vault.log.entry import Entry


def who_claimed(entry: Entry, ours: int) -> str:
    """Return in words who has taken the vault from the claim ``ours``: ``entry`` is of a newer one."""
    if (name := archived_as(entry.detail)) is not None:
        return (
            f"what it holds was archived as {name} (log entry {entry.number}), so this run ends: the next start "
            "begins at step 0, and `vl archive --undo` takes that back"
        )
    if (name := taken_back(entry.detail)) is not None:
        return f"{name} was taken back (log entry {entry.number}), so this run ends: the next start goes on from there"
    return (
        f"another process claimed this vault (log entry {entry.state.token}, later than ours, {ours}) "
        "and goes on with the run (if both were meant to train, give each a vault of its own)"
    )
