"""What the protocol's tests share: stores, checkpoint folders, and a whole save in one call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from obstore.store import MemoryStore

from tests.kit.any_files import AnyFiles
from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.model_identity import Parameters
from vaultlayer_hf.stores.base import ObjectInfo, Store
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.keys import LOG, entry_key, entry_number, folder_key
from vaultlayer_hf.vault.log.entry import Commit, Entry
from vaultlayer_hf.vault.log.log import Log, Writer
from vaultlayer_hf.vault.manifest import FileEntry, Manifest
from vaultlayer_hf.vault.parse import dump
from vaultlayer_hf.vault.snapshot import Snapshot, seal_snapshot, take_snapshot
from vaultlayer_hf.vault.upload.sending import Transfer, commit, folder_name, send, write_part


def memory_store() -> ObjectStore:
    """Return a new, empty object store in this process's memory, through the client that S3 has, too."""
    return ObjectStore(MemoryStore(), uri="memory://vault")


def write_checkpoint(output_dir: Path, step: int, size: int = 3000) -> Path:
    """Write a checkpoint folder whose weights are those of ``step`` and whose other files never change."""
    folder = output_dir / f"checkpoint-{step}"
    (folder / "sub").mkdir(parents=True)
    seed = hashlib.sha256(str(step).encode()).digest()
    (folder / "model.safetensors").write_bytes((seed * (size // 32 + 1))[:size])
    (folder / "config.json").write_bytes(b'{"model_type": "test"}')
    (folder / "sub" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file below a folder, by ``/``-separated path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def manifest_for(writer: Writer, step: int, seq: int) -> Manifest:
    """Return a manifest without files, for a snapshot to be taken."""
    return Manifest(step=step, token=writer.token, seq=seq, files=())


def snapshot_of(writer: Writer, source: Path, target: Path, seq: int = 1) -> Snapshot:
    """Take and seal a snapshot of a checkpoint folder."""
    step = int(source.name.split("-")[1])
    return seal_snapshot(take_snapshot(source, target, seq, manifest_for(writer, step, seq)))


def commit_step(
    store: Store,
    writer: Writer,
    work: Path,
    step: int,
    *,
    seq: int = 1,
    resumed_from: int | None = None,
    known: Commit | None = None,
    used: set[str] | None = None,
) -> Commit:
    """Write a checkpoint of ``step`` below ``work``, bring it into the vault and commit it."""
    source = write_checkpoint(work / f"t{writer.token}-s{seq}", step)
    snapshot = snapshot_of(writer, source, work / f"snapshots-{writer.token}", seq)
    transfer = transfer_of(writer, snapshot, used)
    send(store, snapshot, transfer, known=known)
    write_part(store, snapshot, transfer, 0)
    return commit(store, writer, snapshot.manifest, transfer, resumed_from=resumed_from)


def claim(store: Store) -> Writer:
    """Claim a vault."""
    return Writer.claim(store, Log(store))[0]


def numbers(store: Store) -> list[int]:
    """Return the numbers of all entries of a vault's log."""
    return [number for item in store.list(LOG) if (number := entry_number(item.key)) is not None]


def entries(store: Store) -> list[Entry]:
    """Return all entries of a vault's log, oldest first."""
    log = Log(store)
    return [log.read(number) for number in numbers(store)]


def objects(store: Store, prefix: str = "") -> dict[str, bytes]:
    """Return every object below a prefix with its content."""
    return {item.key: store.read(item.key, limit=2**26) for item in store.list(prefix)}


def flip(store: Store, key: str) -> None:
    """Flip one bit in the middle of an object."""
    data = bytearray(store.read(key, limit=2**26))
    data[len(data) // 2] ^= 1
    store.write(key, bytes(data))


def forge_entry(store: Store, number: int, change: dict[str, Any]) -> None:
    """Replace fields of an entry, nested as ``{"state": {"token": 9}}``, and give it a digest that fits."""
    body = json.loads(store.read(entry_key(number), limit=2**26))
    body.pop("check")
    _update(body, change)
    store.write(entry_key(number), sign(body))


def sign(body: dict[str, Any]) -> bytes:
    """Return an entry's bytes with the digest that belongs to them: what a hostile writer would store."""
    return dump({**body, "check": digest_bytes(dump(body))})


def file_entry(path: str = "model.safetensors", content: bytes = b"x") -> FileEntry:
    """Return the line of a manifest for a file."""
    return FileEntry(path, len(content), digest_bytes(content))


def transfer_of(writer: Writer, snapshot: Snapshot, used: set[str] | None = None) -> Transfer:
    """Return a new transfer for a snapshot."""
    name = folder_name(snapshot.name, snapshot.seq, set() if used is None else used)
    return Transfer(folder_key(writer.token, name))


class ClockStore(FaultStore):
    """A store with a clock of its own: what is written through it was modified at ``time``."""

    def __init__(self, inner: Store, time: float = 1e9) -> None:
        super().__init__(inner)
        self.time = time
        self._modified: dict[str, float] = {}

    def _begin(self, name: str, key: str) -> tuple[Operation, Fault]:
        if name in ("create", "write", "upload", "copy"):
            self._modified[key] = self.time
        return super()._begin(name, key)

    def head(self, key: str) -> ObjectInfo:
        return self._dated(super().head(key))

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix, after=after):
            yield self._dated(info)

    def _dated(self, info: ObjectInfo) -> ObjectInfo:
        return ObjectInfo(info.key, info.size, info.etag, self._modified[info.key])


class Run:
    """A session without patience at the start or at the end, and the events that it told."""

    def __init__(self, store: Store, output_dir: Path, **options: Any) -> None:
        uri, at_step = options.pop("uri", "/nonexistent/vault"), options.pop("at_step", None)
        settings = Settings(vault=uri, resume_timeout=0, flush_timeout=0, upload_concurrency=1, **options)
        self.told: list[Event] = []
        self.session = Session(settings, output_dir, store=store, progress=False, at_step=at_step)
        self.training = Training(self.session)
        self.session.events.listen(self.told.append)

    def resume(self, parameters: Parameters = ()) -> Path | None:
        """Claim and bring what to go on from, as the Trainer's seam does."""
        return resume(self.session, AnyFiles(parameters))

    def save(self, step: int, *, size: int = 3000, parameters: Parameters = ()) -> None:
        """Write a checkpoint as the Trainer does, and hand it over."""
        folder = self.session.output_dir / f"checkpoint-{step}"
        self.training.before_save(folder)
        write_checkpoint(self.session.output_dir, step, size)
        self.training.save(Save(folder, step, AnyFiles(), parameters))

    def wait(self, seconds: float = 30) -> None:
        """Wait until all uploads are done."""
        assert self.session.uploader is not None
        assert self.session.uploader.wait(seconds)

    def events(self, kind: str) -> list[Event]:
        """Return the events of one kind so far."""
        return [event for event in self.told if event.kind == kind]

    def close(self) -> None:
        """Give up at once what is under way, as a process does that is killed."""
        self.training.close()


def _update(body: dict[str, Any], change: dict[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, dict) and isinstance(body.get(name), dict):
            _update(body[name], value)
        else:
            body[name] = value
