"""What is remembered of the attempts before, of each vault that the program has trained into. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Reached:
    """How far the attempts have come in one vault.

    Attributes:
        furthest: the highest step trained.
        committed: the highest committed step.
    """

    furthest: int = 0
    committed: int = 0


@dataclass(frozen=True)
class RestartHistory:
    """What is remembered of the attempts before.

    Attributes:
        trained: one of them trained a step, or would have, had no rank of another node gone.
        furthest: the highest step trained.
        committed: the highest committed step.
        stuck: attempts in a row without progress.
        same: how often in a row the last error has ended the last step.
        last: that error's type and step.
        walks: walks back in a row.
        bad: the step at which the loss was nan or inf.
        divide: micro-batches are divided by this.
        at: the step to go on from instead of the newest checkpoint.
        tight: the disk was full once.
        aside: output folders are put aside ahead of each attempt.
        vault: the one that ``furthest``, ``committed``, ``walks``, ``bad`` and ``at`` are about; ``""``: not known yet.
        others: how far the attempts have come in the other vaults that the program has trained into.
    """

    trained: bool = False
    furthest: int = 0
    committed: int = 0
    stuck: int = 0
    same: int = 0
    last: tuple[str, int | None] = ("", None)
    walks: int = 0
    bad: int | None = None
    divide: int = 1
    at: int | None = None
    tight: bool = False
    aside: bool = False
    vault: str = ""
    others: Mapping[str, Reached] = field(default_factory=dict)

    def for_vault(self, vault: str) -> RestartHistory:
        """Return the history that counts for a death in ``vault``, ``""``: it isn't known in which.

        A program that trains several times has a vault for each training, and begins in each at step 0: what was
        reached in the others is set aside, and a walk back in one of them is over.
        """
        if vault in ("", self.vault):
            return self
        if not self.vault:  # the first one that is known: what was counted so far is about it
            return replace(self, vault=vault)
        others = {**self.others, self.vault: Reached(self.furthest, self.committed)}
        here = others.pop(vault, Reached())
        return replace(
            self,
            vault=vault,
            others=others,
            furthest=here.furthest,
            committed=here.committed,
            walks=0,
            bad=None,
            at=None,
        )
