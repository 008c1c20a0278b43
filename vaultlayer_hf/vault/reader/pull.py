"""Pull: copy one checkpoint out of a vault into a folder of its own, verified, or not at all.

    <parent>/.<name>.<digest>.part/   what has come so far; named by the manifest, so only its own pull goes on there
    <parent>/<name>/                  appears by one rename, once every digest holds and everything is flushed

A pull that is stopped at any moment goes on where it was, within a file too: the bytes that are there are read and
digested again, and only the rest is fetched. Where the digest then fails, that file is fetched once more from its
beginning, so that what rotted on the disk isn't blamed on the vault.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vaultlayer_hf.base import files, locks
from vaultlayer_hf.base.digest import CHUNK, Digest, digest_file
from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.errors import CorruptError, SettingsError, VaultLayerError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.manifest import FileEntry, Manifest, read_manifest
from vaultlayer_hf.vault.restore.ranges import in_order, reasons, threads

_RANGE = 8 * 2**20
"""Bytes of a ranged read."""
_AHEAD = 8
"""Ranged reads under way at a time: with ``_RANGE``, 64 MiB of memory."""


_STATE = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|random_states|sampler|vaultlayer_|global_step|pytorch_model_fsdp)[^/]*(/.*)?"
    r"|latest|zero_to_fp32\.py|training_args\.bin|trainer_state\.json|\..*"
)
_WEIGHTS = re.compile(
    r"(.*/)?((model|adapter_model)[^/]*\.safetensors|(pytorch_model|adapter_model)[^/]*\.bin)"
)


def is_for_inference(path: str) -> bool:
    """Tell whether a file of a checkpoint is the model's, as from_pretrained reads it, and not the training's state."""
    return _STATE.fullmatch(path) is None


def has_weights(manifest: Manifest) -> bool:
    """Tell whether a checkpoint holds weights that from_pretrained reads."""
    return any(_WEIGHTS.fullmatch(path) and is_for_inference(path) for path in manifest.paths)


def pull(
    store: Store,
    commit: Commit,
    target: Path,
    progress: Callable[[int], None] = lambda count: None,
    only: Callable[[str], bool] | None = None,
) -> int:
    """Bring a checkpoint, or ``only`` some files of it, to the folder ``target``; return how many bytes were fetched.

    ``progress`` is called with byte counts that add up to the size, those that are there already included.
    A target that holds this very checkpoint is left as it is, and 0 is returned.

    Raises CorruptError where the vault's content isn't what it vouches for; SettingsError where ``target``
    holds something else; VaultLayerError where there is no space or another pull is at it; StoreError; OSError.
    """
    manifest, some = read_manifest(store, commit), ""
    if only is not None:
        manifest = replace(manifest, files=tuple(entry for entry in manifest.files if only(entry.path)))
        some = "some."
    if os.path.lexists(target):
        if not holds(target, manifest, progress):
            raise SettingsError(
                f"{target} is there and holds something else than this checkpoint: name another folder, or remove "
                f"{target} first"
            )
        return 0
    part = target.parent / f".{target.name}.{commit.manifest.rpartition(':')[2][:16]}.{some}part"
    with _alone(part):
        fetched = _fetch_all(store, commit.folder, manifest, part, progress)
        for folder, _, _ in os.walk(part):
            files.fsync_folder(Path(folder))
        files.rename(part, target)
    return fetched


def holds(folder: Path, manifest: Manifest, progress: Callable[[int], None] = lambda count: None) -> bool:
    """Tell whether a folder holds exactly the files of a manifest, with their digests. Raises OSError."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if found != manifest.paths or any(
        (folder / entry.path).stat().st_size != entry.size for entry in manifest.files
    ):
        return False
    return all(digest_file(folder / entry.path, progress)[0] == entry.digest for entry in manifest.files)


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Make the folder and hold it against a second pull of the same checkpoint to the same place."""
    files.make_folder(part)
    with locks.locked(part) as alone:
        if not alone:
            raise VaultLayerError(f"another pull is at work in {part}: wait for it, or end it")
        if not part.is_dir():
            raise VaultLayerError(f"another pull has just ended and moved {part} into its place: start again")
        yield


def _fetch_all(
    store: Store, folder: str, manifest: Manifest, part: Path, progress: Callable[[int], None]
) -> int:
    for path in part.rglob("*"):
        if not path.is_dir() and path.relative_to(part).as_posix() not in manifest.paths:
            path.unlink()
    there = {entry.path: _size(part / entry.path) for entry in manifest.files}
    needed = sum(max(0, entry.size - there[entry.path]) for entry in manifest.files)
    free = shutil.disk_usage(part).free
    if needed > free:
        raise VaultLayerError(
            f"{size_text(needed)} are still to come and {part.parent} has {size_text(free)} free: free some space"
        )
    fetched = 0
    for entry in manifest.files:
        (part / entry.path).parent.mkdir(parents=True, exist_ok=True)
        begin = there[entry.path] if there[entry.path] <= entry.size else 0
        count, sound = _fetch(store, folder, entry, part / entry.path, begin, progress)
        fetched += count
        if not sound and begin > 0:
            count, sound = _fetch(store, folder, entry, part / entry.path, 0, lambda count: None)
            fetched += count
        if not sound:
            files.remove_file(part / entry.path)
            raise CorruptError(
                f"{folder}/{entry.path}: its content isn't what was uploaded (its digest isn't the manifest's)"
            )
    return fetched


def _fetch(
    store: Store, folder: str, entry: FileEntry, path: Path, begin: int, progress: Callable[[int], None]
) -> tuple[int, bool]:
    """Fetch a file from ``begin`` on; return how many bytes came and whether the digest of the whole holds."""
    digest = Digest()
    with open(path, "r+b" if path.exists() else "w+b", buffering=0) as file:
        file.truncate(begin)
        while file.tell() < begin:
            data = file.read(min(CHUNK, begin - file.tell()))
            digest.update(data)
            progress(len(data))
        for piece in _ranges(store, f"{folder}/{entry.path}", begin, entry.size):
            digest.update(piece)
            left = piece
            while left:
                left = left[file.write(left) :]
            progress(len(piece))
        files.fsync(file.fileno())
    return entry.size - begin, digest.text() == entry.digest


def _ranges(store: Store, key: str, begin: int, end: int) -> Iterator[memoryview]:
    """Yield an object's bytes in order, with several requests under way."""

    def read(start: int) -> memoryview:
        with reasons(key):
            return store.read_range(key, start, min(_RANGE, end - start))

    with threads(_AHEAD, "vaultlayer-pull") as pool:
        yield from in_order(pool, read, range(begin, end, _RANGE), _AHEAD)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
