"""The log: numbered entries by create-if-absent. This file carries out the commit protocol.

Invariants, true at every instant, after a power cut too:

1. Entry n+1 is created only by create-if-absent, and only by a writer that has read entry n. Numbers never
   repeat and never fall; entries are never changed or deleted (a freed number could be won by a zombie).
2. A writer first appends a claim. That entry's number is its fencing token; it writes data only under
   ``data/<token>/``, so two attempts can never touch the same object.
3. A commit is appended only when every file that its manifest lists is durable. Data first, then what
   refers to it; readers go the opposite way.
4. Losing a create means reading that entry. Own write id: it was won, the response was lost. A claim by
   another: fenced, for good. An entry of a newer format: fenced too. What it says can't be read, and this release
   can't carry on a state that it doesn't know; only a newer one has written it. Anything else: go on behind it.
5. Age is decided by the log's order, never by clocks, never by the step alone.
6. Retirement is an entry first, deletion after.
7. Reading needs no write permission.
8. A store that lacks create-if-absent is used by one writer at a time: ``probe_create`` finds out.
9. A pin is the one entry that needs no claim: see pin.py. Its token is that of the newest claim, so its
   presence fences nobody, and the writer that meets it goes on behind it with the state that it carries.

A vault may be deleted by a person while a run is alive, and claimed anew: numbers and tokens then begin again,
and a zombie's would fit. So every entry names its vault (``vault_id``), and a writer looks whether its own
last entry is still there before it uploads and before it appends.

Must (data loss otherwise): 1 to 6. Should (repairable): the hint, which only saves listing.

Rejected: a lease with expiry (pauses and clock drift break it); a ``latest`` pointer (at best a hint);
the step as the order (a zombie's higher step would win); rename as commit (object stores copy and delete).
"""

from __future__ import annotations

import json
import os
import platform
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from vaultlayer_hf.base.versions import __version__
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    CorruptError,
    FencedError,
    FormatVersionError,
    ObjectNotFoundError,
    SignatureError,
    StoreError,
)
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import HINT, LOG, entry_key, entry_number
from vaultlayer_hf.vault.log.ahead import unreadable_end
from vaultlayer_hf.vault.log.entry import ENTRY_LIMIT, Entry, Kind, VaultState, decode_entry, encode_entry
from vaultlayer_hf.vault.log.fence import who_claimed
from vaultlayer_hf.vault.signature import check_may_write, of_another_key

_HINT_EVERY = 100
"""Entries between two hints. A listing page holds 1000 keys, so a hint that is this stale costs nothing."""
_DAMAGED_LIMIT = 64
"""How many damaged entries in a row are stepped over before the log counts as lost."""


def now() -> str:
    """Return the time for an entry: ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Log:
    """Reads a vault's log; needs no write permission. ``keyed``: where a key is set, entries must be signed by it."""

    def __init__(
        self, store: Store, on_damage: Callable[[str], None] = lambda reason: None, *, keyed: bool = True
    ) -> None:
        self._store, self._keyed, self._on_damage = store, keyed, on_damage

    def read(self, number: int) -> Entry:
        """Return entry ``number``. Raises ObjectNotFoundError, CorruptError, FormatVersionError, StoreError."""
        try:
            data = self._store.read(entry_key(number), limit=ENTRY_LIMIT)
        except StoreError as error:
            if type(error) is StoreError:  # larger than any entry
                raise CorruptError(f"log entry {number}: {error.reason}") from error
            raise
        return decode_entry(data, number, keyed=self._keyed)

    def last(self) -> tuple[int, Entry | None]:
        """Return the number of the last entry (0: empty vault) and the newest entry that is whole.

        The two differ where the end of the log is damaged: the state is then that of the entry before,
        which is said through ``on_damage``. Requests: one for the hint, one listing, one for the entry.

        Raises CorruptError where entries exist and none is readable; FormatVersionError; StoreError.
        """
        number = self.last_number()
        if number == 0:
            return 0, None
        foreign: SignatureError | None = None
        for candidate in range(number, max(0, number - _DAMAGED_LIMIT), -1):
            try:
                return number, self.read(candidate)
            except FormatVersionError:
                raise
            except (CorruptError, ObjectNotFoundError) as error:
                foreign = error if isinstance(error, SignatureError) else foreign
                self._on_damage(f"{error}; going back to the entry before it")
        if foreign is not None:
            raise of_another_key(self._store.uri, foreign)
        raise unreadable_end(self._store, number, _DAMAGED_LIMIT)

    def last_number(self) -> int:
        """Return the number of the last entry, whatever it holds; 0: the vault is empty. Raises StoreError."""
        hint = self._hint()
        number = self._highest_after(hint - 1) if hint > 1 else 0
        return number or self._highest_after(0)

    def _highest_after(self, number: int) -> int:
        after = entry_key(number) if number > 0 else ""
        highest = 0
        for item in self._store.list(LOG, after=after):
            highest = max(highest, entry_number(item.key) or 0)
        return highest

    def _hint(self) -> int:
        try:
            value = json.loads(self._store.read(HINT, limit=4096))
            number = value["number"]
        except (StoreError, ValueError, KeyError, TypeError, RecursionError):
            return 0
        return number if isinstance(number, int) and 0 < number < 10**18 else 0


