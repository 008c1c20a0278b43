"""Which local checkpoint folders may be deleted after a full disk. Pure: what lies there in, what goes out.

Deleted are folders that a save has left torn, and committed ones that local retention wouldn't keep. Never: the newest
whole one of this disk, committed or not; one of which nobody can tell whether it is whole; one that only this disk has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.retention.policy import Policy, decide_retention


@dataclass(frozen=True)
class Deletion:
    """A checkpoint folder that goes.

    Attributes:
        step: its step.
        reason: why, as half a sentence.
    """

    step: int
    reason: str


def decide_deletions(lacking: Mapping[int, Sequence[str] | None], state: VaultState | None) -> list[Deletion]:
    """Return what may be deleted, lowest step first.

    Args:
        lacking: by step, what a folder lacks for a resume, as the seam that wrote it says; None: it can't be told.
        state: the vault's; None where there is none, or it can't be read now.
    """
    commits = state.commits if state is not None else ()
    told = [set(items) for items in lacking.values() if items is not None]
    # What every folder lacks is how this program saves (save_only_model, say) and no sign of a torn one. A commit shows
    # that its saves are whole otherwise: only whole ones are committed.
    usual = set.intersection(*told) if told and not commits else set()
    torn = {step: sorted(set(items) - usual) for step, items in lacking.items() if items is not None}
    newest_whole = max((step for step, items in torn.items() if not items), default=None)
    found = {step: f"it lacks {', '.join(items)}" for step, items in torn.items() if items}
    if state is not None:
        newest = {commit.step: commit for commit in commits}
        here = [commit for commit in newest.values() if commit.step in lacking]
        for item in decide_retention(here, Policy(last=1), best_step=state.best_step, protected=set()):
            if not item.keep and item.commit.step != newest_whole:
                found.setdefault(item.commit.step, "the vault has it, and a newer one")
    return [Deletion(step, found[step]) for step in sorted(found)]
