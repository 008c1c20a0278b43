"""Whether a file can be loaded is told by a look that reads none of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vaultlayer_hf.state.loadable import Kind, LoadTrial


def trial(kind: Kind, folder: Path, name: str = "file") -> list[str]:
    """Try one file."""
    return LoadTrial(lambda path: kind)(folder, [name])


def archive(old: bool, folder: Path) -> bytes:
    """The bytes of what torch saves, in its format of now or that before 1.6."""
    torch.save({"a": torch.ones(300), "n": 1}, folder / "made", _use_new_zipfile_serialization=not old)
    return (folder / "made").read_bytes()


@pytest.mark.parametrize("old", [False, True], ids=["archive", "before 1.6"])
@pytest.mark.parametrize("left", [0, 1, 9, 100, -1, -30, -600])
def test_a_file_of_torch_that_is_cut(old: bool, left: int, tmp_path: Path) -> None:
    """Wherever it is cut it can't be loaded, and whole it can."""
    data = archive(old, tmp_path)
    (tmp_path / "file").write_bytes(data)
    assert trial("weights", tmp_path) == []
    (tmp_path / "file").write_bytes(data[:left])
    assert len(trial("weights", tmp_path)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-8],
        lambda data: data[:4],
        lambda data: data[:8] + b"x" * (len(data) - 8),
        lambda data: b"",
    ],
    ids=["short", "shorter than a header", "no header", "empty"],
)
def test_a_file_of_safetensors_that_is_damaged(damage: Any, tmp_path: Path) -> None:
    """Its header is read, and its length must be what that says."""
    save_file({"a": torch.ones(30), "empty": torch.ones(0)}, tmp_path / "file")
    assert trial("tensors", tmp_path) == []
    (tmp_path / "file").write_bytes(damage((tmp_path / "file").read_bytes()))
    assert trial("tensors", tmp_path) == [
        "file can't be loaded: it is shorter than its header says, or has none"
    ]


def test_json_without_an_end_and_a_file_that_is_gone(tmp_path: Path) -> None:
    """Neither raises; both are said."""
    (tmp_path / "file").write_text('{"a": [1, 2')
    assert trial("json", tmp_path) == ["file can't be loaded: it is no JSON"]
    assert "No such file" in trial("json", tmp_path, "gone")[0]


class Own:
    """A class that ``torch.load(weights_only=True)`` doesn't know."""


def test_what_is_in_a_file_is_loaded_anew_where_its_types_change(tmp_path: Path) -> None:
    """An object of a script's own that comes later is found then; torch's error names it, in one line."""
    one = LoadTrial(lambda path: "weights")
    for value, lacks in ((1, 0), (2, 0), (Own(), 1), (3, 0)):
        torch.save({"a": torch.ones(30), "n": value}, tmp_path / "file")
        found = one(tmp_path, ["file"])
        assert len(found) == lacks
    torch.save({"n": Own()}, tmp_path / "file")
    (said,) = one(tmp_path, ["file"])
    assert "Own" in said
    assert "\n" not in said
    assert trial("archive", tmp_path) == []
