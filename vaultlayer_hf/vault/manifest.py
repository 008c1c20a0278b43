"""Manifests: the list of files of a checkpoint with size and digest, and what the run was.

The commit entry vouches for the manifest by its digest, and the manifest for every file. A manifest is
checked as hostile input: paths can't leave the folder, counts and sizes are bounded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from vaultlayer_hf.base.digest import digest_bytes, is_digest
from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError, SettingsError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import META, manifest_key
from vaultlayer_hf.vault.parse import FORMAT_VERSION, Fields, dump, has_bad_character, load
from vaultlayer_hf.vault.signature import FIELD, keys

MANIFEST_LIMIT = 256 * 2**20
"""Bytes: the largest manifest that is read."""
_FILES_LIMIT = 1_000_000
_SIZE_LIMIT = 2**50
_DIMENSIONS = 64
"""Of a tensor, at most: as many as torch itself allows for."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path in the folder (``/``-separated), its size in bytes and the digest of its content."""

    path: str
    size: int
    digest: str


class Vouched(Protocol):
    """What a commit entry says of a manifest, as far as it is checked here: see ``log.entry.Commit``."""

    @property
    def number(self) -> int: ...
    @property
    def token(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def folder(self) -> str: ...
    @property
    def manifest(self) -> str: ...
    @property
    def manifest_size(self) -> int: ...


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's manifest.

    Attributes:
        step: global step.
        token: fencing token of the writer.
        seq: position among that writer's saves, from 1.
        files: all files of the folder, ordered by path.
        world_size: how many ranks the run had.
        parameters: [name, shape, dtype] of each parameter of the model; empty where it isn't known.
        best_step: step of the best checkpoint at that time, or None.
        resumed_from: number of the log entry of the commit that the run went on from; None: from step 0.
        saved_at: seconds since the epoch by the writer's clock; for people and for file times.
        versions: versions of the libraries that wrote it.
        encryption: id of the key that its files were encrypted with; empty for none, and then not written.
    """

    step: int
    token: int
    seq: int
    files: tuple[FileEntry, ...]
    world_size: int = 1
    parameters: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    best_step: int | None = None
    resumed_from: int | None = None
    saved_at: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    encryption: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.size for file in self.files)

    @property
    def paths(self) -> set[str]:
        """Paths of all files."""
        return {file.path for file in self.files}

    @property
    def content(self) -> dict[str, Any]:
        """What JSON holds of it. Not a copy, as asdict's: a model has thousands of parameters, and training waits."""
        return {**vars(self), "files": [asdict(file) for file in self.files]}


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's bytes."""
    body = {"format_version": FORMAT_VERSION, **manifest.content}
    if not manifest.encryption:
        del body["encryption"]
    return dump(body)


def encode_mark(folder: str) -> bytes:
    """Return the bytes of the mark that a folder is filled by an upload of ours. It names the folder: a copy of it,
    made by a person under another name, isn't ours.
    """
    return dump({"format_version": FORMAT_VERSION, "folder": folder})


def is_mark(data: bytes, folder: str) -> bool:
    """Tell whether these bytes are the mark of that folder."""
    try:
        return load(data, folder).text("folder") == folder
    except CorruptError:
        return False


def encode_part(node: int, files: tuple[FileEntry, ...], key: str = "") -> bytes:
    """Return the bytes of the list of files that one node has uploaded, signed for its ``key`` where a key is set."""
    body = {"format_version": FORMAT_VERSION, "node": node, "files": [asdict(file) for file in files]}
    if (found := keys()) is not None:
        body[FIELD] = found.sign(f"part {key}", dump(body))
    return dump(body)


def decode_part(data: bytes, node: int, what: str) -> tuple[FileEntry, ...]:
    """Parse and check a node's list of files, which lies at the key ``what``.

    Raises CorruptError, FormatVersionError, SignatureError.
    """
    fields = load(data, what)
    if (found := keys()) is not None:
        body = fields.values
        signature = body.pop(FIELD, None)
        try:
            found.check(f"part {what}", dump(body), signature, what)
        except (ValueError, RecursionError) as error:  # NaN, a lone surrogate: nothing that we ever write
            raise CorruptError(f"{what}: not readable as JSON") from error
    if fields.whole("node") != node:
        raise CorruptError(f"{what}: it is another node's")
    return tuple(_file(Fields(item, what), what) for item in fields.items("files", limit=_FILES_LIMIT))


def decode_manifest(data: bytes, what: str) -> Manifest:
    """Parse and check a manifest. Raises CorruptError, FormatVersionError."""
    manifest = manifest_from(load(data, what), what)
    if not manifest.files:
        raise CorruptError(f"{what}: it lists no file")
    return manifest


def manifest_from(fields: Fields, what: str) -> Manifest:
    """Check the fields of a manifest, which may list no file: that of a snapshot that isn't sealed. Raises
    CorruptError.
    """
    files = tuple(_file(Fields(item, what), what) for item in fields.items("files", limit=_FILES_LIMIT))
    _check_tree([file.path for file in files], what)
    saved_at = fields.get("saved_at")
    if not isinstance(saved_at, (int, float)) or not 0 <= saved_at < 2**40:
        raise CorruptError(f"{what}: field 'saved_at' is no time")
    return Manifest(
        step=fields.whole("step"),
        token=fields.whole("token", low=1),
        seq=fields.whole("seq", low=1),
        files=files,
        world_size=fields.whole("world_size", low=1, high=2**20),
        parameters=tuple(_parameter(item, what) for item in fields.items("parameters", limit=_FILES_LIMIT)),
        best_step=fields.optional_whole("best_step"),
        resumed_from=fields.optional_whole("resumed_from"),
        saved_at=float(saved_at),
        versions=dict(_version(name, value, what) for name, value in fields.mapping("versions").items()),
        encryption="" if fields.get("encryption") is None else fields.text("encryption", limit=64),
    )


def read_manifest(store: Store, commit: Vouched, *, with_key: bool = True) -> Manifest:
    """Return a commit's manifest, checked against the log, and whether its files can be read with the key that is set.

    ``with_key``: False leaves out the latter, for who only asks how the files are encrypted. Raises CorruptError,
    StoreError, SettingsError.
    """
    key = manifest_key(commit.folder)
    if commit.manifest_size > MANIFEST_LIMIT:
        raise CorruptError(f"{key}: {commit.manifest_size} bytes are more than a manifest may have")
    try:
        data = store.read(key, limit=commit.manifest_size)
    except ObjectNotFoundError as error:
        raise CorruptError(f"{key}: it is missing") from error
    except StoreError as error:
        if type(error) is not StoreError:
            raise
        raise CorruptError(f"{key}: {error.reason}") from error  # larger than the log says
    if digest_bytes(data) != commit.manifest:
        raise CorruptError(f"{key}: its digest is not the one that log entry {commit.number} vouches for")
    manifest = decode_manifest(data, key)
    if (manifest.token, manifest.seq, manifest.step) != (commit.token, commit.seq, commit.step):
        raise CorruptError(f"{key}: it belongs to another commit than log entry {commit.number}")
    if with_key:
        check_encryption(store, commit, manifest)
    return manifest


def check_encryption(store: Store, commit: Vouched, manifest: Manifest) -> None:
    """Raise SettingsError where a checkpoint's files were encrypted otherwise than the store reads them."""
    theirs, ours = manifest.encryption, store.encryption
    if theirs == ours:
        return
    what = f"{store.uri}: the checkpoint of step {commit.step} (log entry {commit.number})"
    if not ours:
        raise SettingsError(
            f"{what} is encrypted, and no key is set: set VAULTLAYER_ENCRYPTION_KEY to the key of this vault (its id "
            f"is {theirs})"
        )
    if not theirs:
        raise SettingsError(
            f"{what} isn't encrypted, and VAULTLAYER_ENCRYPTION_KEY is set: unset it for this vault. An encrypted one "
            "is a new vault, which may begin as a fork of this one"
        )
    raise SettingsError(
        f"{what} was encrypted with another key (its id is {theirs}) than VAULTLAYER_ENCRYPTION_KEY names (its id is "
        f"{ours}): set it to the key of this vault"
    )


def check_path(path: str, what: str) -> str:
    """Return ``path`` if a file may have it inside a checkpoint folder. Raises CorruptError."""
    segments = path.split("/")
    bad = (
        not path
        or len(path) > 1024
        or "\\" in path
        or has_bad_character(path)
        or segments[0] == META
        or any(segment in ("", ".", "..") or len(segment.encode()) > 255 for segment in segments)
        or (len(segments[0]) == 2 and segments[0][1] == ":")
    )
    if bad:
        raise CorruptError(f"{what}: the path {path[:80]!r} is not allowed inside a checkpoint")
    return path


def _file(fields: Fields, what: str) -> FileEntry:
    path = check_path(fields.text("path", limit=1024), what)
    digest = fields.text("digest", limit=128)
    if not is_digest(digest):
        raise CorruptError(f"{what}: the digest of {path} is malformed")
    return FileEntry(path, fields.whole("size", high=_SIZE_LIMIT), digest)


def _check_tree(paths: list[str], what: str) -> None:
    """Refuse duplicates and paths of which one is a folder of another."""
    seen = set(paths)
    if len(seen) != len(paths):
        raise CorruptError(f"{what}: it lists a path twice")
    for path in paths:
        parent = path
        while "/" in parent:
            parent = parent.rsplit("/", 1)[0]
            if parent in seen:
                raise CorruptError(f"{what}: {parent} is both a file and a folder")


def _parameter(item: Any, what: str) -> tuple[str, tuple[int, ...], str]:
    match item:
        case [str(name), list(shape), str(dtype)] if (
            not has_bad_character(name + dtype)
            and len(shape) <= _DIMENSIONS
            and all(isinstance(size, int) and 0 <= size <= _SIZE_LIMIT for size in shape)
        ):
            return name, tuple(shape), dtype
    raise CorruptError(f"{what}: a parameter is not [name, shape, dtype]")


def _version(name: str, value: Any, what: str) -> tuple[str, str]:
    text = str(value)
    if has_bad_character(name + text) or len(name) + len(text) > 1024:
        raise CorruptError(f"{what}: a library's version is malformed")
    return name, text
