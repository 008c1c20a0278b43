"""Encrypted vaults: any store holds files sealed; range, size and digest are as without; a wrong key is one error."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from tests import ROOT
from tests.campaign.harness import Campaign
from tests.campaign.parts import PARTS
from tests.forks import ForkServer
from tests.vault.tools import content_of
from tests.vault.vaults import start, train, tree
from vaultlayer_hf import SettingsError, open_vault
from vaultlayer_hf.cli import app
from vaultlayer_hf.errors import StoreError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.encryption.key import ENCRYPTION, Key, encryption_key
from vaultlayer_hf.stores.encryption.sealing import SEGMENT, plain_size, plain_start, sealed_size, segment_of
from vaultlayer_hf.stores.encryption.store import EncryptedStore, holds_a_file
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.testing import StoreConformance
from vaultlayer_hf.vault.keys import (
    HINT,
    entry_key,
    folder_key,
    manifest_key,
    part_key,
    refused_key,
    upload_key,
)
from vaultlayer_hf.vault.reader.copy import copy_vault
from vaultlayer_hf.vault.signature import SIGNING

pytest.importorskip("cryptography")

KEY = Key("k" * 16, bytes(range(32)))
OURS, THEIRS = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
FILE = "data/1/checkpoint-100/model.safetensors"


def every_key(key: str) -> bool:
    """Seal whatever there is."""
    return True


def sealing(uri: str) -> Store:
    """Open a store that seals every object."""
    return EncryptedStore(open_store(uri), KEY, every_key)


@pytest.mark.slow
class TestEncryptedFolder(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return sealing(str(tmp_path / "vault"))

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Store]:
        return partial(sealing, str(tmp_path / "vault"))


class TestEncryptedObjects(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return EncryptedStore(ObjectStore(MemoryStore(), uri="memory://"), KEY, every_key)


@pytest.mark.slow
class TestEncryptedS3(StoreConformance):
    rounds = 3

    @pytest.fixture
    def store(self, s3_uri: str) -> Store:
        return sealing(s3_uri)

    @pytest.fixture
    def opener(self, s3_uri: str) -> Callable[[], Store]:
        return partial(sealing, s3_uri)


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An encrypted vault with checkpoints 100 and 200, and its key in this process's variable."""
    monkeypatch.setenv(ENCRYPTION, OURS)
    uri = str(tmp_path / "vault")
    train(uri, tmp_path / "first", 100, 200)
    return uri


def test_sizes_are_those_of_the_construction() -> None:
    """Around each border between segments the size with the seal leads back to the size without."""
    first, other = SEGMENT - 56, SEGMENT - 16
    borders = [0, first, first + other, first + 9 * other]
    for size in {max(0, border + step) for border in borders for step in (-1, 0, 1)}:
        assert plain_size(sealed_size(size)) == size
        assert sealed_size(size) == 40 + size + 16 * (segment_of(max(0, size - 1)) + 1)
    assert [plain_start(segment_of(first)), segment_of(first + other)] == [first, 2]


def test_it_is_the_construction_that_others_read() -> None:
    """What another library (Tink, AES256_GCM_HKDF_1MB) has sealed with this key is opened."""
    for sealed, plain in json.loads((Path(__file__).parent / "sealed.json").read_text()):
        inner = ObjectStore(MemoryStore(), uri="memory://")
        inner.write("x", base64.b64decode(sealed))
        assert EncryptedStore(inner, KEY, every_key).read("x", limit=100) == plain.encode()