class Writer:
    """Holds a claim on a vault and appends entries under it. Safe to call from several threads.

    Made by ``claim``. After FencedError every further append raises it again.
    """

    def __init__(self, store: Store, entry: Entry) -> None:
        self._store = store
        self._last = entry
        self._lock = threading.Lock()
        self._fenced: str | None = None
        self.token = entry.number

    @property
    def state(self) -> VaultState:
        """The state after the last entry that this writer has read or written."""
        return self._last.state

    @classmethod
    def claim(
        cls,
        store: Store,
        log: Log,
        detail: dict[str, Any] | None = None,
        *,
        seen: tuple[int, Entry | None] | None = None,
    ) -> tuple[Writer, Entry | None]:
        """Take the vault: append a claim behind the last entry, however many racing writers there are.

        Returns the writer and the entry that was the newest before the claim (None: the vault was empty).
        ``seen`` is what ``log.last()`` returned just before, to save the requests. Raises StoreError.
        """
        write_id = uuid.uuid4().hex
        number, before = log.last() if seen is None else seen
        check_may_write(before is not None and before.signed, store.uri)
        while True:
            mine = number + 1
            state = before.state.claimed(mine) if before else VaultState(vault_id=write_id, token=mine)
            entry = Entry(mine, "claim", write_id, mine, now(), {**who(), **(detail or {})}, state)
            try:
                store.create(entry_key(mine), encode_entry(entry))
            except AlreadyExistsError:
                found = read_whole(log, mine)
                if found is None or found.write_id != write_id:
                    number, before = mine, found or before
                    continue
            writer = cls(store, entry)
            writer._write_hint(entry.number)
            return writer, before

    def check(self, store: Store | None = None) -> None:
        """Make sure that the vault is the one that was claimed; worth a look before a long upload.

        Where it was emptied, and nobody has claimed it since, the checkpoints that are gone are forgotten.
        Raises FencedError where it was deleted and claimed anew; StoreError.
        """
        with self._lock:
            self._find_last(Log(store or self._store))

    def append(
        self,
        kind: Kind,
        change: Callable[[VaultState, int], VaultState],
        detail: dict[str, Any] | Callable[[VaultState], dict[str, Any]] | None = None,
        *,
        store: Store | None = None,
    ) -> Entry:
        """Append an entry behind the last one and return it.

        ``change`` gets the state before the entry and the entry's number, and returns the state after; it
        may be called again where an entry of this writer, or a pin, was found in the place. So may ``detail``
        where it is a function of the state before.
        ``store`` is the same vault's, with another patience than the one that was claimed with.

        Raises FencedError where a newer claim exists, or an entry of a newer format; StoreError where the store is
        in trouble, the outcome then being unknown until the next call, and where the vault was emptied meanwhile.
        """
        write_id = uuid.uuid4().hex
        store = store or self._store
        log = Log(store)
        with self._lock:
            if not self._find_last(log):
                key = entry_key(self._last.number)
                raise StoreError("append", key, "the vault was emptied meanwhile, and with it what was sent")
            while True:
                number = self._last.number + 1
                state = change(self._last.state, number)
                said = detail(self._last.state) if callable(detail) else detail or {}
                entry = Entry(number, kind, write_id, self.token, now(), said, state)
                try:
                    store.create(entry_key(number), encode_entry(entry))
                except AlreadyExistsError:
                    found = self._met(log, number)
                    if found is not None and found.state.vault_id != state.vault_id:
                        self._find_last(log)  # ours is there: a zombie of a deleted vault left this one
                        found = None
                    if found is None:
                        self._last = replace(self._last, number=number, write_id="")
                        continue
                    self._check_fence(found)
                    self._last = found
                    if found.write_id != write_id:
                        continue
                    entry = found
                self._last = entry
                if number % _HINT_EVERY == 0:
                    self._write_hint(number)
                return entry

    def _find_last(self, log: Log) -> bool:
        """Look for the entry that the next one goes behind; False: the vault was emptied. Raises FencedError."""
        if self._fenced is not None:
            raise FencedError(self._fenced)
        if not self._last.write_id:  # not readable when it was met
            return True
        try:
            found = self._met(log, self._last.number)
            if found is None or found.write_id == self._last.write_id:
                return True
        except ObjectNotFoundError:
            if log.last_number() == 0:
                gone = replace(self._last.state, commits=(), retiring=())
                self._last = replace(self._last, write_id="", state=gone)
                return False
        raise self._fence("this vault was deleted while this process was writing to it, and claimed anew")

    def _met(self, log: Log, number: int) -> Entry | None:
        """Return an entry as ``read_whole`` does; one of a newer format is a fence. Raises FencedError, StoreError."""
        try:
            return read_whole(log, number)
        except FormatVersionError as error:
            raise self._fence(
                f"a newer vaultlayer-hf has taken this vault (log entry {number} is of a format that version "
                f"{__version__} doesn't know)"
            ) from error

    def _check_fence(self, entry: Entry) -> None:
        if entry.state.token != self.token:
            raise self._fence(who_claimed(entry, self.token))

    def _fence(self, reason: str) -> FencedError:
        self._fenced = f"{self._store.uri}: {reason}; what this process saves from now on doesn't count"
        return FencedError(self._fenced)

    def _write_hint(self, number: int) -> None:
        try:
            self._store.write(HINT, json.dumps({"number": number}).encode())
        except StoreError:
            pass  # the hint only saves listing


def read_whole(log: Log, number: int) -> Entry | None:
    """Return an entry, or None where it is damaged: its number is taken, it says nothing."""
    try:
        return log.read(number)
    except FormatVersionError:
        raise
    except CorruptError:
        return None


def who() -> dict[str, Any]:
    """Return what an entry says of the process that wrote it; for people."""
    return {"host": platform.node(), "pid": os.getpid(), "version": __version__}
