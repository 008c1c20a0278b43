"""A vault from outside a run: list, look into, verify, copy out, pin, archive. The last two need to write."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.errors import CorruptError, NoSuchCheckpointError, ObjectNotFoundError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.encryption.sealing import sealed_size
from vaultlayer_hf.vault.keys import DATA
from vaultlayer_hf.vault.log.archive import archived_as, of_step, taken_back
from vaultlayer_hf.vault.log.entries import read_entries
from vaultlayer_hf.vault.log.entry import Commit, Entry, VaultState
from vaultlayer_hf.vault.log.finite import newest_finite
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.log.origin import forked_from
from vaultlayer_hf.vault.manifest import Manifest, check_encryption, read_manifest
from vaultlayer_hf.vault.reader.archive import make_archive, undo_archive
from vaultlayer_hf.vault.reader.check import check, check_sizes
from vaultlayer_hf.vault.reader.pin import pin
from vaultlayer_hf.vault.reader.pull import pull
from vaultlayer_hf.vault.retention.prune import Leftover, check_mark, find_leftovers


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        ok: whether every digest holds.
        problems: one line for each thing that is wrong.
        bytes: how many bytes were read.
    """

    ok: bool
    problems: list[str]
    bytes: int


class Vault:
    """One vault as it was when it was opened: later entries of its log need another ``open_vault``.

        vault = open_vault("s3://bucket/my-run")
        vault                                       # <Vault s3://bucket/my-run, newest: step 500 (log entry 12)>
        newest = vault.checkpoint()                 # or checkpoint(step=200), or checkpoints()
        if vault.verify(newest).ok:                 # reads every byte of it
            vault.pull(newest, "checkpoint-500")    # an ordinary checkpoint folder
        vault.pin(newest)                           # retention keeps it

    Made by ``open_vault``. Holds nothing open; ``with open_vault(...) as vault:`` works, too.

    Attributes:
        uri: where it is.
        damage: what was found damaged in its log so far, one line each.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri = store.uri
        self.damage: list[str] = []
        self._entry = Log(store, self.damage.append).last()[1]

    @property
    def state(self) -> VaultState | None:
        """The state after the last entry of the log; None where the vault is empty."""
        return self._entry.state if self._entry else None

    def checkpoints(self) -> list[Commit]:
        """Return the live checkpoints, oldest first."""
        return list(self._entry.state.commits) if self._entry else []

    def checkpoint(self, step: int | None = None) -> Commit:
        """Return the newest live checkpoint of a step, an archived one only where there is no other.

        Without a step: that which the next start goes on from.

        Raises NoSuchCheckpointError.
        """
        live = self.checkpoints()
        newest = self.state.newest if self.state else None
        found = newest if step is None else next(iter(of_step(live, step)), None)
        if found is None:
            steps = ", ".join(str(commit.step) for commit in live)
            what = f"no checkpoint of step {step}" if step is not None and live else "no checkpoint"
            raise NoSuchCheckpointError(
                f"{self.uri} holds {what}" + (f"; it holds: {steps}" if live else " yet")
            )
        return found

    def newest_finite(self) -> Commit | None:
        """Return the newest live checkpoint on the run's way whose weights and loss aren't nan; None where none is.

        One request for each checkpoint from the newest back to it. Raises StoreError.
        """
        return newest_finite(self.checkpoints(), Log(self._store).read)

    def history(self) -> list[Entry]:
        """Return every entry of the log that is whole, oldest first; damaged ones are added to ``damage``.

        One request an entry: a log of thousands takes a while. Raises StoreError, FormatVersionError.
        """
        return read_entries(self._store, self.damage.append)

    def forked_from(self, commit: Commit) -> str | None:
        """Return the checkpoint that the attempt which made a commit began from as a fork, as ``VAULT@STEP``.

        None where it began otherwise. Raises StoreError.
        """
        try:
            return forked_from(Log(self._store).read(commit.token).detail)
        except (CorruptError, ObjectNotFoundError):
            return None

    def leftovers(self) -> list[Leftover]:
        """Return the folders that no live checkpoint refers to: retired ones, and what was never committed.

        What isn't of this package's making lies there, too, where a vault shares its place with other files: it has no
        ``mark``. Lists every object of the vault. Raises StoreError.
        """
        found = find_leftovers(self._store.list(DATA), {commit.folder for commit in self.checkpoints()})
        return [check_mark(self._store, item) for item in found]

    def manifest(self, commit: Commit) -> Manifest:
        """Return a checkpoint's manifest, for which no key is needed. Raises CorruptError, StoreError."""
        return read_manifest(self._store, commit, with_key=False)

    def verify(self, commit: Commit, progress: Callable[[int], None] | None = None) -> VerifyReport:
        """Read every file of a checkpoint and check every digest; ``progress`` gets byte counts as they pass.

        Raises StoreError where the store is in trouble: that says nothing about the checkpoint; SettingsError where it
        is encrypted with another key than the one that is set.
        """
        count = 0

        def on_bytes(size: int) -> None:
            nonlocal count
            count += size
            if progress is not None:
                progress(size)

        try:
            manifest = read_manifest(self._store, commit)
        except CorruptError as error:
            return VerifyReport(False, [str(error)], 0)
        problems = check(self._store, commit.folder, list(manifest.files), on_bytes=on_bytes)
        return VerifyReport(not problems, problems, count)

    def glance(self, commit: Commit) -> list[str]:
        """Return what is wrong with a checkpoint as far as a listing shows it: no content is read.

        Raises StoreError.
        """
        try:
            manifest = self.manifest(commit)
            # The sizes that are seen are those of sealed files.
            if manifest.encryption and not self._store.encryption:
                files = [replace(entry, size=sealed_size(entry.size)) for entry in manifest.files]
                return check_sizes(self._store, commit.folder, files)
            check_encryption(self._store, commit, manifest)
        except CorruptError as error:
            return [str(error)]
        return check_sizes(self._store, commit.folder, list(manifest.files))

    def read(self, commit: Commit, path: str, *, limit: int = 64 * 2**20) -> bytes | None:
        """Return a small file of a checkpoint, verified; None where it has no such file.

        Raises CorruptError where it isn't what the manifest vouches for or has more than ``limit`` bytes;
        StoreError.
        """
        manifest = self.manifest(commit)
        entry = next((item for item in manifest.files if item.path == path), None)
        if entry is None:
            return None
        check_encryption(self._store, commit, manifest)
        key = f"{commit.folder}/{path}"
        if entry.size > limit:
            raise CorruptError(f"{key}: {entry.size} bytes are more than such a file may have")
        try:
            data = self._store.read(key, limit=entry.size)
        except ObjectNotFoundError as error:
            raise CorruptError(f"{key}: it is missing") from error
        if digest_bytes(data) != entry.digest:
            raise CorruptError(
                f"{key}: its content isn't what was uploaded (its digest isn't the manifest's)"
            )
        return data

    def pull(
        self,
        commit: Commit,
        target: str | os.PathLike[str],
        progress: Callable[[int], None] = lambda count: None,
        *,
        only: Callable[[str], bool] | None = None,
    ) -> int:
        """Copy a checkpoint to the folder ``target``, verified, and return how many bytes were fetched.

        It appears there whole or not at all; a pull that was stopped goes on where it was. ``progress`` is
        called with byte counts, which add up to the checkpoint's size. ``only`` tells by its path which file is copied;
        None: all.

        Raises CorruptError; SettingsError where ``target`` holds something else; VaultLayerError (no space,
        another pull); StoreError; OSError.
        """
        return pull(self._store, commit, Path(target).absolute(), progress, only)

    def pin(self, commit: Commit, pinned: bool = True, *, alone: bool = False) -> None:
        """Keep a checkpoint whatever the retention policy says, or let it go; a run may be writing meanwhile.

        ``alone``: no run is writing to this vault; needed where the store lacks create-if-absent.
        Raises NoSuchCheckpointError where it was retired meanwhile; StoreError.
        """
        self._entry = pin(self._store, commit, pinned, alone=alone)

    def archive(self, name: str | None = None, *, alone: bool = False) -> str:
        """Start over: keep all that it holds under a name, which is returned; the next start begins at step 0.

        ``name``: None for ``archive-1``, ``archive-2``, … ``alone`` as for ``pin``. A run that is writing is fenced.
        Raises NoSuchCheckpointError where there is nothing to archive; SettingsError; CorruptError; StoreError.
        """
        self._entry = make_archive(self._store, name, alone=alone)
        return str(archived_as(self._entry.detail))

    def unarchive(self, name: str | None = None, *, alone: bool = False) -> str:
        """Take an archive back, the newest without a name, and return its name.

        Raises NoSuchCheckpointError where there is none; SettingsError where a run has committed since; CorruptError;
        StoreError.
        """
        self._entry = undo_archive(self._store, name, alone=alone)
        return str(taken_back(self._entry.detail))

    def close(self) -> None:
        """End the use of the vault. It holds nothing open, so nothing happens, and a second call is fine."""

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        newest = self.state.newest if self.state else None
        known = f"step {newest.step} (log entry {newest.number})" if newest else "no checkpoint yet"
        return f"<Vault {self.uri}, newest: {known}>"
