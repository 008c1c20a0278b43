"""A vault written by an enemy: whatever it says, nothing lands outside the checkpoint's folder, nothing crashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vault.damage import MANIFEST, NEWEST, assert_older_is_used, hostile
from tests.vault.vaults import FILES, content, start, tree, write_checkpoint
from vaultlayer_hf import CorruptError, FormatVersionError, VaultUnreachableError
from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.parse import dump


def _path(path: str) -> Callable[[dict[str, Any]], Any]:
    return lambda body: body["files"][0].update(path=path)


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "absolute": _path("/tmp/vaultlayer-evil"),
    "parent": _path("../evil"),
    "parent inside": _path("tokenizer/../../evil"),
    "dot": _path("./model.safetensors"),
    "empty segment": _path("a//b"),
    "empty": _path(""),
    "backslash": _path("..\\evil"),
    "drive": _path("C:/evil"),
    "control": _path("evil\n"),
    "nul": _path("evil\0"),
    "lone surrogate": _path("evil\ud800"),
    "ours": _path(".vault/manifest.json"),
    "long name": _path("a" * 300),
    "long path": _path("/".join(["a" * 100] * 20)),
    "no text": _path(7),  # type: ignore[arg-type]
    "twice": lambda body: body["files"].append(body["files"][0]),
    "file and folder": lambda body: body["files"][0].update(path=FILES[-1] + "/x"),
    "no files": lambda body: body.update(files=[]),
    "files no list": lambda body: body.update(files={"a": 1}),
    "file no object": lambda body: body["files"].append("model.safetensors"),
    "negative size": lambda body: body["files"][0].update(size=-1),
    "huge size": lambda body: body["files"][0].update(size=2**60),
    "size is true": lambda body: body["files"][0].update(size=True),
    "size a fraction": lambda body: body["files"][0].update(size=10.5),
    "larger than the disk": lambda body: body["files"][0].update(size=2**49),
    "a little larger": lambda body: body["files"][0].update(size=body["files"][0]["size"] + 1),
    "weak digest": lambda body: body["files"][0].update(digest="md5:d41d8cd98f00b204e9800998ecf8427e"),
    "no digest": lambda body: body["files"][0].pop("digest"),
    "another step": lambda body: body.update(step=100),
    "negative step": lambda body: body.update(step=-1),
    "another token": lambda body: body.update(token=9),
    "world of nobody": lambda body: body.update(world_size=0),
    "no time": lambda body: body.update(saved_at="now"),
    "time is not a number": lambda body: body.update(saved_at=float("nan")),
    "odd parameters": lambda body: body.update(parameters=[["w", ["x"], "float32"]]),
    "odd versions": lambda body: body.update(versions=[1]),
    "version 0": lambda body: body.update(format_version=0),
    "version a text": lambda body: body.update(format_version="1"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest(bad_vault: Path, output: Path, name: str) -> None:
    """A manifest that the log vouches for is still checked as hostile: refused, and nothing lands outside."""
    hostile(open_store(str(bad_vault)), MANIFESTS[name])
    assert_older_is_used(str(bad_vault), output, f"{NEWEST}/")
    assert not Path("/tmp/vaultlayer-evil").exists()


@pytest.mark.parametrize(
    "data",
    [b"[" * 100000, b"[" * 900 + b"]" * 900, b'{"a":' * 50000, b"null", b"\xff\xfe", b'{"step": 1e999}'],
)
def test_a_manifest_that_is_no_manifest(bad_vault: Path, output: Path, data: bytes) -> None:
    """Deep, odd or unreadable JSON is a damage like any other, and never a crash."""
    hostile(open_store(str(bad_vault)), lambda body: None, data)
    assert_older_is_used(str(bad_vault), output, f"{NEWEST}/")


def test_too_many_files(bad_vault: Path, output: Path) -> None:
    """A manifest with more than a million files is refused before anything is made of them."""
    row = {"path": "x", "size": 0, "digest": "blake3:" + "0" * 64}
    hostile(open_store(str(bad_vault)), lambda body: body.update(files=[row] * 1_000_001))
    assert_older_is_used(str(bad_vault), output, f"{NEWEST}/")


def test_a_newer_format_is_no_damage(bad_vault: Path, output: Path) -> None:
    """A checkpoint of a newer release isn't walked back from: the user is told to upgrade, and nothing is claimed."""
    hostile(open_store(str(bad_vault)), lambda body: body.update(format_version=2))
    before = tree(bad_vault)
    with pytest.raises(FormatVersionError, match="upgrade"):
        start(str(bad_vault), output)
    assert tree(bad_vault) == before
    assert not output.exists()


ENTRIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "folder outside": lambda log: log["state"]["commits"][-1].update(folder="data/1/../../../evil"),
    "folder of another": lambda log: log["state"]["commits"][-1].update(folder="data/7/checkpoint-200"),
    "retiring outside": lambda log: log["state"].update(retiring=["log"]),
    "retiring all": lambda log: log["state"].update(retiring=["data/1"]),
    "vault id a path": lambda log: log["state"].update(vault_id="../../evil"),
    "huge figure": lambda log: log["state"].update(metrics={"loss": 10**400}),
    "number of another": lambda log: log.update(number=2),
    "order": lambda log: log["state"]["commits"].reverse(),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_hostile_entry(bad_vault: Path, output: Path, name: str) -> None:
    """An entry whose own digest holds is still checked: what could lead outside isn't believed."""
    store, key = open_store(str(bad_vault)), "log/00000000000000000003.json"
    log = json.loads(store.read(key, limit=2**26))
    del log["check"]
    ENTRIES[name](log)
    store.write(key, dump({**log, "check": digest_bytes(dump(log))}))
    assert_older_is_used(str(bad_vault), output, "log entry 3")


@pytest.mark.parametrize("number", [9999, 10**20 - 1])
def test_a_hostile_number(bad_vault: Path, output: Path, number: int) -> None:
    """An entry with a number far ahead doesn't hide the log: the file is named, and with it gone the run goes on."""
    store, key = open_store(str(bad_vault)), f"log/{number:020d}.json"
    last = max(info.key for info in store.list("log/"))
    store.write(key, b"{}")
    before = tree(bad_vault)
    with pytest.raises(CorruptError, match=rf"{key} can't be read.*before it is {last}.*delete it"):
        start(str(bad_vault), output)
    assert tree(bad_vault) == before
    store.delete([key])
    assert start(str(bad_vault), output)[0] is not None


@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST, ""])
def test_a_link_out_of_the_vault(bad_vault: Path, output: Path, name: str, tmp_path: Path) -> None:
    """A link that leads out of the vault isn't followed, even to the right bytes: the start says so, loads nothing."""
    outside = tmp_path / "outside"
    place = bad_vault / NEWEST / name if name else bad_vault / NEWEST
    shutil.move(place, outside)
    place.symlink_to(outside)
    with pytest.raises(VaultUnreachableError, match="a symbolic link leads out of the vault"):
        start(str(bad_vault), output)
    assert not list(output.glob("checkpoint-*"))


def test_a_link_in_the_place_of_the_checkpoint(bad_vault: Path, output: Path, tmp_path: Path) -> None:
    """A link in output_dir isn't written through: it is replaced, and what it leads to stays as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.safetensors").write_bytes(b"precious")
    (outside / "notes.txt").write_bytes(b"precious")
    output.mkdir()
    (output / "checkpoint-200").symlink_to(outside)
    path, _ = start(str(bad_vault), output)
    assert path == output / "checkpoint-200"
    assert not path.is_symlink()
    assert content(path) == content(write_checkpoint(output / "expected", 200))
    assert content(outside) == {"model.safetensors": b"precious", "notes.txt": b"precious"}
