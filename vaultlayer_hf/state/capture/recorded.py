"""Files that a save would have written: recorded while it runs, written later from a copy, byte for byte the same.

A file of ``torch.save`` is recorded by torch's own code, which is handed a file that only remembers what is put into
it: all but the tensors' content is pickled at once, so what small objects say is what they say at the save, in the
bytes of the stock file. A tensor's content is its storage, and that is what is copied. Where the recording can't be
understood the file is written at once, as stock does.

The files go through the page cache, by a thread. Past it (O_DIRECT) would cost training less: on a busy machine of two
cores 2.1 s of training lost a GB instead of 7.9, the two reads behind a write included (``tests.benchmarks``, part h).
It isn't done because torch's writer of zips takes a path and nothing else, and a zip of our own would have to keep up
with its bytes. A process of lowest priority in the place of the thread takes several times as long on such a machine.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import serialization

from vaultlayer_hf.base import files
from vaultlayer_hf.base.files import Deferred
from vaultlayer_hf.state.capture.copying import copied

Storage = torch.UntypedStorage
Place = tuple[Any, str]
"""A module and the name in it under which callers find a function."""
SAVE_FILE = "save_file"
WRITTEN_AT_ONCE = 2**20
"""Bytes of tensors below which a file is written by stock's own call: random states, schedules, arguments."""


class Recorded(Protocol):
    """A file that is to be written; as ``path`` first where it is to have another name at the end, see ``Deferred``."""

    path: Path
    final: Path | None

    def storages(self) -> Sequence[Storage]:
        """Return what its content comes from."""

    def write(self, copy_of: Callable[[Storage], Storage]) -> None:
        """Write it. ``copy_of`` gives the host's copy of a storage. Raises what the libraries and the disk raise."""


@dataclass
class TorchFile(Deferred):
    """A file of ``torch.save``: records of a zip, in their order, each bytes or a storage."""

    path: Path
    records: list[tuple[str, bytes | str | Storage, int]] = field(default_factory=list)

    def storages(self) -> Sequence[Storage]:
        """Return the storages among the records."""
        return [what for _, what, _ in self.records if isinstance(what, Storage)]

    def write(self, copy_of: Callable[[Storage], Storage]) -> None:
        """Write the zip."""
        with serialization._open_zipfile_writer(str(self.path)) as file:
            for name, what, size in self.records:
                file.write_record(name, copy_of(what) if isinstance(what, Storage) else what, size)


@dataclass
class SafetensorsFile(Deferred):
    """A file of ``safetensors.torch.save_file``."""

    path: Path
    tensors: Mapping[str, torch.Tensor]
    metadata: dict[str, str] | None

    def storages(self) -> Sequence[Storage]:
        """Return the storages of its tensors."""
        return [tensor.untyped_storage() for tensor in self.tensors.values()]

    def write(self, copy_of: Callable[[Storage], Storage]) -> None:
        """Write it."""
        copies = {name: copied(tensor, copy_of) for name, tensor in self.tensors.items()}
        safetensors.torch.save_file(copies, str(self.path), self.metadata)


def write_files(recorded: Sequence[Recorded], copy_of: Callable[[Storage], Storage]) -> None:
    """Write recorded files, on the disk and by the names that they have at the end. Raises as ``Recorded.write``."""
    for one in recorded:
        one.write(copy_of)
        files.fsync_file(
            one.path
        )  # here, where it holds up nothing: what follows on the training thread is short
        if one.final is not None:
            files.rename(one.path, one.final)


def on_host(storage: Storage) -> Storage:
    """Return a storage itself where it is on the host, else a copy: for files that are written at once."""
    return storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]


