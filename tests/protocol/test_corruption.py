"""Corruption in the vault: what is damaged is refused with the reason, and the checkpoint before it is used.

Nothing is ever written outside the checkpoint's folder, whatever a hostile vault says, and where nothing is
usable nothing changes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.vaults import FILES, content, start, train, tree, write_checkpoint
from vaultlayer_hf import (
    CorruptError,
    FormatVersionError,
    NoUsableCheckpointError,
    StoreDeniedError,
    VaultUnreachableError,
    open_vault,
)
from vaultlayer_hf.digest import digest_bytes
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.testing.faults import Fault, FaultStore
from vaultlayer_hf.vault.parse import dump

MANIFEST, PART = ".vault/manifest.json", ".vault/part-0.json"
NEWEST = "data/1/checkpoint-200"
COMMITS = (2, 3)
"""Numbers of the entries that commit checkpoint-100 and checkpoint-200."""

Damage = Callable[[bytes], bytes | None]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda data: b"",
    "flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
    ),
    "zero tail": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "deleted": lambda data: None,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with two checkpoints, 100 and 200, and no end."""
    folder = tmp_path_factory.mktemp("template")
    train(str(folder / "vault"), folder / "output", 100, 200)
    return folder / "vault"


@pytest.fixture
def vault(template: Path, tmp_path: Path) -> Path:
    """A copy of that vault, to be damaged."""
    shutil.copytree(template, tmp_path / "vault")
    return tmp_path / "vault"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An empty disk."""
    return tmp_path / "output"


def damage(store: Store, key: str, how: Damage) -> None:
    """Replace an object by what a damage makes of it."""
    data = how(store.read(key, limit=2**26))
    if data is None:
        store.delete([key])
    else:
        store.write(key, data)


def swap(store: Store, one: str, other: str) -> None:
    """Let two objects change places."""
    first, second = store.read(one, limit=2**26), store.read(other, limit=2**26)
    assert first != second
    store.write(one, second)
    store.write(other, first)


def assert_older_is_used(vault: str, output: Path, key: str) -> None:
    """Check that a start refuses the newest checkpoint because of ``key``, and goes on from the one before."""
    outside = tree(output.parent, without=(output, output.parent / "vault"))
    path, heard = start(vault, output)
    assert path == output / "checkpoint-100"
    assert key in heard.reasons("walk-back")
    assert content(path) == content(write_checkpoint(output / "expected", 100))
    assert not (output / "checkpoint-200").exists()
    assert tree(output.parent, without=(output, output.parent / "vault")) == outside


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(vault: Path, output: Path, name: str, how: str) -> None:
    """Each file of a checkpoint, damaged in each way, is refused with its name; the checkpoint before is used."""
    damage(open_store(str(vault)), f"{NEWEST}/{name}", DAMAGES[how])
    with open_vault(str(vault)) as opened:
        assert [opened.verify(commit).ok for commit in opened.checkpoints()] == [True, False]
    assert_older_is_used(str(vault), output, f"{NEWEST}/{name}")


def test_a_file_with_more_behind_it(vault: Path) -> None:
    """A file that has grown would be no copy of the checkpoint for who takes the folder out: verification says so."""
    damage(open_store(str(vault)), f"{NEWEST}/model.safetensors", lambda data: data + b"more")
    with open_vault(str(vault)) as opened:
        report = opened.verify(opened.checkpoints()[-1])
    assert not report.ok
    assert "3004 bytes" in report.problems[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{NEWEST}/model.safetensors", f"{NEWEST}/optimizer.pt"),
        (f"{NEWEST}/model.safetensors", f"{NEWEST}/tokenizer/vocab.bin"),
        (f"{NEWEST}/{MANIFEST}", f"{NEWEST}/{PART}"),
    ],
)
def test_two_files_swapped(vault: Path, output: Path, one: str, other: str) -> None:
    """Two files of one checkpoint that have changed places are refused, though each is whole."""
    swap(open_store(str(vault)), one, other)
    assert_older_is_used(str(vault), output, f"{NEWEST}/")


@pytest.mark.parametrize("name", ["optimizer.pt", MANIFEST])
def test_a_file_of_another_checkpoint(vault: Path, output: Path, name: str) -> None:
    """A whole file of the checkpoint before, in the place of the right one, is refused: nothing is ever mixed."""
    store = open_store(str(vault))
    store.write(f"{NEWEST}/{name}", store.read(f"data/1/checkpoint-100/{name}", limit=2**26))
    assert_older_is_used(str(vault), output, f"{NEWEST}/{name}")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_manifest(vault: Path, output: Path, how: str) -> None:
    """A manifest damaged in any way isn't believed, and its checkpoint isn't used."""
    damage(open_store(str(vault)), f"{NEWEST}/{MANIFEST}", DAMAGES[how])
    assert_older_is_used(str(vault), output, f"{NEWEST}/{MANIFEST}")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_part_costs_nothing(vault: Path, output: Path, how: str) -> None:
    """The part of a node only serves the commit: once that is done, its loss is no loss."""
    damage(open_store(str(vault)), f"{NEWEST}/{PART}", DAMAGES[how])
    path, heard = start(str(vault), output)
    assert path == output / "checkpoint-200"
    assert heard.reasons("walk-back") == ""


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_last_entry(vault: Path, output: Path, how: str) -> None:
    """Where the newest entry is damaged, the state before it holds, which is said; its number is never used again."""
    store = open_store(str(vault))
    damage(store, "log/00000000000000000003.json", DAMAGES[how])
    path, heard = start(str(vault), output)
    assert path == output / "checkpoint-100"
    if how != "deleted":  # nothing tells of an entry that somebody took away from the end
        assert "log entry 3" in heard.reasons("walk-back")
        assert store.exists("log/00000000000000000004.json")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_older_entry_costs_nothing(vault: Path, output: Path, number: int, how: str) -> None:
    """The last entry carries the whole state, so the loss of any before it is no loss."""
    damage(open_store(str(vault)), f"log/{number:020d}.json", DAMAGES[how])
    path, _ = start(str(vault), output)
    assert path == output / "checkpoint-200"


def test_two_entries_swapped(vault: Path, output: Path) -> None:
    """An entry is believed only under its own number; without any commit left the start fails, never at step 0."""
    swap(open_store(str(vault)), "log/00000000000000000002.json", "log/00000000000000000003.json")
    before = tree(vault)
    with pytest.raises(NoUsableCheckpointError, match="damaged behind entry 1"):
        start(str(vault), output)
    assert tree(vault) == before
    assert not output.exists()


HINTS = {
    "empty": b"",
    "binary": bytes(range(256)),
    "deep": b"[" * 4000,
    "a list": b"[1]",
    "no number": b'{"number": "7"}',
    "negative": b'{"number": -5}',
    "too high": b'{"number": 12345678}',
    "beyond all": b'{"number": 1%s}' % (b"0" * 400),
    "not a number": b'{"number": NaN}',
    "true": b'{"number": true}',
    "large": b" " * 10000,
    "stale": b'{"number": 1}',
}


@pytest.mark.parametrize("name", HINTS)
def test_a_wrong_hint_costs_nothing(vault: Path, output: Path, name: str) -> None:
    """The hint may say anything, or be gone: the newest checkpoint is found nevertheless."""
    open_store(str(vault)).write("hint.json", HINTS[name])
    path, _ = start(str(vault), output)
    assert path == output / "checkpoint-200"


def hostile(store: Store, change: Callable[[dict[str, Any]], Any], manifest: bytes | None = None) -> None:
    """Change the newest manifest, and forge the log entry so that it vouches for it."""
    key, entry = f"{NEWEST}/{MANIFEST}", f"log/{COMMITS[-1]:020d}.json"
    body = json.loads(store.read(key, limit=2**26))
    change(body)
    data = json.dumps(body).encode() if manifest is None else manifest
    store.write(key, data)
    log = json.loads(store.read(entry, limit=2**26))
    commit = log["state"]["commits"][-1]
    commit["manifest"], commit["manifest_size"] = digest_bytes(data), len(data)
    del log["check"]
    store.write(entry, dump({**log, "check": digest_bytes(dump(log))}))


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
def test_a_hostile_manifest(vault: Path, output: Path, name: str) -> None:
    """A manifest that the log vouches for is still checked as hostile: refused, and nothing lands outside."""
    hostile(open_store(str(vault)), MANIFESTS[name])
    assert_older_is_used(str(vault), output, f"{NEWEST}/")
    assert not Path("/tmp/vaultlayer-evil").exists()


@pytest.mark.parametrize(
    "data",
    [b"[" * 100000, b"[" * 900 + b"]" * 900, b'{"a":' * 50000, b"null", b"\xff\xfe", b'{"step": 1e999}'],
)
def test_a_manifest_that_is_no_manifest(vault: Path, output: Path, data: bytes) -> None:
    """Deep, odd or unreadable JSON is a damage like any other, and never a crash."""
    hostile(open_store(str(vault)), lambda body: None, data)
    assert_older_is_used(str(vault), output, f"{NEWEST}/")


def test_too_many_files(vault: Path, output: Path) -> None:
    """A manifest with more than a million files is refused before anything is made of them."""
    row = {"path": "x", "size": 0, "digest": "blake3:" + "0" * 64}
    hostile(open_store(str(vault)), lambda body: body.update(files=[row] * 1_000_001))
    assert_older_is_used(str(vault), output, f"{NEWEST}/")


def test_a_newer_format_is_no_damage(vault: Path, output: Path) -> None:
    """A checkpoint of a newer release isn't walked back from: the user is told to upgrade, and nothing is claimed."""
    hostile(open_store(str(vault)), lambda body: body.update(format_version=2))
    before = tree(vault)
    with pytest.raises(FormatVersionError, match="upgrade"):
        start(str(vault), output)
    assert tree(vault) == before
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
    "deep": lambda log: log.update(detail=json.loads('{"a":' * 400 + "1" + "}" * 400)),
}


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "deep"])
def test_a_hostile_entry(vault: Path, output: Path, name: str) -> None:
    """An entry whose own digest holds is still checked: what could lead outside isn't believed."""
    store, key = open_store(str(vault)), "log/00000000000000000003.json"
    log = json.loads(store.read(key, limit=2**26))
    del log["check"]
    ENTRIES[name](log)
    store.write(key, dump({**log, "check": digest_bytes(dump(log))}))
    assert_older_is_used(str(vault), output, "log entry 3")


