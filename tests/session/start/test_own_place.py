"""A vault is never begun among a person's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.vault.vaults import start, train
from vaultlayer_hf.errors import NoUsableCheckpointError, VaultUriError
from vaultlayer_hf.session.start.own_place import check_place, find_foreign
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.stores.uri import parse_vault


def put(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("train.py", "README.md"), "train.py"),
        (("data/1/raw/x.txt",), "data"),
        (("data/cats.csv",), "data"),
        (("log/train.log",), "log"),
    ],
)
def test_a_vault_does_not_begin_among_other_files(tmp_path: Path, files: tuple[str, ...], named: str) -> None:
    """A folder that holds a person's files is refused by name, before anything is written, and is left as it was."""
    place = tmp_path / "place"
    for name in files:
        put(place / name)
    with pytest.raises(VaultUriError, match=rf"holds other files \(.*{named}.*such as file://{place}/vault"):
        start(str(place), tmp_path / "output")
    found = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(files)


def test_dot_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``.`` as a vault would hold output_dir, even where nothing lies there yet."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VaultUriError, match=r"holds output_dir .*such as .*/vault"):
        start(".", Path("output"))
    assert not os.listdir(tmp_path)


def test_output_dir_is_refused(tmp_path: Path) -> None:
    """The Trainer's own folder isn't the vault, also through a link."""
    (tmp_path / "output").mkdir()
    (tmp_path / "link").symlink_to("output")
    for name in ("output", "link"):
        with pytest.raises(VaultUriError, match=r"is output_dir, .*output-vault"):
            start(str(tmp_path / name), tmp_path / "output")


@pytest.mark.parametrize("name", ["checkpoint-7", "checkpoint-vault/run", "_vaultlayer/vault"])
def test_what_is_deleted_in_output_dir_is_refused(tmp_path: Path, name: str) -> None:
    """A vault in output_dir isn't called as what the Trainer's rotation, or this package, deletes there."""
    with pytest.raises(VaultUriError, match=rf"{name} lies in output_dir .*such as {tmp_path}/output-vault"):
        start(str(tmp_path / "output" / name), tmp_path / "output")
    train(str(tmp_path / "output" / "vault"), tmp_path / "output", 2)


def test_what_a_system_puts_there_does_not_matter(tmp_path: Path) -> None:
    """A new disk's own folders and hidden files are no person's files; an empty folder is free."""
    for name in ("lost+found/x", ".DS_Store", ".Trash-0/y"):
        put(tmp_path / "vault" / name)
    train(str(tmp_path / "vault"), tmp_path / "output", 2)
    assert start(str(tmp_path / "vault"), tmp_path / "output")[0] == tmp_path / "output" / "checkpoint-2"


def test_a_vault_that_is_there_goes_on(tmp_path: Path) -> None:
    """What a person has put beside a vault's log afterwards doesn't end the run, and stays."""
    vault = tmp_path / "vault"
    train(str(vault), tmp_path / "output", 2)
    mine = [put(vault / "notes.txt"), put(vault / "data/1/raw/x.txt")]
    train(str(vault), tmp_path / "output", 4, keep_last=1)
    assert all(path.read_text() == "mine" for path in mine)


def test_a_lost_log_is_still_told_as_one(tmp_path: Path) -> None:
    """Checkpoints of ours whose log is gone aren't taken for somebody else's files."""
    vault = tmp_path / "vault"
    train(str(vault), tmp_path / "output", 2)
    for path in (vault / "log").iterdir():
        path.unlink()
    with pytest.raises(NoUsableCheckpointError, match="its log is gone"):
        start(str(vault), tmp_path / "output")


def test_a_whole_bucket_is_refused(tmp_path: Path) -> None:
    """The root of a bucket is for everybody; a prefix that somebody else uses is refused, a free one isn't."""
    store = FolderStore(tmp_path / "objects")
    with pytest.raises(VaultUriError, match=r"s3://mine is a whole bucket, .*s3://mine/my-run"):
        check_place(parse_vault("s3://mine"), Path("output"), store)
    free = parse_vault("s3://mine/run")
    check_place(free, Path("output"), store)
    store.write("images/cat.jpg", b"")
    with pytest.raises(VaultUriError, match=r"s3://mine/run holds other files \(images\)"):
        check_place(free, Path("output"), store)


def test_what_is_foreign() -> None:
    """The names that a vault gives are its own, and only in the form that it gives them."""
    ours = ["log/00000000000000000001.json", "hint.json", "probe/x", "data/3/checkpoint-5/a", ".tmp/a"]
    assert find_foreign(ours) == []
    assert find_foreign(["logs/x", "data/cats/1.jpg", "data/0/x", "log/x", "a", "a/b"]) == [
        "logs",
        "data",
        "log",
        "a",
    ]
