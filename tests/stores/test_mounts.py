"""Mounts that aren't what they look like: buckets that seem safe for two writers, and names that are one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuse import mount, unmount
from tests.vault.vaults import start, train
from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.errors import ResumeError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.folder.mounts import last_writer_wins
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.vault.manifest import FileEntry, Manifest
from vaultlayer_hf.vault.restore.restore import restore

MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/root rw
30 22 0:40 / /mnt/data rw - fuse.hf-mount hf://buckets/me/data rw
31 22 0:41 / /mnt/nfs rw - nfs 127.0.0.1:/ rw,vers=3
32 22 0:42 / /mnt/team rw - nfs4 fileserver:/export rw
33 22 0:43 / /mnt/with\\040space rw - fuse.rclone remote:bucket rw
34 22 0:44 / /mnt/drive rw - fuse.drive drive rw
35 30 8:2 / /mnt/data/disk rw - ext4 /dev/sdb rw
36 22 0:45 / /mnt/s3 rw - fuse.gcsfuse bucket rw
37 22 8:3 / /mnt/s3 rw - xfs /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/home/me/vault", False),
        ("/mnt/data", True),
        ("/mnt/data/run/vault", True),
        ("/mnt/database", False),
        ("/mnt/nfs/vault", True),
        ("/mnt/team/vault", False),
        ("/mnt/with space/vault", True),
        ("/mnt/drive/vault", False),
        ("/mnt/data/disk/vault", False),
        ("/mnt/s3/vault", False),
    ],
)
def test_which_mounts_are_known(path: str, known: bool) -> None:
    """The innermost, newest mount counts, by its type and source."""
    assert last_writer_wins(path, MOUNTS) is known


def test_a_disk_that_takes_two_names_for_one(caseless_folder: Path, tmp_path: Path) -> None:
    """Adapters called ``A`` and ``a`` aren't restored to a disk that can't hold both: it says so, and mixes nothing."""
    store, folder = open_store(tmp_path / "vault"), "data/1/checkpoint-1"
    data = {"A/weights": b"first ", "a/weights": b"second"}
    for path, content in data.items():
        store.write(f"{folder}/{path}", content)
    entries = tuple(FileEntry(path, len(content), digest_bytes(content)) for path, content in data.items())
    manifest = Manifest(step=1, token=1, seq=1, files=entries)
    restore(store, folder, manifest, tmp_path / "output/checkpoint-1")
    assert (tmp_path / "output/checkpoint-1/a/weights").read_bytes() == b"second"
    final = caseless_folder / "checkpoint-1"
    (final / "a").mkdir(parents=True)
    (final / "a/weights").write_bytes(b"first ")  # what lies there has the digest of one of them
    with pytest.raises(ResumeError, match="for one name"):
        restore(store, folder, manifest, final)
    assert (final / "a/weights").read_bytes() == b"first "


def test_a_mount_that_neither_flushes_nor_replaces(poor_folder: Path, tmp_path: Path) -> None:
    """Vault and output folder on a mount without fsync, links and renames onto a file: saves commit, starts go on."""
    vault, output = poor_folder / "vault", poor_folder / "output"
    for step in (2, 4, 6):
        train(str(vault), output, step, keep_last=1)
    store = open_store(vault)
    for number in (1, 2):
        store.write("hint.json", b'{"number": %d}' % number)
    assert store.read("hint.json", limit=100) == b'{"number": 2}'
    assert start(str(vault), tmp_path / "elsewhere")[0] == tmp_path / "elsewhere" / "checkpoint-6"


def test_a_mount_that_looks_safe(tmp_path: Path) -> None:
    """Where link(2) works and the mount is hf-mount's, the probe says that the vault is for one writer."""
    if os.geteuid() != 0:
        pytest.skip("a mount needs root")
    point = tmp_path / "mounted"
    point.mkdir()
    try:
        mount("hf-mount", point, "tmpfs", 0)
    except OSError as error:
        pytest.skip(f"no mount can be made here: {error}")
    try:
        store = open_store(point / "vault")
        assert probe_create(store) is False
        store.create("x", b"x")
        assert os.stat(point / "vault/x").st_nlink >= 1
        assert probe_create(open_store(tmp_path / "beside")) is True
    finally:
        unmount(point)
