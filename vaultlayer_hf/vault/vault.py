"""A vault as a reader sees it: list, look into and verify checkpoints. Needs no write permission."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.entry import Commit, State
from vaultlayer_hf.vault.log import Log
from vaultlayer_hf.vault.manifest import Manifest, read_manifest
from vaultlayer_hf.vault.restore import check


@dataclass(frozen=True)
class Report:
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
    """Reads one vault. Made by ``open_vault``; usable as a context manager.

    Attributes:
        uri: where it is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri = store.uri
        self.damage: list[str] = []
        self._entry = Log(store, self.damage.append).last()[1]

    @property
    def state(self) -> State | None:
        """The state after the last entry of the log; None where the vault is empty."""
        return self._entry.state if self._entry else None

    def checkpoints(self) -> list[Commit]:
        """Return the live checkpoints, oldest first."""
        return list(self._entry.state.commits) if self._entry else []

    def manifest(self, commit: Commit) -> Manifest:
        """Return a checkpoint's manifest. Raises CorruptError, StoreError."""
        return read_manifest(self._store, commit)

    def verify(self, commit: Commit, progress: Callable[[int], None] | None = None) -> Report:
        """Read every file of a checkpoint and check every digest; ``progress`` gets byte counts as they pass.

        Raises StoreError where the store is in trouble: that says nothing about the checkpoint.
        """
        count = 0

        def on_bytes(size: int) -> None:
            nonlocal count
            count += size
            if progress is not None:
                progress(size)

        try:
            manifest = self.manifest(commit)
        except CorruptError as error:
            return Report(False, [str(error)], 0)
        problems = check(self._store, commit.folder, list(manifest.files), on_bytes=on_bytes)
        return Report(not problems, problems, count)

    def close(self) -> None:
        """Release the store's connections."""

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
