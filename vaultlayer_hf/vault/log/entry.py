"""Entries of the log and the state after each: pure data and pure transitions.

Each entry carries the whole state after it (newest token, live checkpoints, what is being deleted), so that
reading the last entry is enough, however long the log is. An entry ends in a digest of itself, so a damaged
one is recognised and never half-believed.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from vaultlayer_hf.base.digest import digest_bytes, is_digest
from vaultlayer_hf.errors import CorruptError, VaultLayerError
from vaultlayer_hf.vault.keys import split_folder
from vaultlayer_hf.vault.parse import FORMAT_VERSION, Fields, dump, has_bad_character, load
from vaultlayer_hf.vault.signature import FIELD, keys

Kind = Literal["claim", "commit", "retire", "finish", "pin"]
KINDS = ("claim", "commit", "retire", "finish", "pin")
ENTRY_LIMIT = 16 * 2**20
"""Bytes: the largest entry that is read."""
_MANY = 100_000
_SIGNED = "log entry"
"""What an entry is signed as."""
_VAULT_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed checkpoint, as the log vouches for it.

    Attributes:
        number: number of the log entry that committed it; the order of commits is the order of numbers.
        token: fencing token of its writer.
        seq: position among the saves of that writer, from 1.
        step: global step.
        folder: key prefix of its folder.
        time: when it was committed, ISO 8601 in UTC by the writer's clock; for people, never for decisions.
        bytes: size of its files together.
        files: how many files.
        manifest: digest of its manifest.
        manifest_size: bytes of its manifest.
        pinned: kept whatever the retention policy says.
        left_behind: the run went on from an older checkpoint, so this one isn't on its way any more. In an entry the
            field is called ``abandoned``, which elsewhere means an upload that was never committed.
        archived: name of the archive that it was put into (archive.py); empty for none, and then not written.
    """

    number: int
    token: int
    seq: int
    step: int
    folder: str
    time: str
    bytes: int
    files: int
    manifest: str
    manifest_size: int
    pinned: bool = False
    left_behind: bool = False
    archived: str = ""

    @property
    def name(self) -> str:
        """The folder's own name, such as ``checkpoint-500``."""
        return self.folder.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class VaultState:
    """The state of a vault after an entry.

    Attributes:
        vault_id: write id of entry 1: two vaults that ever lay at one URI differ in it.
        token: the newest claim's number; only its holder may commit.
        commits: live checkpoints, oldest first.
        retiring: folders that are retired and perhaps not deleted yet.
        best_step: step of the best checkpoint that the Trainer named last, or None.
        finished: step at which the run ended, or None while it hasn't.
        metrics: the figures it ended with; empty while it hasn't.
    """

    vault_id: str
    token: int
    commits: tuple[Commit, ...] = ()
    retiring: tuple[str, ...] = ()
    best_step: int | None = None
    finished: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def origin(self, number: int | None) -> Commit | None:
        """Return the commit of entry ``number``; where it is retired the newest live one before it, or None."""
        return next((commit for commit in reversed(self.commits) if commit.number <= (number or 0)), None)

    @property
    def newest(self) -> Commit | None:
        """The checkpoint to resume from, if its content verifies."""
        return next((commit for commit in reversed(self.commits) if not commit.left_behind), None)

    def claimed(self, token: int) -> VaultState:
        """Return the state after a claim."""
        return replace(self, token=token)

    def committed(self, commit: Commit, *, resumed_from: int | None, best_step: int | None) -> VaultState:
        """Return the state after a commit.

        ``resumed_from`` is the number of the commit this run went on from: live commits after it that
        are another writer's are off the run's way from now on, and it is on it, whatever it was before.
        None: the run began at step 0.
        """
        origin = resumed_from or 0

        def off_the_way(old: Commit) -> bool:
            if old.number == origin:
                return False
            return old.left_behind or (old.number > origin and old.token != commit.token)

        commits = tuple(replace(old, left_behind=off_the_way(old)) for old in self.commits)
        return replace(self, commits=(*commits, commit), best_step=best_step, finished=None, metrics={})

    def done(self, step: int, metrics: dict[str, float]) -> VaultState:
        """Return the state after the run has ended at ``step`` with these figures; infinite ones are left out."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        return replace(self, finished=step, metrics=finite)

    def retired(self, numbers: set[int]) -> VaultState:
        """Return the state after checkpoints were taken out of the log's care; pinned ones stay."""
        gone = tuple(commit for commit in self.commits if commit.number in numbers and not commit.pinned)
        left = tuple(commit for commit in self.commits if commit not in gone)
        return replace(self, commits=left, retiring=(*self.retiring, *(commit.folder for commit in gone)))

    def pinned(self, number: int, pinned: bool) -> VaultState:
        """Return the state after the checkpoint of entry ``number`` was pinned, or let go."""
        commits = (
            replace(commit, pinned=pinned) if commit.number == number else commit for commit in self.commits
        )
        return replace(self, commits=tuple(commits))

    def deleted(self, folders: set[str]) -> VaultState:
        """Return the state after retired folders are known to be gone."""
        return replace(self, retiring=tuple(folder for folder in self.retiring if folder not in folders))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log.

    Attributes:
        number: its place, from 1.
        kind: ``claim``, ``commit``, ``retire``, ``finish`` or ``pin``.
        write_id: UUID of the attempt that created it, by which a writer knows its own after a lost response.
        token: token of the writer (for a claim: the entry's own number; for a pin: that of the newest claim).
        time: ISO 8601 in UTC, for people.
        detail: what else the entry says; for people and reports.
        state: the state after it.
        signed: whether it was read with a signature, which is checked where a key is set.
    """

    number: int
    kind: Kind
    write_id: str
    token: int
    time: str
    detail: dict[str, Any]
    state: VaultState
    signed: bool = False


def encode_entry(entry: Entry) -> bytes:
    """Return the entry's bytes, its own digest included, and a signature where a key is set.

    Raises VaultLayerError where they are too many, SettingsError where the key is one to read with.
    """
    body = {"format_version": FORMAT_VERSION, **asdict(entry)}
    del body["signed"]
    for commit in body["state"]["commits"]:
        commit["abandoned"] = commit.pop("left_behind")
        if not commit["archived"]:
            del commit["archived"]
    if (found := keys()) is not None:
        body[FIELD] = found.sign(_SIGNED, dump(body))
    data = dump({**body, "check": digest_bytes(dump(body))})
    if len(data) > ENTRY_LIMIT:  # it could never be read again
        raise VaultLayerError(
            f"log entry {entry.number} would have {len(data)} bytes for {len(entry.state.commits)} live checkpoints, "
            f"and {ENTRY_LIMIT} are allowed: keep fewer (keep_last)"
        )
    return data


def decode_entry(data: bytes, number: int, *, keyed: bool = True) -> Entry:
    """Parse and check an entry, its signature too where a key is set and the vault is ``keyed``.

    Raises CorruptError, FormatVersionError, SignatureError.
    """
    what = f"log entry {number}"
    fields = load(data, what)
    body = fields.values
    check = body.pop("check", None)
    try:
        sound = check == digest_bytes(dump(body))
    except (ValueError, RecursionError):  # NaN, a lone surrogate: nothing that we ever write
        sound = False
    if not sound:
        raise CorruptError(f"{what}: its content doesn't match its own digest")
    signature = body.pop(FIELD, None)
    if keyed and (found := keys()) is not None:
        found.check(_SIGNED, dump(body), signature, what)
    kind = fields.text("kind", limit=32)
    if kind not in KINDS or fields.whole("number", low=1) != number:
        raise CorruptError(f"{what}: unknown kind, or another entry's number")
    entry = Entry(
        number=number,
        kind=cast(Kind, kind),
        write_id=fields.text("write_id", limit=64),
        token=fields.whole("token", low=1),
        time=fields.text("time", limit=64),
        detail=fields.mapping("detail"),
        state=_state(Fields(fields.get("state"), what), number, what),
        signed=signature is not None,
    )
    _check_fits(entry, what)
    return entry


def _check_fits(entry: Entry, what: str) -> None:
    """Refuse an entry whose kind, token and state don't belong together: no writer makes one, readers rely on it."""
    claims = entry.kind == "claim"
    if (
        entry.token != entry.state.token
        or (entry.token == entry.number) != claims
        or entry.token > entry.number
    ):
        raise CorruptError(f"{what}: its token isn't that of the newest claim")
    last = entry.state.commits[-1] if entry.state.commits else None
    if entry.kind == "commit" and (last is None or (last.number, last.token) != (entry.number, entry.token)):
        raise CorruptError(f"{what}: it is a commit, and its state lacks it")
    if entry.kind == "finish" and entry.state.finished is None:
        raise CorruptError(f"{what}: it is the end of a run, and its state has none")


def _state(fields: Fields, number: int, what: str) -> VaultState:
    vault_id = fields.text("vault_id", limit=64)
    if _VAULT_ID.fullmatch(vault_id) is None:  # it names a local folder
        raise CorruptError(f"{what}: the vault's id is malformed")
    commits = tuple(_commit(Fields(item, what), what) for item in fields.items("commits", limit=_MANY))
    order = [commit.number for commit in commits]
    if order != sorted(set(order)) or (order and order[-1] > number):
        raise CorruptError(f"{what}: its commits are not in the log's order")
    retiring = fields.items("retiring", limit=_MANY)
    if not all(isinstance(folder, str) and split_folder(folder) for folder in retiring):
        raise CorruptError(f"{what}: a retired folder lies outside data/")
    return VaultState(
        vault_id=vault_id,
        token=fields.whole("token", low=1),
        commits=commits,
        retiring=tuple(retiring),
        best_step=fields.optional_whole("best_step"),
        finished=fields.optional_whole("finished"),
        metrics=_metrics(fields.mapping("metrics"), what),
    )


def _metrics(value: dict[str, Any], what: str) -> dict[str, float]:
    try:
        return {
            name: float(number)
            for name, number in value.items()
            if isinstance(number, (int, float))
            and not isinstance(number, bool)
            and not has_bad_character(name)
        }
    except OverflowError as error:
        raise CorruptError(f"{what}: a figure is out of range") from error


def _commit(fields: Fields, what: str) -> Commit:
    folder, manifest = fields.text("folder"), fields.text("manifest", limit=128)
    token = fields.whole("token", low=1)
    place = split_folder(folder)
    if place is None or place[0] != token or not is_digest(manifest):
        raise CorruptError(f"{what}: a checkpoint's folder or manifest digest is malformed")
    return Commit(
        number=fields.whole("number", low=1),
        token=token,
        seq=fields.whole("seq", low=1),
        step=fields.whole("step"),
        folder=folder,
        time=fields.text("time", limit=64),
        bytes=fields.whole("bytes"),
        files=fields.whole("files", low=1),
        manifest=manifest,
        manifest_size=fields.whole("manifest_size", low=1),
        pinned=fields.flag("pinned"),
        left_behind=fields.flag("abandoned"),
        archived="" if fields.get("archived") is None else fields.text("archived", limit=64),
    )
