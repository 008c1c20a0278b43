"""Objects of each released format version, kept for ever: every later release reads them as they were meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.errors import CorruptError, FormatVersionError
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.vault.keys import entry_key
from vaultlayer_hf.vault.log.entry import decode_entry, encode_entry
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.manifest import decode_manifest, decode_part, encode_manifest, encode_part
from vaultlayer_hf.vault.parse import FORMAT_VERSION
from vaultlayer_hf.vault.reader.vault import Vault

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.name.startswith("v"))
FOLDER = "data/3/checkpoint-20"


def test_there_is_a_golden_vault_of_every_format_version() -> None:
    """A new format version comes with a vault of its own; none is ever removed."""
    assert [f"v{number}" for number in range(1, FORMAT_VERSION + 1)] == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_vault_is_read_as_it_was_meant(version: str) -> None:
    """Its log, its live commits and their content are what they were when it was written."""
    store = FolderStore(GOLDEN / version, create=False)
    log = Log(store)
    kinds = [log.read(number).kind for number in range(1, 8)]
    assert kinds == ["claim", "commit", "claim", "commit", "retire", "retire", "finish"]
    number, last = log.last()
    assert last is not None
    assert (number, last.state.token, last.state.finished) == (7, 3, 20)
    assert last.state.metrics == {"train_loss": 1.5}
    assert last.state.best_step == 20
    with Vault(store) as vault:
        (commit,) = vault.checkpoints()
        assert vault.verify(commit).ok
        manifest = vault.manifest(commit)
    assert (commit.step, commit.token, commit.seq, commit.folder) == (20, 3, 1, FOLDER)
    assert (manifest.world_size, manifest.best_step, manifest.resumed_from) == (1, 20, 2)
    assert manifest.parameters == (("weight", (2, 3), "float32"),)
    assert [entry.path for entry in manifest.files] == [
        "config.json",
        "model.safetensors",
        "sub/trainer_state.json",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_objects_of_each_kind(version: str) -> None:
    """A part, a manifest and an entry of each kind decode, and the present version writes its own byte for byte."""
    meta = GOLDEN / version / FOLDER / ".vault"
    manifest = decode_manifest((meta / "manifest.json").read_bytes(), "golden")
    part = decode_part((meta / "part-0.json").read_bytes(), 0, "golden")
    assert part == manifest.files
    entries = {number: (GOLDEN / version / entry_key(number)).read_bytes() for number in range(1, 8)}
    decoded = {number: decode_entry(data, number) for number, data in entries.items()}
    assert {entry.kind for entry in decoded.values()} == {"claim", "commit", "retire", "finish"}
    if version == f"v{FORMAT_VERSION}":
        assert encode_manifest(manifest) == (meta / "manifest.json").read_bytes()
        assert encode_part(0, part) == (meta / "part-0.json").read_bytes()
        assert {number: encode_entry(entry) for number, entry in decoded.items()} == entries


@pytest.mark.parametrize("what", ["entry", "manifest", "part"])
def test_a_newer_version_names_the_upgrade(tmp_path: Path, what: str) -> None:
    """An object of the next format version is refused with the way out, never half read, never walked around."""
    vault = tmp_path / "vault"
    shutil.copytree(GOLDEN / f"v{FORMAT_VERSION}", vault)
    name = {
        "entry": entry_key(7),
        "manifest": f"{FOLDER}/.vault/manifest.json",
        "part": f"{FOLDER}/.vault/part-0.json",
    }[what]
    body = json.loads((vault / name).read_bytes())
    data = json.dumps({**body, "format_version": FORMAT_VERSION + 1, "unheard": {"of": [1]}}).encode()
    (vault / name).write_bytes(data)
    read = {
        "entry": lambda: Log(FolderStore(vault)).last(),
        "manifest": lambda: decode_manifest(data, name),
        "part": lambda: decode_part(data, 0, name),
    }
    with pytest.raises(FormatVersionError, match="upgrade vaultlayer-hf"):
        read[what]()


@pytest.mark.parametrize("change", [{"node": 1}, {"node": None}, {"files": [{}]}, {"files": 3}])
def test_a_part_that_is_not_that_nodes_is_refused(change: dict[str, object]) -> None:
    """A part of another node, or with a malformed line, isn't taken into a checkpoint."""
    data = (GOLDEN / "v1" / FOLDER / ".vault" / "part-0.json").read_bytes()
    with pytest.raises(CorruptError):
        decode_part(json.dumps({**json.loads(data), **change}).encode(), 0, "golden")


def test_the_golden_digest_is_blake3() -> None:
    """The digest of known bytes is the published one of BLAKE3: what is written today can be checked for ever."""
    published = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest_bytes(b"") == f"blake3:{published}"
