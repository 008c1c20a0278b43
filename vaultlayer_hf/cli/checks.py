"""What `vl doctor` tries: each check does the real thing, small, leaves nothing behind, and says how to mend it."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from vaultlayer_hf.base import files
from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.cli.common import ExitCode, exit_code
from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError, SettingsError, StoreError, VaultLayerError
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import PROBES, probe_create
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.manifest import read_manifest
from vaultlayer_hf.vault.signature import check_may_write

_CLOCK_WARN, _CLOCK_FAIL = 60.0, 900.0
"""Seconds that the clocks may differ; S3 refuses a signed request at 15 minutes."""
_SIZES = (2**22, 2**24, 2**26)
"""Bytes of the objects by which the bandwidth is measured, the next one while the last took less than this:"""
_SHORT = 1.5
_PACKAGE = "vaultlayer-hf"


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        name: of the check.
        state: ``ok``, ``warning`` (works, but know it) or ``bad``.
        text: what was found, in a sentence.
        fix: what to do; empty where nothing is to be done.
        code: how the command ends because of it.
    """

    name: str
    state: Literal["ok", "warning", "bad"]
    text: str
    fix: str = ""
    code: ExitCode = ExitCode.OK


@dataclass
class Measurements:
    """What the checks have measured; None: not. Bytes a second, seconds, bytes."""

    upload_rate: float | None = None
    download_rate: float | None = None
    latency: float | None = None
    clock_offset: float | None = None
    disk_rate: float | None = None
    disk_free: int | None = None
    links: bool | None = None
    create_if_absent: bool | None = None
    checkpoint: int | None = None  # the vault's newest one


def check_libraries(needs: Sequence[str] | None = None) -> Iterator[Finding]:
    """Look at the versions of what the package works with; nothing is imported.

    ``needs``: requirements as packages state them; None: those of this package, as it was installed.
    """
    from packaging.requirements import Requirement

    try:
        stated = needs if needs is not None else requires(_PACKAGE) or []
    except PackageNotFoundError:
        fix = f"pip install {_PACKAGE}"
        yield Finding(
            "libraries", "warning", f"{_PACKAGE} isn't installed, so what it needs isn't known", fix
        )
        return
    found = []
    for need in map(Requirement, stated):
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        fix = f"pip install '{need.name}{need.specifier}'"
        try:
            there = version(need.name)
        except PackageNotFoundError:
            yield Finding("libraries", "bad", f"{need.name} isn't installed", fix, ExitCode.USAGE)
            continue
        found.append(f"{need.name} {there}")
        if not need.specifier.contains(there, prereleases=True):
            text = f"{need.name} {there} isn't {need.specifier}, which {_PACKAGE} needs"
            yield Finding("libraries", "bad", text, fix, ExitCode.USAGE)
    if found:
        yield Finding("libraries", "ok", ", ".join(found))


def check_settings(vault: str) -> Iterator[Finding]:
    """Look at the variables that a start with this vault reads; one that can't be used, or is misspelt, ends it."""
    try:
        Settings(vault=vault)
    except VaultLayerError as error:
        yield Finding("settings", "bad", str(error), "mend that variable, or unset it", ExitCode.USAGE)


def check_store(address: VaultAddress, patience: float, measured: Measurements) -> Iterator[Finding]:
    """Open, read, write, create, delete, time: what a run does with a vault."""
    made = _missing_folders(address)
    try:
        opened = open_store(address)
        store = RetryingStore(opened, RetryPolicy(deadline=patience))
        log = _check_reading(store, measured)  # before it nobody has seen whether the credentials are good
        found = f" with the credentials of {opened.credentials}" if opened.credentials else ""
        yield Finding("credentials", "ok", f"{address.uri} can be read{found}")
        yield log
        yield from _check_writing(store, measured)
    except VaultLayerError as error:
        # What is wrong with a setting or a key says itself what to do.
        general = "" if isinstance(error, SettingsError) else "mend what the message names, and try again"
        hint = getattr(error, "hint", "") or general
        what = error.reason if isinstance(error, StoreError) else str(error)  # the hint is the fix's line
        yield Finding("store", "bad", what, hint, exit_code(error))
    finally:
        _remove(made)


def _missing_folders(address: VaultAddress) -> list[Path]:
    """Return the folders that opening the vault will make, innermost first."""
    home = Path(address.path)
    return [path for path in (home, *home.parents) if not path.exists()] if address.scheme == "file" else []


def _remove(made: list[Path]) -> None:
    """Remove folders that were made for the checks, where no run has begun to use them meanwhile."""
    inside = [Path(root) for root, _, _ in os.walk(made[0], topdown=False)] if made else []
    for folder in [*inside, *made[1:]]:
        try:
            folder.rmdir()
        except OSError:
            return  # not empty


def _check_reading(store: Store, measured: Measurements) -> Finding:
    number, entry = Log(store).last()
    check_may_write(entry is not None and entry.signed, store.uri)
    if entry is None:
        return Finding("log", "ok", "no run has claimed this vault yet")
    newest = entry.state.newest
    measured.checkpoint = newest.bytes if newest else None
    holds = f"the newest checkpoint is of step {newest.step}" if newest else "it holds no checkpoint yet"
    try:
        # Raises where the key that is set isn't the vault's.
        if newest and read_manifest(store, newest).encryption:
            holds += ", encrypted with the key that is set"
    except CorruptError:
        pass  # a start passes it over, with the reason
    return Finding("log", "ok", f"readable, {number} entries; {holds}")


