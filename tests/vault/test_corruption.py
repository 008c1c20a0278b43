"""Corruption in the vault: what is damaged is refused with the reason, and the checkpoint before it is used.

Where nothing is usable, nothing changes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.vault.damage import (
    DAMAGES,
    MANIFEST,
    NEWEST,
    PART,
    assert_older_is_used,
    damage,
    hostile,
    swap,
)
from tests.vault.tools import forge_entry
from tests.vault.vaults import FILES, start, train, tree, write_checkpoint
from vaultlayer_hf import (
    CorruptError,
    NoUsableCheckpointError,
    StoreDeniedError,
    VaultUnreachableError,
    open_vault,
)
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.testing.faults import Fault, FaultStore


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(bad_vault: Path, output: Path, name: str, how: str) -> None:
    """Each file of a checkpoint, damaged in each way, is refused with its name; the checkpoint before is used."""
    damage(open_store(str(bad_vault)), f"{NEWEST}/{name}", DAMAGES[how])
    with open_vault(str(bad_vault)) as opened:
        assert [opened.verify(commit).ok for commit in opened.checkpoints()] == [True, False]
    assert_older_is_used(str(bad_vault), output, f"{NEWEST}/{name}")


def test_a_file_with_more_behind_it(bad_vault: Path) -> None:
    """A file that has grown would be no copy of the checkpoint for who takes the folder out: verification says so."""
    damage(open_store(str(bad_vault)), f"{NEWEST}/model.safetensors", lambda data: data + b"more")
    with open_vault(str(bad_vault)) as opened:
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
def test_two_files_swapped(bad_vault: Path, output: Path, one: str, other: str) -> None:
    """Two files of one checkpoint that have changed places are refused, though each is whole."""
    swap(open_store(str(bad_vault)), one, other)
    assert_older_is_used(str(bad_vault), output, f"{NEWEST}/")


@pytest.mark.parametrize("name", ["optimizer.pt", MANIFEST])
def test_a_file_of_another_checkpoint(bad_vault: Path, output: Path, name: str) -> None:
    """A whole file of the checkpoint before, in the place of the right one, is refused: nothing is ever mixed."""
    store = open_store(str(bad_vault))
    store.write(f"{NEWEST}/{name}", store.read(f"data/1/checkpoint-100/{name}", limit=2**26))
    assert_older_is_used(str(bad_vault), output, f"{NEWEST}/{name}")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_manifest(bad_vault: Path, output: Path, how: str) -> None:
    """A manifest damaged in any way isn't believed, and its checkpoint isn't used."""
    damage(open_store(str(bad_vault)), f"{NEWEST}/{MANIFEST}", DAMAGES[how])
    assert_older_is_used(str(bad_vault), output, f"{NEWEST}/{MANIFEST}")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_part_costs_nothing(bad_vault: Path, output: Path, how: str) -> None:
    """The part of a node only serves the commit: once that is done, its loss is no loss."""
    damage(open_store(str(bad_vault)), f"{NEWEST}/{PART}", DAMAGES[how])
    path, heard = start(str(bad_vault), output)
    assert path == output / "checkpoint-200"
    assert heard.reasons("walk-back") == ""


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_last_entry(bad_vault: Path, output: Path, how: str) -> None:
    """Where the newest entry is damaged, the state before it holds, which is said; its number is never used again."""
    store = open_store(str(bad_vault))
    damage(store, "log/00000000000000000003.json", DAMAGES[how])
    path, heard = start(str(bad_vault), output)
    assert path == output / "checkpoint-100"
    if how != "deleted":  # nothing tells of an entry that somebody took away from the end
        assert "log entry 3" in heard.reasons("walk-back")
        assert store.exists("log/00000000000000000004.json")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_older_entry_costs_nothing(bad_vault: Path, output: Path, number: int, how: str) -> None:
    """The last entry carries the whole state, so the loss of any before it is no loss."""
    damage(open_store(str(bad_vault)), f"log/{number:020d}.json", DAMAGES[how])
    path, _ = start(str(bad_vault), output)
    assert path == output / "checkpoint-200"


def test_two_entries_swapped(bad_vault: Path, output: Path) -> None:
    """An entry is believed only under its own number; without any commit left the start fails, never at step 0."""
    swap(open_store(str(bad_vault)), "log/00000000000000000002.json", "log/00000000000000000003.json")
    before = tree(bad_vault)
    with pytest.raises(NoUsableCheckpointError, match="damaged after entry 1"):
        start(str(bad_vault), output)
    assert tree(bad_vault) == before
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
def test_a_wrong_hint_costs_nothing(bad_vault: Path, output: Path, name: str) -> None:
    """The hint may say anything, or be gone: the newest checkpoint is found nevertheless."""
    open_store(str(bad_vault)).write("hint.json", HINTS[name])
    path, _ = start(str(bad_vault), output)
    assert path == output / "checkpoint-200"


def test_nothing_is_usable(bad_vault: Path, output: Path) -> None:
    """Where every checkpoint is damaged the start fails, says why for each, and changes neither disk nor data."""
    store = open_store(str(bad_vault))
    damage(store, f"{NEWEST}/optimizer.pt", DAMAGES["flipped"])
    damage(store, f"data/1/checkpoint-100/{MANIFEST}", DAMAGES["deleted"])
    local = tree(write_checkpoint(output, 50))
    data = tree(bad_vault / "data")
    with pytest.raises(NoUsableCheckpointError) as raised:
        start(str(bad_vault), output)
    assert f"{NEWEST}/optimizer.pt" in str(raised.value)
    assert f"data/1/checkpoint-100/{MANIFEST}" in str(raised.value)
    assert tree(bad_vault / "data") == data
    assert tree(output / "checkpoint-50") == local
    assert [path.name for path in output.iterdir() if path.name.startswith("checkpoint")] == ["checkpoint-50"]


def test_every_entry_is_damaged(bad_vault: Path, output: Path) -> None:
    """A log without a readable entry is an error, never an empty vault, and nothing is claimed."""
    store = open_store(str(bad_vault))
    for number in (1, 2, 3):
        damage(store, f"log/{number:020d}.json", DAMAGES["flipped"])
    before = tree(bad_vault)
    with pytest.raises(CorruptError, match="damaged"):
        start(str(bad_vault), output)
    assert tree(bad_vault) == before
    assert not output.exists()


def test_the_log_is_gone(bad_vault: Path, output: Path) -> None:
    """Checkpoints without a log are no empty vault: the start fails and never begins at step 0 in silence."""
    shutil.rmtree(bad_vault / "log")
    before = tree(bad_vault)
    with pytest.raises(NoUsableCheckpointError, match="log"):
        start(str(bad_vault), output)
    assert tree(bad_vault) == before
    assert not output.exists()


FORGERIES: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "a claim without commits": [(3, {"kind": "claim", "token": 3, "state": {"token": 3, "commits": []}})],
    "an end without commits": [(3, {"kind": "finish", "state": {"commits": [], "finished": 200}})],
    "claims alone, and one number is another's": [
        (1, {"kind": "claim", "token": 1, "number": 9, "state": {"token": 1}}),
        (2, {"kind": "claim", "token": 2, "state": {"token": 2, "commits": []}}),
        (3, {"kind": "claim", "token": 3, "state": {"token": 3, "commits": []}}),
    ],
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_log_that_denies_its_checkpoints(bad_vault: Path, output: Path, name: str) -> None:
    """A valid last entry that names no checkpoint, behind one that did or before a manifest whose writer's claim isn't
    there: refused with the way out. Nobody may begin at step 0 because somebody else could write to the vault.
    """
    store = open_store(str(bad_vault))
    for number, change in FORGERIES[name]:
        forge_entry(store, number, change)
    before = tree(bad_vault)
    with pytest.raises(NoUsableCheckpointError, match=r"data/1/checkpoint-.*copied out"):
        start(str(bad_vault), output)
    assert tree(bad_vault) == before
    assert not output.exists()


def test_an_upload_that_died_ahead_of_its_commit_denies_nothing(bad_vault: Path, output: Path) -> None:
    """A run's first checkpoint whose manifest is in and whose commit isn't was never acknowledged: no error."""
    for number in (2, 3):
        (bad_vault / "log" / f"{number:020d}.json").unlink()
    path, _ = start(str(bad_vault), output)
    assert path is None


def test_a_denied_file_is_no_damage(bad_vault: Path, output: Path) -> None:
    """A permission that is lost while a checkpoint is fetched doesn't lead to an older one: it is said."""

    def plan(operation: Any) -> Fault | None:
        refused = operation.name == "read_range" and operation.key.endswith("optimizer.pt")
        return Fault.refused(StoreDeniedError("read_range", operation.key, "expired")) if refused else None

    with pytest.raises(VaultUnreachableError, match="expired"):
        start(str(bad_vault), output, store=FaultStore(open_store(str(bad_vault)), plan))
    assert not (output / "checkpoint-100").exists()


def test_a_local_copy_needs_no_vault_copy(bad_vault: Path, output: Path) -> None:
    """Where the local disk still has the right bytes, damage in the vault costs nothing."""
    write_checkpoint(output, 200)
    damage(open_store(str(bad_vault)), f"{NEWEST}/optimizer.pt", DAMAGES["flipped"])
    path, heard = start(str(bad_vault), output)
    assert path == output / "checkpoint-200"
    assert heard.reasons("walk-back") == ""


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_damage_is_not_copied_into_new_checkpoints(bad_vault: Path, output: Path, how: str) -> None:
    """A file that went bad in the vault is sent again by a run that never read it there, not copied on."""
    write_checkpoint(output, 200)
    damage(open_store(str(bad_vault)), f"{NEWEST}/training_args.bin", DAMAGES[how])
    train(str(bad_vault), output, 300, 400)
    path, heard = start(str(bad_vault), output.with_name("another"))
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
        hostile(store, lambda body: body["files"][0].update(path="../evil"))
    else:
        damage(store, f"{NEWEST}/optimizer.pt", DAMAGES[how])
    assert_older_is_used(s3_uri, output, f"{NEWEST}/")
