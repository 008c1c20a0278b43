"""Files that are written from a copy past the page cache: byte for byte those of the libraries, with their digests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vaultlayer_hf.base.digest import KnownDigest, digest_file
from vaultlayer_hf.state.capture import direct
from vaultlayer_hf.state.capture.recorded import Recorded, on_host, recording
from vaultlayer_hf.state.capture.writing import FileWriter

State = dict[str, Any]


def state(seed: int, *, more: bool = False) -> State:
    """Some MB of state, of odd sizes and types; ``more``: its pickle is longer."""
    torch.manual_seed(seed)
    made: State = {f"{number}": torch.randn(257, 1023) for number in range(5)}
    made["half"] = torch.randn(1001).to(torch.bfloat16)
    made["step"] = torch.tensor(float(seed))
    made["none"] = torch.empty(0)
    made["bool"] = torch.rand(7) > 0.5
    if more:
        made["rates"] = torch.ones(3)
    return made


def by_torch(made: State, path: Path) -> None:
    """As the Trainer saves an optimizer's state."""
    torch.save({"state": made, "lr": float(made["step"])}, path)


def by_safetensors(made: State, path: Path) -> None:
    """As the Trainer saves a model."""
    safetensors.torch.save_file(made, path, {"format": "pt"})


KINDS: dict[str, tuple[Callable[[State, Path], None], str]] = {
    "torch": (by_torch, "optimizer.pt"),
    "safetensors": (by_safetensors, "model.safetensors"),
}


def written(writer: FileWriter, save: Callable[[State, Path], None], made: State, path: Path) -> Any:
    """Record a save, write it, and return the digest that is known of its file."""
    recorded: list[Recorded] = []
    path.parent.mkdir(exist_ok=True)
    with recording(recorded):
        save(made, path)
    assert recorded
    assert not path.exists()
    return writer.write(recorded, on_host).get(path)


def same(save: Callable[[State, Path], None], made: State, path: Path) -> bool:
    """Whether a file is what its library writes."""
    other = path.parent / "by the library" / path.name
    other.parent.mkdir(exist_ok=True)
    save(made, other)
    return path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_behind_the_first_are_the_librarys_too(kind: str, tmp_path: Path) -> None:
    """Put together from the frame of the first one they are byte for byte the library's, and so is their digest."""
    save, name = KINDS[kind]
    writer = FileWriter()
    for number, more in enumerate((False, False, False, True, True)):
        made, path = state(number, more=more), tmp_path / f"{number}" / name
        known = written(writer, save, made, path)
        assert same(save, made, path)
        # The first of its kind is the library's own; then it takes another form once.
        assert (known is None) == (number in (0, 3))
        if known is not None:
            look = path.stat()
            assert known == KnownDigest(look.st_size, look.st_mtime_ns, digest_file(path)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_where_there_is_no_way_past_the_page_cache_the_library_writes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that refuses it gets the library's files."""
    save, name = KINDS[kind]
    opened = os.open

    def refusing(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(direct.os, "open", refusing)
    writer = FileWriter()
    for number in range(3):
        made, path = state(number), tmp_path / f"{number}" / name
        assert written(writer, save, made, path) is None
        assert same(save, made, path)


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk refuses within the writing comes out as it is, and torch's own writer is left in peace."""
    writer = FileWriter()
    written(writer, by_torch, state(0), tmp_path / "0" / "optimizer.pt")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(direct.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        written(writer, by_torch, state(1), tmp_path / "1" / "optimizer.pt")


def test_what_is_pickled_later_says_what_was_so_at_the_save(tmp_path: Path) -> None:
    """Numbers, lists and the very tensors that a state dict names may be others by the time at which it is pickled."""
    group: dict[str, Any] = {"lr": 0.5, "betas": (0.9, 0.99), "ids": [0, 1]}
    moment = torch.ones(2**19)
    made: dict[str, Any] = {
        "state": {0: {"moment": moment, "same": moment, "step": 3}},
        "groups": [group, {**group}],
    }
    expected = tmp_path / "then" / "optimizer.pt"
    expected.parent.mkdir()
    torch.save(made, expected)
    recorded: list[Recorded] = []
    path = tmp_path / "optimizer.pt"
    with recording(recorded):
        torch.save(made, path)
    group["lr"], group["ids"][0] = 0.25, 9
    made["state"][0]["step"] = 4
    made["state"][1] = {}
    moment.data = torch.zeros(3)
    FileWriter().write(recorded, on_host)
    assert path.read_bytes() == expected.read_bytes()
