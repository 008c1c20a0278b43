"""Which trainings the attempts of a run hold: a script may train several times, one after the other. Pure.

A training is known by its vault. A ``train`` note says where one begins; what a rank has noted up to the next one on
another vault belongs to it. Steps begin anew with each training, so those of two aren't to be mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Note = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What one attempt has of one training.

    Attributes:
        vault: the training's URI; "" where its notes name none.
        notes: of rank 0, in order; with what it noted ahead of any training, where this is the first that trained.
        begin: seconds since the epoch; None: it began with its attempt.
        end: when the script was through with it and went on to another training; None where none followed.
    """

    vault: str
    notes: tuple[Note, ...]
    begin: float | None = None
    end: float | None = None

    @property
    def over(self) -> bool:
        """Whether the training has come to its end here."""
        return is_over(self.notes)

    @property
    def passed(self) -> bool:
        """Whether the training was over before, so that this attempt trained no step of it."""
        kinds = {note["kind"] for note in self.notes}
        return not kinds & {"first-step", "log"} and any(
            note["kind"] == "vault" and note.get("event") == "finished" for note in self.notes
        )


def since_newest_training(notes: Sequence[Note]) -> Sequence[Note]:
    """Return what a rank has noted since its newest training began; all where none has begun."""
    begins = [number for number, note in enumerate(notes) if note["kind"] == "train"]
    return notes[begins[-1] :] if begins else notes


def is_over(notes: Iterable[Note]) -> bool:
    """Tell whether the newest training of a rank has come to its end, from its notes.

    ``train()`` also returns where a script's own callback has stopped it: its note says which it was.
    """
    over = False
    for note in notes:
        if note["kind"] == "train":
            over = False
        elif note["kind"] == "trained":
            over = over or bool(note.get("over", True))
        elif note["kind"] == "vault":
            over = over or note.get("event") in ("finish", "finished")
    return over


def parts_of(notes: Sequence[Note]) -> list[Part]:
    """Return the trainings of one attempt, in order, from the notes of its rank 0."""
    found: list[tuple[str, int]] = []  # each with the number of its first note
    before = 0
    for number, note in enumerate(notes):
        if note["kind"] != "train":
            continue
        vault = str(note.get("vault") or "")
        if not found or found[-1][0] != vault:
            # Its vault is claimed ahead of it, and behind all that was noted of the training before.
            claims = [
                one
                for one in range(before, number)
                if notes[one]["kind"] == "vault" and notes[one].get("event") == "claim"
            ]
            found.append((vault, claims[-1] if claims else number))
        before = number
    parts: list[Part] = []
    ends = [*(first for _, first in found), len(notes)][1:]
    for (vault, first), end in zip(found, ends, strict=True):
        mine = tuple(notes[first:end])
        earliest = all(part.passed for part in parts)
        done = [note["time"] for note in mine if note["kind"] == "trained" and note.get("time")]
        until = (done[-1] if done else notes[end].get("time")) if end < len(notes) else None
        head = tuple(notes[: found[0][1]]) if earliest else ()
        parts.append(Part(vault, head + mine, None if earliest else notes[first].get("time"), until))
    return parts


def newest_of(attempts: Sequence[Sequence[Part]]) -> str | None:
    """Return the vault of the newest training; None where none has begun.

    One that was over before is passed by at each start, and is not what such a start is about.
    """
    parts = [part for attempt in attempts for part in attempt]
    trained = [part for part in parts if not part.passed]
    return (trained or parts)[-1].vault if parts else None


def of_training(attempts: Sequence[Sequence[Part]], vault: str | None) -> list[tuple[int, Part | None]]:
    """Return the attempts at one training, each by its place among all, with what it has of it.

    An attempt that ended before any training counts for the one that the next attempt began with.
    """
    found: list[tuple[int, Part | None]] = []
    following = newest_of(attempts)
    for place in reversed(range(len(attempts))):
        parts = attempts[place]
        mine = [part for part in parts if part.vault == vault]
        if mine:
            notes = tuple(note for part in mine for note in part.notes)
            found.append((place, Part(mine[0].vault, notes, mine[0].begin, mine[-1].end)))
        elif not parts and following == vault:
            found.append((place, None))
        following = next((part.vault for part in parts if not part.passed), following)
    return found[::-1]


def vaults_of(attempts: Sequence[Sequence[Part]]) -> list[str]:
    """Return the vault of each training, in the order in which they began."""
    return list(dict.fromkeys(part.vault for attempt in attempts for part in attempt))