@pytest.mark.parametrize("how", ["flipped", "cut", "moved", "longer", "another's", "plain"])
def test_what_was_changed_is_refused(tmp_path: Path, how: str) -> None:
    """A bit, a missing, a moved or an added segment, a segment of another object, a file that isn't sealed: an error,
    and no byte of that segment gets out.
    """
    inner = ObjectStore(MemoryStore(), uri="memory://")
    store = EncryptedStore(inner, KEY, every_key)
    data = os.urandom(4 * SEGMENT)
    (tmp_path / "file").write_bytes(data)
    for key in ("x", "other"):
        store.upload(key, tmp_path / "file", size=len(data))
    sealed, other = (inner.read(key, limit=2**24) for key in ("x", "other"))
    one, two = SEGMENT, 2 * SEGMENT
    inner.write(
        "x",
        {
            "flipped": sealed[: one + 9] + bytes([sealed[one + 9] ^ 1]) + sealed[one + 10 :],
            "cut": sealed[:two],
            "moved": sealed[:one] + sealed[two : two + SEGMENT] + sealed[one:two] + sealed[two + SEGMENT :],
            "longer": sealed + sealed[-SEGMENT:],
            "another's": sealed[:one] + other[one:two] + sealed[two:],
            "plain": data,
        }[how],
    )
    got = bytearray()
    size = store.head("x").size
    with pytest.raises(StoreError, match="damaged, or wasn't encrypted"):
        store.read_pieces("x", 0, size, lambda offset, piece: got.extend(piece))
    assert data.startswith(bytes(got))
    with pytest.raises(StoreError, match="damaged"):
        store.read("x", limit=2**24)


def test_a_range_costs_the_segments_that_it_touches(tmp_path: Path) -> None:
    """Ten bytes out of the middle of a large file take one segment from the store, and a range across a border two."""
    inner = ObjectStore(MemoryStore(), uri="memory://")
    asked: list[int] = []
    plainly = inner.read_pieces
    inner.read_pieces = lambda key, start, length, take: (
        asked.append(length),
        plainly(key, start, length, take),
    )[1]  # type: ignore[method-assign,func-returns-value]
    store = EncryptedStore(inner, KEY, every_key)
    data = os.urandom(6 * SEGMENT)
    (tmp_path / "file").write_bytes(data)
    store.upload("x", tmp_path / "file", size=len(data))
    for begin, segments in ((3 * SEGMENT, 1), (plain_start(2) - 5, 2)):
        asked.clear()
        assert store.read_range("x", begin, 10) == data[begin : begin + 10]
        assert sum(asked) == segments * SEGMENT


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    """A header that is known from before doesn't outlive its object, whoever has replaced it."""
    one, other = sealing(str(tmp_path / "vault")), sealing(str(tmp_path / "vault"))
    for text in (b"first", b"second and longer", b"3rd"):
        one.write("x", text)
        assert other.read_range("x", 0, len(text)) == text


def test_files_alone_are_sealed(vault: str, tmp_path: Path) -> None:
    """Of a vault's objects those that hold a checkpoint's files are sealed, nothing else, and none of them is plain."""
    folder = folder_key(1, "checkpoint-100")
    others = [manifest_key(folder), upload_key(folder), part_key(folder, 0), refused_key(folder, 0), HINT]
    assert not any(map(holds_a_file, [*others, entry_key(1), "probe/x", "data/1/x"]))
    assert holds_a_file(f"{folder}/model.safetensors")
    assert holds_a_file(f"{folder}/sub/.vault/x")
    plain, held = content_of(tmp_path / "first" / "checkpoint-200"), content_of(Path(vault))
    assert not set(plain.values()) & set(held.values())
    assert all(
        json.loads(data) for name, data in held.items() if not holds_a_file(name) and name.endswith(".json")
    )


def test_an_encrypted_vault_is_gone_on_from(vault: str, tmp_path: Path) -> None:
    """With its key a vault is restored, verified, pulled and copied, bit by bit, as any other."""
    expected = content_of(tmp_path / "first" / "checkpoint-200")
    path, _ = start(vault, tmp_path / "second")
    assert path is not None
    assert content_of(path) == expected
    other = open_store(str(tmp_path / "copy"))
    copy_vault(open_store(vault), other)
    for uri in (vault, str(tmp_path / "copy")):
        with open_vault(uri) as opened:
            newest = opened.checkpoint(200)
            assert opened.verify(newest).ok
            assert opened.glance(newest) == []
            opened.pull(newest, tmp_path / "pulled" / Path(uri).name)
        assert content_of(tmp_path / "pulled" / Path(uri).name) == expected


