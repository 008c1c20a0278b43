"""Getting at a vault at the start: open the store with patience, read the log, claim. Start-up errors are typed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import (
    SettingsError,
    StoreError,
    StoreFullError,
    VaultDeniedError,
    VaultLayerError,
    VaultUnreachableError,
)
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.stores.uri import VaultAddress, parse_vault
from vaultlayer_hf.vault.log.entry import Entry, VaultState
from vaultlayer_hf.vault.log.log import Log, Writer

_FRESH_CLAIM = 600.0
"""Seconds: a log whose last entry is younger may belong to a run that is alive."""


@dataclass(frozen=True)
class Claim:
    """What all ranks know of the claim.

    Attributes:
        token: the fencing token.
        vault_id: which vault this is.
        before: the state before the claim; None where the vault was empty.
    """

    token: int
    vault_id: str
    before: VaultState | None


class Access:
    """A vault's store, opened when it is first needed.

    Args:
        settings: options; ``settings.vault`` names the vault.
        events: where to tell what happens.
        store: the store to use instead of the one that the URI names; for tests and for special stores.
        create: make a folder that isn't there yet; not for a vault that is only read.

    Raises SettingsError (VaultUriError) for a vault that can't be meant.
    """

    def __init__(
        self, settings: Settings, events: Events, store: Store | None = None, *, create: bool = True
    ) -> None:
        if not settings.vault:
            raise SettingsError("no vault is named: give its URI, or set VAULTLAYER_VAULT")
        self.address: VaultAddress = parse_vault(settings.vault)
        self._settings = settings
        self._events = events
        self._bare = store
        self._create = create
        self._patient: Store | None = None

    @property
    def bare(self) -> Store:
        """The store without retries. Raises VaultUnreachableError, MissingExtraError."""
        if self._bare is None:
            try:
                self._bare = open_store(
                    self.address, upload_concurrency=self._settings.upload_concurrency, create=self._create
                )
            except StoreError as error:
                raise self.unreachable(error) from error
        return self._bare

    @property
    def store(self) -> Store:
        """The store with start-up patience. Raises VaultUnreachableError, MissingExtraError."""
        if self._patient is None:
            policy = RetryPolicy(deadline=self._settings.resume_timeout)
            self._patient = RetryingStore(self.bare, policy, on_retry=self._say_retry)
        return self._patient

    def without_key(self) -> None:
        """Read files as they are from here on, though a key is set: a vault that is only read and isn't encrypted."""
        if self.bare.encryption:
            from vaultlayer_hf.stores.encryption.store import EncryptedStore

            if isinstance(self.bare, EncryptedStore):
                self._bare, self._patient = self.bare.inner, None

    def log(self, *, keyed: bool = True) -> Log:
        """Return the vault's log, as a reader; ``keyed``: as Log has it."""

        def say(reason: str) -> None:
            self._events.warn(EventKind.WALK_BACK, reason, reason=reason)

        return Log(self.store, say, keyed=keyed)

    def last(self, *, keyed: bool = True) -> tuple[int, Entry | None]:
        """Return ``Log.last()``. Raises VaultUnreachableError, CorruptError."""
        try:
            return self.log(keyed=keyed).last()
        except StoreError as error:
            raise self.unreachable(error) from error

    def claim(
        self, seen: tuple[int, Entry | None], detail: Mapping[str, Any] | None = None
    ) -> tuple[Writer, Entry | None]:
        """Take the vault; return the writer and the newest entry before. Raises VaultUnreachableError.

        ``detail``: what else the claim's entry notes.
        """
        self._warn_of_life(seen[1])
        try:
            if not probe_create(self.store):
                self._events.warn(
                    EventKind.NOTICE,
                    f"{self.store.uri} can't create an object only if it is absent: it is used as a single-writer "
                    "vault, so make sure that only one process at a time trains on it",
                )
            writer, before = Writer.claim(self.store, self.log(), dict(detail or {}), seen=seen)
        except StoreError as error:
            raise self.unreachable(error) from error
        self._events.info(
            EventKind.CLAIM,
            f"{self.store.uri} claimed by this process (log entry {writer.token})",
            token=writer.token,
        )
        return writer, before

    def unreachable(self, error: StoreError) -> VaultUnreachableError:
        """Return the error for a vault that can't be used at the start: VaultDeniedError where no other try helps."""
        passing = error.transient or isinstance(error, StoreFullError)
        kind = VaultUnreachableError if passing else VaultDeniedError
        fix = error.hint or "check the address, the network and the credentials"
        return kind(
            f"{self.address.uri}: {error.reason}. Nothing was trained: whether there is a checkpoint to go on from "
            f"can't be seen, and a start at step 0 could throw a run away. {fix[0].upper()}{fix[1:]}; then start "
            "again. To train without a vault, leave out resume="
        )

    def _say_retry(self, error: StoreError, attempt: int, delay: float) -> None:
        self._events.warn_once(
            f"start {error.reason}",
            EventKind.TROUBLE,
            f"the vault doesn't answer, it is tried again: {error}",
        )

    def _warn_of_life(self, entry: Entry | None) -> None:
        if (
            entry is None
            or entry.kind == "finish"
            or (entry.kind == "pin" and entry.state.finished is not None)
        ):
            return
        try:
            age = (datetime.now(UTC) - datetime.fromisoformat(entry.time)).total_seconds()
        except (ValueError, TypeError, OverflowError):  # TypeError: a time without a zone
            return
        if 0 <= age < _FRESH_CLAIM and not self._has_ended(entry.state.token):
            self._events.warn(
                EventKind.NOTICE,
                f"another process wrote to {self.address.uri} {age:.0f} s ago: if it is still training, it stops now, "
                "because a vault has one writer at a time. If two runs were meant, give each a vault of its own",
            )

    def _has_ended(self, token: int) -> bool:
        """Tell whether the process that made a claim is this one, or is known to be gone from this machine.

        So one's own restart raises no alarm. Where it can't be told, as from another machine, it isn't.
        """
        try:
            claim = self.log().read(token)
        except VaultLayerError:
            return False
        host, pid = claim.detail.get("host"), claim.detail.get("pid")
        if host != platform.node() or not isinstance(pid, int):
            return False
        return pid == os.getpid() or not psutil.pid_exists(pid)
