"""What is remembered of the attempts before, of each vault that the program has trained into. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


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
        reached: ``furthest`` and ``committed`` of the other vaults that the program has trained into.
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
    reached: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def about(self, vault: str) -> RestartHistory:
        """Return the history as it is about a vault: a program that trains several times counts in each anew."""
        if not vault or vault == self.vault:
            return self
        if not self.vault:
            return replace(self, vault=vault)
        reached = {**self.reached, self.vault: (self.furthest, self.committed)}
        furthest, committed = reached.pop(vault, (0, 0))
        return replace(
            self,
            vault=vault,
            reached=reached,
            furthest=furthest,
            committed=committed,
            walks=0,
            bad=None,
            at=None,
        )