def test_a_hostile_number(vault: Path, output: Path) -> None:
    """An entry with a number far ahead doesn't hide the log: it is said to be damaged, and nothing is loaded."""
    open_store(str(vault)).write("log/99999999999999999999.json", b"{}")
    before = tree(vault)
    with pytest.raises(CorruptError, match="damaged"):
        start(str(vault), output)
    assert tree(vault) == before


@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST, ""])
def test_a_link_out_of_the_vault(vault: Path, output: Path, name: str, tmp_path: Path) -> None:
    """A link that leads out of the vault isn't followed, even to the right bytes: the start says so, loads nothing."""
    outside = tmp_path / "outside"
    place = vault / NEWEST / name if name else vault / NEWEST
    shutil.move(place, outside)
    place.symlink_to(outside)
    with pytest.raises(VaultUnreachableError, match="a symbolic link leads out of the vault"):
        start(str(vault), output)
    assert not list(output.glob("checkpoint-*"))


def test_a_link_in_the_place_of_the_checkpoint(vault: Path, output: Path, tmp_path: Path) -> None:
    """A link in output_dir isn't written through: it is replaced, and what it leads to stays as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.safetensors").write_bytes(b"precious")
    (outside / "notes.txt").write_bytes(b"precious")
    output.mkdir()
    (output / "checkpoint-200").symlink_to(outside)
    path, _ = start(str(vault), output)
    assert path == output / "checkpoint-200"
    assert not path.is_symlink()
    assert content(path) == content(write_checkpoint(output / "expected", 200))
    assert content(outside) == {"model.safetensors": b"precious", "notes.txt": b"precious"}


def test_nothing_is_usable(vault: Path, output: Path) -> None:
    """Where every checkpoint is damaged the start fails, says why for each, and changes neither disk nor data."""
    store = open_store(str(vault))
    damage(store, f"{NEWEST}/optimizer.pt", DAMAGES["flipped"])
    damage(store, f"data/1/checkpoint-100/{MANIFEST}", DAMAGES["deleted"])
    local = tree(write_checkpoint(output, 50))
    data = tree(vault / "data")
    with pytest.raises(NoUsableCheckpointError) as raised:
        start(str(vault), output)
    assert f"{NEWEST}/optimizer.pt" in str(raised.value)
    assert f"data/1/checkpoint-100/{MANIFEST}" in str(raised.value)
    assert tree(vault / "data") == data
    assert tree(output / "checkpoint-50") == local
    assert [path.name for path in output.iterdir() if path.name.startswith("checkpoint")] == ["checkpoint-50"]


def test_every_entry_is_damaged(vault: Path, output: Path) -> None:
    """A log without a readable entry is an error, never an empty vault, and nothing is claimed."""
    store = open_store(str(vault))
    for number in (1, 2, 3):
        damage(store, f"log/{number:020d}.json", DAMAGES["flipped"])
    before = tree(vault)
    with pytest.raises(CorruptError, match="damaged"):
        start(str(vault), output)
    assert tree(vault) == before
    assert not output.exists()


def test_the_log_is_gone(vault: Path, output: Path) -> None:
    """Checkpoints without a log are no empty vault: the start fails and never begins at step 0 in silence."""
    shutil.rmtree(vault / "log")
    before = tree(vault)
    with pytest.raises(NoUsableCheckpointError, match="log"):
        start(str(vault), output)
    assert tree(vault) == before
    assert not output.exists()


def test_a_denied_file_is_no_damage(vault: Path, output: Path) -> None:
    """A permission that is lost while a checkpoint is fetched doesn't lead to an older one: it is said."""

    def plan(operation: Any) -> Fault | None:
        refused = operation.name == "read_range" and operation.key.endswith("optimizer.pt")
        return Fault.refused(StoreDeniedError("read_range", operation.key, "expired")) if refused else None

    with pytest.raises(VaultUnreachableError, match="expired"):
        start(str(vault), output, store=FaultStore(open_store(str(vault)), plan))
    assert not (output / "checkpoint-100").exists()


