"""VaultModel: what a vault must be after any sequence of entries. Plain data, no store, no clock, no file.

It is the protocol written a second time, as short as it gets, to hold the real one against:

    model = VaultModel()
    token = model.claim()
    saved = model.commit(token, seq=1, step=100, folder=f"data/{token}/checkpoint-100", origin=None)
    model.newest == saved
    model.follow(entry, origin)          # the same from an entry of a real log
    model.difference(entry.state)        # "" where the real state is what it must be

What the protocol forbids raises ForbiddenError: a commit under a token that isn't the newest claim's, a
retirement of the newest checkpoint, of a pinned one or of the one that the run went on from.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from vaultlayer_hf.vault.log.archive import archived_as, taken_back
from vaultlayer_hf.vault.log.entry import Entry, VaultState


class ForbiddenError(Exception):
    """The protocol doesn't allow this step."""


@dataclass(frozen=True)
class Saved:
    """A committed checkpoint.

    Attributes:
        number: its entry's number.
        token: its writer's claim.
        seq: position among its writer's saves, from 1.
        step: global step.
        folder: where its files are in the vault.
        behind: whether the run went on from an older one, so that it isn't on its way any more.
        pinned: kept whatever happens.
        archived: name of the archive that it was put into; empty for none.
    """

    number: int
    token: int
    seq: int
    step: int
    folder: str
    behind: bool = False
    pinned: bool = False
    archived: str = ""