@pytest.mark.parametrize(
    ("key", "said"), [("", "is encrypted, and no key is set"), (THEIRS, "was encrypted with another key")]
)
def test_without_its_key(
    vault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, said: str
) -> None:
    """A start and a reader end with one error that names the variable and the ids, and nothing has changed."""
    monkeypatch.setenv(ENCRYPTION, key)
    before = tree(Path(vault))
    with pytest.raises(SettingsError, match=f"{said}.*{ENCRYPTION}"):
        start(vault, tmp_path / "second")
    with open_vault(vault) as opened, pytest.raises(SettingsError, match=said):
        opened.verify(opened.checkpoint())
    with pytest.raises(SettingsError, match=said):
        copy_vault(open_store(vault), open_store(str(tmp_path / "copy")))
    assert tree(Path(vault)) == before


def test_what_the_manifests_tell_needs_no_key(vault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the key one sees which files a checkpoint has, that they are encrypted, and whether one is missing."""
    monkeypatch.delenv(ENCRYPTION)
    run = partial(CliRunner().invoke, app)
    shown = json.loads(run(["show", vault, "--json"]).stdout)
    assert (shown["step"], len(shown["files"]), len(shown["encryption"])) == (200, 7, 16)
    assert f"AES-256-GCM, key {shown['encryption']}" in run(["show", vault]).stdout
    assert json.loads(run(["why", vault, "--json"]).stdout)["problems"] == []
    assert run(["prune", vault, "--dry-run"]).exit_code == 0
    (Path(vault) / shown["folder"] / "model.safetensors").unlink()
    assert "model.safetensors" in run(["why", vault]).stdout


def test_a_key_on_a_plain_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vault that was made without a key isn't gone on with in two ways at once: one error with both ways out."""
    train(str(tmp_path / "vault"), tmp_path / "first", 100)
    monkeypatch.setenv(ENCRYPTION, OURS)
    with pytest.raises(SettingsError, match=r"isn't encrypted.*unset it.*new vault"):
        start(str(tmp_path / "vault"), tmp_path / "second")


@pytest.mark.parametrize("text", ["c2VjcmV0", "secret" * 9, "/none/secret.enc"])
def test_a_key_that_cant_be_used_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It names the variable and the way to make a key, and repeats nothing of what was given."""
    monkeypatch.setenv(ENCRYPTION, text)
    with pytest.raises(SettingsError, match=f"{ENCRYPTION}.*openssl") as raised:
        open_store("/tmp")
    assert text not in str(raised.value)


def test_a_key_is_text_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Base64, hex, and the path of a file of either are the same key, which never shows itself."""
    (tmp_path / "run.enc").write_text(OURS + "\n")
    found = set()
    for text in (OURS, (b"\1" * 32).hex(), str(tmp_path / "run.enc")):
        monkeypatch.setenv(ENCRYPTION, text)
        found.add(encryption_key())
    assert len(found) == 1
    assert "\\x01" not in repr(found)


def test_the_key_that_the_text_has_one_make_is_good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command in SECURITY.md makes a key that can be used."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl isn't installed")
    (block,) = re.findall(r"```sh\n(openssl rand.*?)```", (ROOT / "SECURITY.md").read_text(), re.DOTALL)
    subprocess.run(["bash", "-euc", block], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv(ENCRYPTION, str(tmp_path / "run.enc"))
    assert encryption_key() is not None


@pytest.mark.slow
def test_a_killed_run_on_an_encrypted_and_signed_vault_goes_on(
    forks: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample of kills: each next start goes on from the right step and ends bit-identical."""
    from tests.security.test_signature import OURS as SIGNER
    from tests.security.test_signature import pem

    monkeypatch.setenv(ENCRYPTION, OURS)
    env = {SIGNING: pem(SIGNER), ENCRYPTION: OURS}
    campaign = Campaign(forks, tmp_path, lambda folder: str(folder / "vault"), env)
    PARTS["save"](campaign, 8, 2)
    assert campaign.tried >= 8
    assert not campaign.failures, "\n".join(campaign.failures)
