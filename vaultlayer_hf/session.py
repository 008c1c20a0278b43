"""A run's life on a vault: open (claim) -> resume -> save* -> flush -> finish -> close.

The seam (Trainer, callback, later others) drives a session from the training thread. Start-up errors are
raised, typed; from the first step on nothing is raised but FencedError, and that only where it is asked for.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm.auto import tqdm

from vaultlayer_hf import files
from vaultlayer_hf.errors import (
    FencedError,
    SettingsError,
    StoreError,
    VaultLayerError,
    VaultUnreachableError,
)
from vaultlayer_hf.events import Events
from vaultlayer_hf.fingerprint import Parameters
from vaultlayer_hf.settings import Settings
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.pace import BandwidthCap
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.uri import VaultAddress, parse_vault
from vaultlayer_hf.vault.entry import Commit, Entry
from vaultlayer_hf.vault.log import Log, Writer
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.retention import Policy
from vaultlayer_hf.vault.snapshot import LOCAL, Snapshot, local_folder, take
from vaultlayer_hf.vault.uploader import Uploader, local_tidy

_FRESH_CLAIM = 600.0
"""Seconds: a log whose last entry is younger may belong to a run that is alive."""


@dataclass(frozen=True)
class Save:
    """What the seam tells about a checkpoint folder that has just been written."""

    folder: Path
    step: int
    world_size: int = 1
    parameters: Parameters = ()
    best_step: int | None = None


class Session:
    """One writer on one vault.

    Args:
        settings: options; ``settings.vault`` names the vault.
        output_dir: where checkpoint folders and snapshots lie.
        events: where to tell what happens; made here if None.
        store: the store to use instead of the one that the URI names; for tests and for special stores.

    Raises SettingsError (VaultUriError) for a vault that can't be meant, MissingExtraError.
    """

    def __init__(
        self,
        settings: Settings,
        output_dir: Path,
        *,
        events: Events | None = None,
        store: Store | None = None,
    ) -> None:
        if not settings.vault:
            raise SettingsError("no vault is named: give its URI, or set VAULTLAYER_VAULT")
        self.settings = settings
        self.events = events or Events()
        self.address: VaultAddress = parse_vault(settings.vault)
        self.output_dir = output_dir.absolute()
        self._bare = store
        self._store: Store | None = None
        self._writer: Writer | None = None
        self._uploader: Uploader | None = None
        self._seq = 0
        self._policy = Policy(settings.keep_last, settings.keep_every, settings.keep_best)
        self._lock = threading.Lock()
        self.step = 0
        self.resumed_from: Commit | None = None
        self.disabled = False
        self.stall_seconds = 0.0

    # Start ---------------------------------------------------------------------------------------------

    def connect(self) -> Store:
        """Return the store with start-up patience. Raises VaultUnreachableError."""
        if self._store is None:
            try:
                if self._bare is None:
                    self._bare = open_store(self.address, upload_concurrency=self.settings.upload_concurrency)
                self._store = RetryingStore(
                    self._bare, RetryPolicy(deadline=self.settings.resume_timeout), on_retry=self._say_retry
                )
            except StoreError as error:
                raise self.unreachable(error) from error
        return self._store

    def log(self) -> Log:
        """Return the vault's log, as a reader."""
        return Log(self.connect(), lambda reason: self.events.warn("walk-back", reason, reason=reason))

    def last(self) -> tuple[int, Entry | None]:
        """Return ``Log.last()``. Raises VaultUnreachableError, CorruptError."""
        try:
            return self.log().last()
        except StoreError as error:
            raise self.unreachable(error) from error

    def claim(self, seen: tuple[int, Entry | None]) -> Entry | None:
        """Take the vault and return the entry that was newest before. Raises VaultUnreachableError."""
        store = self.connect()
        self._warn_of_life(seen[1])
        try:
            if not probe_create(store):
                self.events.warn(
                    "notice",
                    f"{store.uri} can't create an object only if it is absent: it is used as a single-writer "
                    "vault, so make sure that only one process at a time trains on it",
                )
            self._writer, before = Writer.claim(store, self.log(), seen=seen)
        except StoreError as error:
            raise self.unreachable(error) from error
        self.events.info(
            "claim", f"{store.uri} claimed with token {self._writer.token}", token=self._writer.token
        )
        return before

    @property
    def writer(self) -> Writer:
        """The claim. Only after ``claim``."""
        if self._writer is None:
            raise RuntimeError("the vault isn't claimed yet")
        return self._writer

    @property
    def claimed(self) -> bool:
        """Whether the vault is claimed."""
        return self._writer is not None

    @property
    def snapshots(self) -> Path:
        """The folder of this writer's snapshots."""
        return local_folder(self.output_dir, self.writer.state.vault_id, self.writer.token)

    def next_seq(self) -> int:
        """Return the number of the next save of this writer, from 1."""
        self._seq += 1
        return self._seq

    def start_uploads(self, resumed_from: Commit | None) -> None:
        """Start the background uploader, behind the commit that this run goes on from."""
        self.resumed_from = resumed_from
        bare = self._bare
        assert bare is not None

        def make_store(should_stop: Callable[[], None], on_trouble: Callable[[StoreError], None]) -> Store:
            return RetryingStore(
                bare,
                RetryPolicy(deadline=None, retry_all=True),
                should_stop=should_stop,
                on_retry=lambda error, attempt, delay: on_trouble(error),
            )

        self._uploader = Uploader(
            make_store,
            self.writer,
            self.events,
            policy=self._policy,
            resumed_from=resumed_from,
            cap=BandwidthCap(self.settings.rate) if self.settings.rate else None,
            current_step=lambda: self.step,
            after_commit=self._after_commit,
        )
        atexit.register(self.close)

    def adopt(self, snapshot: Snapshot) -> None:
        """Queue a snapshot that a dead process left, already handed over to this writer."""
        assert self._uploader is not None
        self._uploader.submit(snapshot)

    # Training ------------------------------------------------------------------------------------------

    def before_save(self, folder: Path) -> None:
        """Empty a checkpoint folder that is about to be written again.

        What the Trainer would write in place would show through the links of a snapshot that waits for
        upload; and what a killed save left there would look as if it belonged to the new one.
        """
        if folder.is_dir():
            files.remove_tree(folder)

    def save(self, save: Save) -> None:
        """Snapshot a checkpoint folder and queue it; never raises for the storage's or the disk's sake."""
        uploader = self._uploader
        if self.disabled or uploader is None or uploader.fenced is not None:
            return
        begin = time.perf_counter()
        try:
            manifest = Manifest(
                step=save.step,
                token=self.writer.token,
                seq=self.next_seq(),
                files=(),
                world_size=save.world_size,
                parameters=save.parameters,
                best_step=save.best_step,
                saved_at=time.time(),
                versions=versions(),
            )
            snapshot = take(save.folder, self.snapshots, manifest.seq, manifest)
            uploader.submit(snapshot)
        except (OSError, VaultLayerError) as error:
            self.events.warn(
                "abandon",
                f"{save.folder.name} can't be copied for upload, training goes on: {error}; {uploader.exposure()}",
                step=save.step,
                reason=str(error),
            )
            return
        self.stall_seconds = time.perf_counter() - begin
        if not snapshot.linked:
            self.events.warn_once(
                "links",
                "notice",
                f"{self.output_dir} lies on a file system without hard links: each save is copied, and training "
                "waits for the copy; an output_dir on a local disk avoids that",
            )

    def check_fence(self) -> None:
        """Raise FencedError if another process took the vault and the settings say to stop."""
        uploader = self._uploader
        if uploader is None or uploader.fenced is None or self.disabled:
            return
        self.disabled = True
        if self.settings.on_fenced == "stop":
            raise FencedError(str(uploader.fenced)) from uploader.fenced
        self.events.warn("fenced", "training goes on without a vault: on_fenced is 'continue'")

    def metrics(self) -> dict[str, float]:
        """Return figures for the Trainer's ``report_to``; seconds, bytes and steps."""
        uploader = self._uploader
        if uploader is None or self.disabled:
            return {}
        seconds, steps = uploader.exposure_figures()
        return {
            "vault/stall_seconds": self.stall_seconds,
            "vault/upload_seconds": uploader.figures.upload_seconds,
            "vault/uploaded_bytes": float(uploader.figures.uploaded_bytes),
            "vault/commits": float(uploader.figures.commits),
            "vault/exposure_seconds": seconds,
            "vault/exposure_steps": float(steps),
        }

    # End -----------------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Wait for uploads, with a progress bar and a time-out; return whether all is committed.

        The one place where training waits for storage. Raises FencedError as ``check_fence`` does.
        """
        uploader = self._uploader
        if uploader is None or self.disabled:
            return False
        done = uploader.wait(0) or self._wait_with_bar(uploader)
        self.check_fence()
        if not done:
            self.events.warn(
                "trouble",
                f"uploads aren't done after {self.settings.flush_timeout:.0f} s (flush_timeout); {uploader.exposure()} "
                f"what waits stays in {self.output_dir / LOCAL}, and the next start on this disk goes on from it",
            )
        return done and not self.disabled

    def finish(self, step: int, metrics: dict[str, float]) -> None:
        """Append the entry that says that the run is done at ``step``; storage trouble is only reported."""
        if self.disabled or self._writer is None:
            return

        try:
            self.writer.append("finish", lambda state, _: state.done(step, metrics), {"step": step})
            self.events.info("finish", f"run finished at step {step}", step=step)
        except FencedError as error:
            assert self._uploader is not None
            self._uploader.fenced = error
            self.check_fence()
        except StoreError as error:
            self.events.warn("trouble", f"the end of the run can't be noted in the vault: {error}")

    def close(self) -> None:
        """Wait for what is under way as ``flush`` does, then stop; safe to call twice."""
        with self._lock:
            uploader, self._uploader = self._uploader, None
        atexit.unregister(self.close)
        if uploader is None:
            return
        if uploader.fenced is None and not uploader.wait(0):
            self._wait_with_bar(uploader)
        uploader.stop()

    def _wait_with_bar(self, uploader: Uploader) -> bool:
        deadline = time.monotonic() + self.settings.flush_timeout
        bar = tqdm(
            total=max(1, uploader.remaining), unit="B", unit_scale=True, desc="Committing to the vault"
        )
        try:
            while True:
                left = deadline - time.monotonic()
                if uploader.wait(min(0.2, max(0.0, left))):
                    bar.update(bar.total - bar.n)
                    return True
                bar.n = max(bar.n, min(bar.total, bar.total - uploader.remaining))
                bar.refresh()
                if left <= 0:
                    return False
        finally:
            bar.close()

    def _after_commit(self, commit: Commit) -> None:
        clear_superseded(self.output_dir, self.snapshots, commit.step)
        settings = self.settings
        if settings.local_keep_last is None and settings.local_keep_every is None:
            return
        policy = Policy(settings.local_keep_last, settings.local_keep_every, settings.keep_best)
        state = self.writer.state
        local_tidy(self.output_dir, list(state.commits), policy, state.best_step, {commit.number})

    def unreachable(self, error: StoreError) -> VaultUnreachableError:
        """Return the error for a vault that can't be used at the start."""
        return VaultUnreachableError(
            f"the vault {self.address.uri} can't be used, so it is unknown which checkpoint to go on from, and "
            f"training doesn't start at step 0 in silence: {error}. Check the address, the network and the "
            "credentials and start again; to train without a vault, leave out resume="
        )

    def _say_retry(self, error: StoreError, attempt: int, delay: float) -> None:
        self.events.warn_once(
            f"start {error.reason}", "trouble", f"the vault doesn't answer, it is tried again: {error}"
        )

    def _warn_of_life(self, entry: Entry | None) -> None:
        if entry is None or entry.kind == "finish":
            return
        try:
            age = (datetime.now(UTC) - datetime.fromisoformat(entry.time)).total_seconds()
        except ValueError:
            return
        if 0 <= age < _FRESH_CLAIM:
            self.events.warn(
                "notice",
                f"the last entry of {self.address.uri} is only {age:.0f} s old: if its writer is still alive, it is "
                "fenced now and stops; two runs can't share a vault",
            )


def clear_superseded(output_dir: Path, snapshots: Path, step: int) -> None:
    """Remove what a commit of ``step`` makes pointless: folders that were moved aside, older writers' snapshots."""
    aside = output_dir / LOCAL / "aside"
    for path in aside.glob("checkpoint-*"):
        if int(path.name.removeprefix("checkpoint-")) <= step:
            files.remove_tree(path)
    for path in snapshots.parent.iterdir() if snapshots.parent.is_dir() else ():
        if path.name.isdigit() and int(path.name) < int(snapshots.name):
            files.remove_tree(path)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that write a checkpoint."""
    found = {}
    for name in ("vaultlayer-hf", "torch", "transformers", "accelerate"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found