class VaultModel:
    """The state of one vault, changed by one entry at a time.

    Attributes:
        last: number of the last entry; 0 where the vault is empty.
        token: number of the newest claim; 0 where there is none.
        live: checkpoints that are committed and not retired, by number, oldest first.
        history: every checkpoint that was ever committed, by number.
        retired: numbers of those that are retired.
        condemned: folders that are retired and not yet known to be deleted, in the order of their retirement.
        finished: step at which the run ended, or None while it hasn't.
        archives: by name, what was archived as it was before, and ``finished`` then.
    """

    def __init__(self) -> None:
        self.last = 0
        self.token = 0
        self.live: dict[int, Saved] = {}
        self.history: dict[int, Saved] = {}
        self.retired: set[int] = set()
        self.condemned: list[str] = []
        self.finished: int | None = None
        self.archives: dict[str, tuple[dict[int, Saved], int | None]] = {}

    # What may happen -----------------------------------------------------------------------------------

    def claim(self) -> int:
        """Append a claim and return its token. Always allowed: whoever comes last has the vault."""
        self.last += 1
        self.token = self.last
        return self.token

    def archive(self, name: str) -> None:
        """Have the newest claim put all aside that isn't yet: off the run's way, and kept. Raises ForbiddenError."""
        fresh = {
            number: saved for number, saved in self.live.items() if not (saved.archived and saved.behind)
        }
        if not fresh or any(saved.archived == name for saved in self.live.values()):
            raise ForbiddenError(f"nothing can be archived as {name}")
        self.archives[name] = fresh, self.finished
        for number, saved in fresh.items():
            self.live[number] = replace(saved, behind=True, pinned=True, archived=name)
        self.finished = None

    def take_back(self, name: str) -> None:
        """Have the newest claim put an archive back as it was before. Raises ForbiddenError."""
        if self.newest is not None:
            raise ForbiddenError("another run has committed since")
        fresh, self.finished = self.archives.pop(name)
        back = {number: replace(saved, archived="") for number, saved in fresh.items() if number in self.live}
        self.live |= back

    def commit(self, token: int, *, seq: int, step: int, folder: str, origin: int | None) -> Saved:
        """Append a commit of a run that went on from the commit of entry ``origin``. Raises ForbiddenError."""
        self._check_holder(token, "commit")
        if any(folder == old.folder for old in self.history.values()):
            raise ForbiddenError(f"{folder} was committed before")
        self.last += 1
        for number, old in self.live.items():
            if number == (origin or 0):
                self.live[number] = replace(old, behind=False)
            elif number > (origin or 0) and old.token != token:
                self.live[number] = replace(old, behind=True)
        saved = Saved(self.last, token, seq, step, folder)
        self.live[self.last] = self.history[self.last] = saved
        self.finished = None
        return saved

    def retire(self, token: int, numbers: Collection[int], *, origin: int | None = None) -> None:
        """Append the retirement of these checkpoints. Raises ForbiddenError.

        Those that are retired already stay so: a writer that lost the answer says it twice.
        """
        self._check_holder(token, "retire")
        anew = sorted(set(numbers) - self.retired)
        for number in anew:
            saved = self.live.get(number)
            if saved is None:
                raise ForbiddenError(f"{number} was never committed")
            if saved == self.newest:
                raise ForbiddenError(f"{number} is the newest")
            if saved.pinned or number == origin:
                raise ForbiddenError(f"{number} is in use")
        self.last += 1
        for number in anew:
            self.condemned.append(self.live.pop(number).folder)
            self.retired.add(number)

    def forget(self, token: int, folders: Collection[str]) -> None:
        """Append the note that these retired folders are gone. Raises ForbiddenError."""
        self._check_holder(token, "forget")
        if not set(folders) <= set(self.condemned):
            raise ForbiddenError(f"{sorted(set(folders) - set(self.condemned))} weren't retired")
        self.last += 1
        self.condemned = [folder for folder in self.condemned if folder not in folders]

    def finish(self, token: int, step: int) -> None:
        """Append the end of the run at ``step``. Raises ForbiddenError."""
        self._check_holder(token, "finish")
        self.last += 1
        self.finished = step

    def pin(self, number: int, pinned: bool) -> None:
        """Append that a live checkpoint is kept, or no longer. Needs no claim. Raises ForbiddenError."""
        if number not in self.live:
            raise ForbiddenError(f"{number} isn't live")
        self.last += 1
        self.live[number] = replace(self.live[number], pinned=pinned)

    # What must hold ------------------------------------------------------------------------------------

    @property
    def newest(self) -> Saved | None:
        """The checkpoint that the next start goes on from, if its content is sound."""
        line = self.line
        return line[0] if line else None

    @property
    def line(self) -> list[Saved]:
        """The checkpoints that a start may go on from, in the order in which they are tried."""
        return [saved for _, saved in sorted(self.live.items(), reverse=True) if not saved.behind]

    def fenced(self, token: int) -> bool:
        """Whether a writer with this token must stop."""
        return token != self.token

    def last_of_dead_writer(self) -> Saved | None:
        """The newest checkpoint where the newest claim's writer has committed it; its local snapshots up to it
        are of no use."""
        newest = self.newest
        return newest if newest is not None and newest.token == self.token else None

    # A real vault against it ---------------------------------------------------------------------------

    def follow(self, entry: Entry, origin: int | None = None) -> None:
        """Take the step that an entry of a real log says, and check that it was allowed and says the right state.

        ``origin`` is the number of the commit that the entry's writer went on from. Raises ForbiddenError.
        """
        if entry.number != self.last + 1:
            raise ForbiddenError(f"entry {entry.number} follows {self.last}")
        if entry.kind == "claim":
            if entry.token != self.claim():
                raise ForbiddenError(f"claim {entry.number} has token {entry.token}")
            if (name := archived_as(entry.detail)) is not None:
                self.archive(name)
            elif (name := taken_back(entry.detail)) is not None:
                self.take_back(name)
        elif entry.kind == "commit":
            real = entry.state.commits[-1]
            self.commit(entry.token, seq=real.seq, step=real.step, folder=real.folder, origin=origin)
        elif entry.kind == "finish":
            self.finish(entry.token, entry.detail["step"])
        elif entry.kind == "pin":
            if self.fenced(entry.token):
                raise ForbiddenError(f"pin {entry.number} has token {entry.token}")
            self.pin(entry.detail["number"], entry.detail["pinned"])
        elif "retired" in entry.detail:
            self.retire(entry.token, [int(number) for number in entry.detail["retired"]], origin=origin)
        else:
            self.forget(entry.token, entry.detail["deleted"])
        if words := self.difference(entry.state):
            raise ForbiddenError(f"entry {entry.number} ({entry.kind}): {words}")

    def difference(self, state: VaultState) -> str:
        """Return in words how a real state differs from what it must be; empty where it doesn't."""
        real = [
            Saved(
                item.number,
                item.token,
                item.seq,
                item.step,
                item.folder,
                item.left_behind,
                item.pinned,
                item.archived,
            )
            for item in state.commits
        ]
        pairs: list[tuple[str, object, object]] = [
            ("token", self.token, state.token),
            ("live checkpoints", [saved for _, saved in sorted(self.live.items())], real),
            ("folders to delete", self.condemned, list(state.retiring)),
            ("finished", self.finished, state.finished),
        ]
        return "; ".join(
            f"{name} must be {must}, are {found}" for name, must, found in pairs if must != found
        )

    def _check_holder(self, token: int, what: str) -> None:
        if self.fenced(token):
            raise ForbiddenError(f"{what} under token {token}, and {self.token} has claimed the vault")