def _check_writing(store: Store, measured: Measurements) -> Iterator[Finding]:
    measured.create_if_absent = probe_create(store)
    if measured.create_if_absent:
        yield Finding("create-if-absent", "ok", "two runs on this vault can't harm each other")
    else:
        yield Finding(
            "create-if-absent",
            "warning",
            "this store can't create an object only if it is absent: the vault is for a single writer",
            "make sure that only one process at a time trains on it, or use a store that has it (S3, a local disk)",
        )
    key = f"{PROBES}{uuid.uuid4().hex}"
    laps = []
    for _ in range(5):
        begin = time.monotonic()
        store.write(key, b"clock")
        laps.append(time.monotonic() - begin)
    measured.latency = statistics.median(laps)
    there = store.head(key).modified
    measured.clock_offset = there - time.time()
    store.delete([key])
    yield judge_clock(measured.clock_offset)
    try:
        store.head(key)
        fix = "allow deleting below the prefix: retention needs it"
        yield Finding("delete", "bad", "what is deleted stays", fix, ExitCode.STORE)
    except ObjectNotFoundError:
        yield Finding("delete", "ok", "what is deleted is gone")
    yield from _check_bandwidth(store, measured)


def judge_clock(offset: float) -> Finding:
    text = f"the store's clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
    fix = "set this machine's clock (chrony, systemd-timesyncd)"
    if abs(offset) > _CLOCK_FAIL:
        return Finding("clock", "bad", f"{text}: signed requests will be refused", fix, ExitCode.STORE)
    if abs(offset) > _CLOCK_WARN:
        return Finding(
            "clock", "warning", f"{text}; no decision depends on it, but times in the log will be off", fix
        )
    return Finding("clock", "ok", text)


def _check_bandwidth(store: Store, measured: Measurements) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="vl-doctor-") as folder:
        source = Path(folder) / "probe"
        for size in _SIZES:
            source.write_bytes(os.urandom(size))
            key = f"{PROBES}{uuid.uuid4().hex}"
            try:
                begin = time.monotonic()
                store.upload(key, source, size=size)
                there = time.monotonic()
                store.read_range(key, 0, size)
                back = time.monotonic()
            finally:
                try:
                    store.delete([key])
                except StoreError:
                    pass  # the next run's probe clears nothing else: it is 64 MiB at most
            measured.upload_rate, measured.download_rate = size / (there - begin), size / (back - there)
            if back - begin > _SHORT:
                break
    up, down = size_text(measured.upload_rate or 0), size_text(measured.download_rate or 0)
    latency = f"{1000 * (measured.latency or 0):.0f} ms"
    yield Finding("bandwidth", "ok", f"up {up}/s, down {down}/s, a small object takes {latency}")


def check_apart(address: VaultAddress, output_dir: Path) -> Iterator[Finding]:
    """Look whether a vault in a folder lies on the disk that the training writes to."""
    if address.scheme != "file":
        return
    vault, output = (_nearest(path) for path in (Path(address.path), output_dir))
    if vault.stat().st_dev == output.stat().st_dev:
        yield Finding(
            "one disk",
            "warning",
            f"the vault and output_dir lie on one disk, that of {vault}: if it is lost, both are",
            "name a bucket, or a folder on another disk or mount; here the vault saves you from all but that",
        )


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def check_disk(
    folder: Path, needed: int | None, measured: Measurements, *, guessed: bool = False
) -> Iterator[Finding]:
    """Look at the disk that checkpoints are written to: its space, its speed, and whether it has hard links.

    ``needed``: a checkpoint's bytes. Where they are only ``guessed``, a disk without room for two is a warning.
    """
    home = _nearest(folder)
    free = shutil.disk_usage(home).free
    measured.disk_free = free
    try:
        with tempfile.TemporaryDirectory(prefix=".vl-doctor-", dir=home) as name:
            probe = Path(name) / "probe"
            data = os.urandom(2**22) * 16
            begin = time.monotonic()
            probe.write_bytes(data)
            files.fsync_file(probe)
            measured.disk_rate = len(data) / (time.monotonic() - begin)
            measured.links = files.link(probe, Path(name) / "link")
    except OSError as error:
        fix = "free some space, or name another folder with --output-dir"
        yield Finding("disk", "bad", f"{home} can't be written: {error.strerror}", fix, ExitCode.FAILED)
        return
    speed = f"{size_text(measured.disk_rate)}/s"
    # One checkpoint is being written while the last waits for upload, and the Trainer deletes none before.
    if needed is not None and free < 2 * needed:
        fix = "free some space, choose another output_dir, or keep fewer there (save_total_limit, local_keep_last)"
        yield Finding(
            "disk",
            "warning" if guessed else "bad",
            f"{home} has {size_text(free)} free, two checkpoints need {size_text(2 * needed)}",
            f"name the model's size with --model, {fix}" if guessed else fix,
            ExitCode.OK if guessed else ExitCode.FAILED,
        )
    else:
        yield Finding("disk", "ok", f"{home} has {size_text(free)} free and takes {speed}")
    if not measured.links:
        yield Finding(
            "snapshots",
            "warning",
            f"{home} has no hard links: each save copies the checkpoint before training goes on",
            "put output_dir on a disk with hard links (ext4, xfs), and leave the mount to the vault",
        )
