"""Files that a save would have written: recorded while it runs, written later from a copy, byte for byte the same.

A file of ``torch.save`` is recorded by torch's own code, which is handed a file that only remembers what is put into
it: what small objects say is what they say at the save, in the bytes of the stock file. That is pickled at once, or
where it consists of builtin containers and plain tensors, frozen at once and pickled later (frozen.py). A tensor's
content is its storage, and that is what is copied. Where the recording can't be understood the file is written at once,
as stock does.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import serialization

from vaultlayer_hf.base.files import Deferred
from vaultlayer_hf.state.capture.copying import copied
from vaultlayer_hf.state.capture.frames import (
    ArchiveWriter,
    Content,
    Frame,
    Put,
    UnlikeError,
    contents_of_archive,
    contents_of_safetensors,
)
from vaultlayer_hf.state.capture.frozen import UnknownError, freeze

Storage = torch.UntypedStorage
Record = tuple[str, bytes | str | Storage, int]
"""A record of a zip: its name, its content, and the size of that."""
Place = tuple[Any, str]
"""A module and the name in it under which callers find a function."""
SAVE_FILE = "save_file"
WRITTEN_AT_ONCE = 2**20
"""Bytes of tensors below which a file is written by stock's own call: random states, schedules, arguments."""


class Recorded(Protocol):
    """A file that is written later, as ``path``; where ``final`` is set it then gets that name (see ``Deferred``)."""

    path: Path
    final: Path | None

    @property
    def kind(self) -> object:
        """Equal for the same file of two saves, where only the tensors' contents differ."""

    def storages(self) -> Sequence[Storage]:
        """Return the storages that its content is taken from."""

    def write(self, copy_of: Callable[[Storage], Storage]) -> None:
        """Write it. ``copy_of`` gives the host's copy of a storage. Raises what the libraries and the disk raise."""

    def contents(self) -> list[Content]:
        """Return where in the written file each tensor's content is. Raises what reading it raises."""

    def put(self, frame: Frame, copy_of: Callable[[Storage], Storage], put: Put) -> None:
        """Put its bytes into the frame of a file of its kind. Raises UnlikeError, and what ``put`` raises."""


@dataclass
class TorchFile(Deferred):
    """A file of ``torch.save``.

    Attributes:
        path: see ``Recorded``.
        held: the storages among the records.
        pickled: returns the records of the zip, in their order, each bytes or a storage.
    """

    path: Path
    held: Sequence[Storage]
    pickled: Callable[[], list[Record]]

    @cached_property
    def records(self) -> list[Record]:
        """What ``pickled`` returns."""
        return self.pickled()

    @property
    def kind(self) -> object:
        """The archive's own name, and those of its records with their sizes."""
        return self.path.name, tuple((name, size) for name, _, size in self.records)

    def storages(self) -> Sequence[Storage]:
        """Return the storages among the records."""
        return self.held

    def write(self, copy_of: Callable[[Storage], Storage]) -> None:
        """Write the zip."""
        self._write(str(self.path), copy_of)

    def contents(self) -> list[Content]:
        """Return where its records are."""
        return contents_of_archive(self.path)

    def put(self, frame: Frame, copy_of: Callable[[Storage], Storage], put: Put) -> None:
        """Have torch write it, and put what is written into the frame."""
        self._write(ArchiveWriter(frame, put), copy_of)

    def _write(self, to: Any, copy_of: Callable[[Storage], Storage]) -> None:
        with serialization._open_zipfile_writer(to) as file:
            for name, what, size in self.records:
                file.write_record(name, copy_of(what) if isinstance(what, Storage) else what, size)


@dataclass
class SafetensorsFile(Deferred):
    """A file of ``safetensors.torch.save_file``."""

    path: Path
    tensors: Mapping[str, torch.Tensor]
    metadata: dict[str, str] | None

    @property
    def kind(self) -> object:
        """Its tensors' names, types and shapes, and what else its header says."""
        tensors = tuple((name, one.dtype, one.shape) for name, one in self.tensors.items())
        return self.path.name, tensors, tuple((self.metadata or {}).items())

    def storages(self) -> Sequence[Storage]:
        """Return the storages of its tensors."""
        return [tensor.untyped_storage() for tensor in self.tensors.values()]

    def write(self, copy_of: Callable[[Storage], Storage]) -> None:
        """Write it."""
        copies = {name: copied(tensor, copy_of) for name, tensor in self.tensors.items()}
        safetensors.torch.save_file(copies, str(self.path), self.metadata)

    def contents(self) -> list[Content]:
        """Return where its tensors are."""
        return contents_of_safetensors(self.path)

    def put(self, frame: Frame, copy_of: Callable[[Storage], Storage], put: Put) -> None:
        """Put the tensors between what is around them."""
        for gap, name in zip(frame.gaps, frame.names, strict=False):
            tensor = copied(self.tensors[name], copy_of)
            if not tensor.is_contiguous():
                raise UnlikeError(f"{name} isn't contiguous")
            put(gap)
            put(tensor.reshape(-1).view(torch.uint8).numpy().data)
        put(frame.gaps[-1])


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
    if not str(path).isascii() or not _is_understood():  # torch writes a file of such a name in another way
        return None
    try:
        frozen, storages = freeze(obj)
    except UnknownError:
        records = _records_of(obj)
        if records is None:  # stock's call says what is wrong
            return None
        storages = [what for _, what, _ in records if isinstance(what, Storage)]
        found = TorchFile(path, storages, lambda: records)
    else:
        found = TorchFile(path, storages, lambda: _records_of(frozen) or [])
    if sum({one.data_ptr(): one.nbytes() for one in storages}.values()) < WRITTEN_AT_ONCE:
        return None
    return None if any(one.device.type == "meta" for one in storages) else found


@cache
def _is_understood() -> bool:
    """Tell whether this torch pickles as it is recorded here."""
    records = _records_of({"a": torch.zeros(3)})
    return records is not None and [type(what) for _, what, _ in records].count(Storage) == 1


def _records_of(obj: Any) -> list[Record] | None:
    """Return the records of ``torch.save``; None where they can't be had. Raises what pickling ``obj`` raises."""
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
    file = _Records(found)
    try:
        with serialization.skip_data():
            _torch_save(obj, file, Module, serialization.DEFAULT_PROTOCOL, False)
    except (AttributeError, KeyError, TypeError, IndexError):
        return None
    return file.records


_torch_save: Any = serialization._save


class _Records:
    """Stands for the zip that torch writes to, and remembers its records."""

    def __init__(self, storages: Mapping[str, Storage]) -> None:
        self.records: list[Record] = []
        self._storages = storages

    def write_record(self, name: str, content: bytes | str, size: int) -> None:
        """Remember a record with its content."""
        self.records.append((name, content, size))

    def write_record_metadata(self, name: str, size: int) -> None:
        """Remember the record of a storage, which torch leaves without content."""
        self.records.append((name, self._storages[name.rpartition("/")[2]], size))


def _shares(tensors: Any) -> bool:
    """Tell whether tensors share memory, which safetensors refuses or takes in a way of its own."""
    places = [tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()]
    return len(places) != len(set(places))