@contextmanager
def recording(recorded: list[Recorded], places: Sequence[Place] = ()) -> Iterator[None]:
    """Have large files that this thread saves meanwhile added to ``recorded`` instead of written.

    Other threads save as ever, and so does this one where it is asked for what can't be recorded.

    Args:
        recorded: what is recorded, in the order of the calls.
        places: where else than in their own modules ``safetensors.torch.save_file`` is found by a name.
    """
    thread = threading.get_ident()
    save, save_file = torch.save, safetensors.torch.save_file

    def recording_save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        found = None
        if threading.get_ident() == thread and not args and not kwargs and isinstance(f, (str, os.PathLike)):
            found = record_torch_save(obj, Path(f))
        if found is None:
            return save(obj, f, *args, **kwargs)
        recorded.append(found)
        return found

    def recording_save_file(
        tensors: dict[str, torch.Tensor], filename: Any, metadata: dict[str, str] | None = None
    ) -> Any:
        plain = all(
            type(tensor) in (torch.Tensor, torch.nn.Parameter)
            and tensor.layout is torch.strided
            and tensor.device.type != "meta"
            for tensor in tensors.values()
        )
        size = sum(tensor.nbytes for tensor in tensors.values()) if plain else 0
        if threading.get_ident() != thread or size < WRITTEN_AT_ONCE or _shares(tensors.values()):
            return save_file(tensors, filename, metadata)
        recorded.append(found := SafetensorsFile(Path(filename), dict(tensors), metadata))
        return found

    wraps = {
        (torch, "save"): (save, recording_save),
        **{
            place: (save_file, recording_save_file)
            for place in ((safetensors.torch, SAVE_FILE), *places)
            if getattr(place[0], place[1], None) is save_file
        },
    }
    for (module, name), (_, ours) in wraps.items():
        setattr(module, name, ours)
    try:
        yield
    finally:
        for (module, name), (original, _) in wraps.items():
            setattr(module, name, original)


def record_torch_save(obj: Any, path: Path) -> TorchFile | None:
    """Return what ``torch.save(obj, path)`` would write; None where that is little, or this torch does it otherwise.

    Raises what pickling ``obj`` raises.
    """
    name = str(path)
    if not name.isascii():  # torch writes such a file in another way
        return None
    found: dict[str, Storage] = {}

    class Pickler(pickle.Pickler):
        """Notes which storage stands behind which number: torch's own subclass of it decides on both."""

        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            numbered = cls.__dict__["persistent_id"]

            def persistent_id(self: Any, one: Any) -> Any:
                number = numbered(self, one)
                if number is not None:
                    found[number[2]] = getattr(one, "_untyped_storage", one)
                return number

            setattr(cls, "persistent_id", persistent_id)  # noqa: B010

    class Module:
        """What torch takes for the module pickle."""

    for attribute, value in {**vars(pickle), "Pickler": Pickler}.items():
        setattr(Module, attribute, value)
    file = _Records(TorchFile(path), found)
    try:
        with serialization.skip_data():
            _torch_save(obj, file, Module, serialization.DEFAULT_PROTOCOL, False)
    except (AttributeError, KeyError, TypeError, IndexError):
        return None  # stock's call says what is wrong, if it isn't this
    recorded = file.file
    if sum(storage.nbytes() for storage in recorded.storages()) < WRITTEN_AT_ONCE:
        return None
    if any(storage.device.type == "meta" for storage in recorded.storages()):
        return None
    return recorded


_torch_save: Any = serialization._save


class _Records:
    """Stands for the zip that torch writes to, and remembers its records."""

    def __init__(self, file: TorchFile, storages: Mapping[str, Storage]) -> None:
        self.file = file
        self._storages = storages

    def write_record(self, name: str, content: bytes | str, size: int) -> None:
        """Remember a record with its content."""
        self.file.records.append((name, content, size))

    def write_record_metadata(self, name: str, size: int) -> None:
        """Remember the record of a storage, which torch leaves without content."""
        self.file.records.append((name, self._storages[name.rpartition("/")[2]], size))


def _shares(tensors: Any) -> bool:
    """Tell whether tensors share memory, which safetensors refuses or takes in a way of its own."""
    places = [tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()]
    return len(places) != len(set(places))