def test_a_local_copy_needs_no_vault_copy(vault: Path, output: Path) -> None:
    """Where the local disk still has the right bytes, damage in the vault costs nothing."""
    write_checkpoint(output, 200)
    damage(open_store(str(vault)), f"{NEWEST}/optimizer.pt", DAMAGES["flipped"])
    path, heard = start(str(vault), output)
    assert path == output / "checkpoint-200"
    assert heard.reasons("walk-back") == ""


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_damage_is_not_copied_into_new_checkpoints(vault: Path, output: Path, how: str) -> None:
    """A file that went bad in the vault is sent again by a run that never read it there, not copied on."""
    write_checkpoint(output, 200)
    damage(open_store(str(vault)), f"{NEWEST}/training_args.bin", DAMAGES[how])
    train(str(vault), output, 300, 400)
    path, heard = start(str(vault), output.with_name("another"))
    assert path is not None
    assert path.name == "checkpoint-400"
    assert heard.reasons("walk-back") == ""


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted", "manifest"])
def test_on_s3(template: Path, output: Path, s3_uri: str, how: str) -> None:
    """The same on S3: a damaged file and an edited manifest are refused, the checkpoint before is used."""
    store, origin = open_store(s3_uri), open_store(str(template))
    for item in origin.list(""):
        store.write(item.key, origin.read(item.key, limit=2**26))
    if how == "manifest":
        hostile(store, MANIFESTS["parent"])
    else:
        damage(store, f"{NEWEST}/optimizer.pt", DAMAGES[how])
    assert_older_is_used(s3_uri, output, f"{NEWEST}/")
