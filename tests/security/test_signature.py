"""Signed vaults: what somebody else with write access has put there counts for nobody who has the key."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.campaign.harness import Campaign
from tests.campaign.parts import PARTS
from tests.forks import ForkServer
from tests.vault.tools import (
    Run,
    claim,
    commit_step,
    content_of,
    entries,
    file_entry,
    forge_entry,
    memory_store,
    numbers,
    sign,
    write_checkpoint,
)
from vaultlayer_hf import CorruptError, ResumeError, SettingsError, SignatureError
from vaultlayer_hf.loops.files import read_state, write_state
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import entry_key, part_key
from vaultlayer_hf.vault.log.log import Log
from vaultlayer_hf.vault.manifest import encode_part
from vaultlayer_hf.vault.parse import dump
from vaultlayer_hf.vault.reader.vault import Vault
from vaultlayer_hf.vault.signature import FIELD, SIGNING, VERIFY, keys
from vaultlayer_hf.vault.upload.parts import collect_parts

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
pytestmark = pytest.mark.usefixtures("quiet")
Enter = Callable[..., None]


class Own:
    """A class of somebody's own, as the state of a loop may hold."""

    def __init__(self, value: int) -> None:
        self.value = value


def pem(key: Any) -> str:
    """Return a private key as text."""
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return str(key.private_bytes(*form), "ascii")


def public_pem(key: Any) -> str:
    """Return the public key that belongs to it, as text."""
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(*form), "ascii")


OURS, THEIRS = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Return a function by which this process gets keys: ``with_key(signing, verify)``; without any it has none."""

    def enter(signing: str = "", verify: str = "") -> None:
        monkeypatch.setenv(SIGNING, signing)
        monkeypatch.setenv(VERIFY, verify)

    return enter


@pytest.fixture
def vault(with_key: Enter, tmp_path: Path) -> Store:
    """A vault that our key has signed, with checkpoints 100 and 200; the key is set."""
    with_key(pem(OURS))
    store = memory_store()
    writer = claim(store)
    for number, step in enumerate((100, 200), 1):
        commit_step(store, writer, tmp_path / "ours", step, seq=number)
    return store


def resumed(store: Store, output: Path) -> tuple[Path | None, str]:
    """Start, and return what was gone on from, and what was said of what wasn't."""
    run = Run(store, output)
    try:
        path = run.resume()
    finally:
        run.close()
    return path, "\n".join(event.message for event in run.events("walk-back"))


def test_a_signed_vault_is_gone_on_from(vault: Store, tmp_path: Path) -> None:
    """With the key that has signed it a vault works as any other."""
    path, said = resumed(vault, tmp_path / "output")
    assert path is not None
    assert (path.name, said) == ("checkpoint-200", "")
    assert all(entry.signed for entry in entries(vault))


def forge_behind(store: Store, work: Path, step: int) -> None:
    """Do what somebody can who has this package, write access and no key, or another one: claim, upload, commit."""
    last = json.loads(store.read(entry_key(max(numbers(store))), limit=2**24))
    free = memory_store()
    for item in store.list(""):
        free.write(item.key, store.read(item.key, limit=2**24))
    for number in numbers(free):  # in his own words, so that he can go on behind them
        body = json.loads(free.read(entry_key(number), limit=2**24))
        del body["check"], body[FIELD]
        if (his := keys()) is not None:
            body[FIELD] = his.sign("log entry", dump(body))
        free.write(entry_key(number), sign(body))
    writer = claim(free)
    commit_step(free, writer, work, step, resumed_from=last["number"])
    for item in free.list(""):
        if not store.exists(item.key):
            store.write(item.key, free.read(item.key, limit=2**24))


@pytest.mark.parametrize("his", ["", pem(THEIRS)], ids=["no key", "another key"])
def test_a_checkpoint_of_somebody_else_is_refused(
    vault: Store, with_key: Enter, tmp_path: Path, his: str
) -> None:
    """A whole, valid checkpoint that was committed without the key isn't loaded: the newest signed one is."""
    with_key(his)
    forge_behind(vault, tmp_path / "his", 300)
    with_key(pem(OURS))
    path, said = resumed(vault, tmp_path / "output")
    assert path is not None
    assert path.name == "checkpoint-200"
    assert content_of(path) == content_of(write_checkpoint(tmp_path / "expected", 200))
    assert "log entry 5: it isn't signed" in said
    if not his:
        with_key()
        assert Vault(vault).checkpoint().step == 200  # our own claim, behind his


def test_an_entry_that_was_changed_is_refused(vault: Store, tmp_path: Path) -> None:
    """The newest entry, changed to vouch for other files, its own digest made to fit: the entry before it holds."""
    commit = json.loads(vault.read(entry_key(3), limit=2**24))["state"]["commits"]
    commit[-1]["manifest"] = file_entry().digest
    forge_entry(vault, 3, {"state": {"commits": commit}})
    path, said = resumed(vault, tmp_path / "output")
    assert path is not None
    assert path.name == "checkpoint-100"
    assert "log entry 3: it isn't signed by the key" in said


def test_a_signed_entry_counts_under_its_own_number_alone(vault: Store) -> None:
    """A copy of an older signed entry behind the log says nothing."""
    vault.write(entry_key(4), vault.read(entry_key(2), limit=2**24))
    with pytest.raises(CorruptError, match="another entry's number"):
        Log(vault).read(4)
    number, entry = Log(vault).last()
    assert entry is not None
    assert (number, entry.number) == (4, 3)


def test_nobody_without_the_key_fences_a_run(vault: Store, with_key: Enter, tmp_path: Path) -> None:
    """A claim that isn't signed takes a number and nothing else: the run goes on behind it and commits."""
    run = Run(vault, tmp_path / "output")
    run.resume()
    with_key()
    forge_behind(vault, tmp_path / "his", 300)
    with_key(pem(OURS))
    run.save(400)
    run.wait()
    assert run.session.uploader is not None
    assert run.session.uploader.fenced is None
    run.close()
    assert [commit.step for commit in Vault(vault).checkpoints()] == [100, 200, 400]


def test_a_key_to_read_with_reads_and_doesnt_write(vault: Store, with_key: Enter, tmp_path: Path) -> None:
    """With the public key alone, of several also, a vault is read and verified; a run and a pin are refused."""
    with_key(verify=public_pem(THEIRS) + public_pem(OURS))
    with Vault(vault) as opened:
        newest = opened.checkpoint()
        assert opened.verify(newest).ok
        with pytest.raises(SettingsError, match=SIGNING):
            opened.pin(newest)
    with pytest.raises(SettingsError, match=SIGNING):
        resumed(vault, tmp_path / "output")
    assert numbers(vault) == [1, 2, 3]


def test_without_a_key_a_signed_vault_is_read_and_never_written(
    vault: Store, with_key: Enter, tmp_path: Path
) -> None:
    """Who has no key sees what is there, and can't write by mistake what nobody with the key would believe."""
    with_key()
    with Vault(vault) as opened:
        newest = opened.checkpoint()
        assert opened.verify(newest).ok
        with pytest.raises(SettingsError, match="signed"):
            opened.pin(newest)
    with pytest.raises(SettingsError, match="signed"):
        resumed(vault, tmp_path / "output")
    assert numbers(vault) == [1, 2, 3]


@pytest.mark.parametrize("signed", [False, True], ids=["made without a key", "signed by another"])
def test_another_vault_is_refused_with_the_way_out(with_key: Enter, tmp_path: Path, signed: bool) -> None:
    """With a key a vault that it hasn't signed is an error that says so, and never an empty vault."""
    with_key(pem(THEIRS) if signed else "")
    store = memory_store()
    commit_step(store, claim(store), tmp_path / "work", 100)
    with_key(pem(OURS))
    with pytest.raises(SignatureError, match="the key of this vault"):
        resumed(store, tmp_path / "output")
    assert numbers(store) == [1, 2]


def test_a_list_of_another_node_is_signed_for_its_place(vault: Store, with_key: Enter) -> None:
    """What a node says it has uploaded counts for that checkpoint alone, and only with the key."""
    key, other = part_key("data/1/checkpoint-300", 1), part_key("data/1/checkpoint-100", 1)

    def collected() -> tuple[object, ...]:
        return collect_parts(vault, "data/1/checkpoint-300", [1], 5.0, lambda *_: None)

    vault.write(key, encode_part(1, (file_entry(),), key))
    assert collected() == (file_entry(),)
    vault.write(key, encode_part(1, (file_entry(),), other))
    with pytest.raises(SignatureError):
        collected()
    with_key()
    vault.write(key, encode_part(1, (file_entry(),), key))
    with_key(pem(OURS))
    with pytest.raises(SignatureError):
        collected()


@pytest.mark.parametrize(
    "text", ["-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----", "/none/secret.pem"]
)
@pytest.mark.parametrize("variable", [SIGNING, VERIFY])
def test_a_key_that_cant_be_used_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, text: str
) -> None:
    """It names the variable and the way to make a key, and repeats nothing of what was given."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=f"{variable}.*openssl") as raised:
        resumed(memory_store(), tmp_path / "output")
    assert "secret" not in str(raised.value)
    assert "c2Vj" not in str(raised.value)


def test_a_key_may_lie_in_a_file(vault: Store, with_key: Enter, tmp_path: Path) -> None:
    """The path of a file is as good as its content."""
    (tmp_path / "run.key").write_text(pem(OURS))
    (tmp_path / "run.pub").write_text(public_pem(OURS))
    with_key(str(tmp_path / "run.key"))
    assert Vault(vault).checkpoint().step == 200
    with_key(verify=str(tmp_path / "run.pub"))
    assert Vault(vault).checkpoint().step == 200


def test_the_keys_that_the_text_has_one_make_are_good(vault: Store, with_key: Enter, tmp_path: Path) -> None:
    """The commands in SECURITY.md make a key that signs, and one that reads what it has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl isn't installed")
    (block,) = re.findall(r"```sh\n(openssl genpkey.*?)```", (ROOT / "SECURITY.md").read_text(), re.DOTALL)
    subprocess.run(["bash", "-euc", block], cwd=tmp_path, check=True, capture_output=True)
    store = memory_store()
    with_key(str(tmp_path / "run.key"))
    claim(store)
    with_key(verify=str(tmp_path / "run.pub"))
    assert Log(store).read(1).signed
    with pytest.raises(SignatureError):
        Log(vault).read(1)


def test_no_pickle_of_a_state_where_torch_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own variable against pickles holds for the states of a loop: what needs one is refused, in words."""
    write_state(tmp_path / "state.pt", {"own": Own(3)})
    assert read_state(tmp_path / "state.pt")["own"].value == 3
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ResumeError, match=r"state\.pt"):
        read_state(tmp_path / "state.pt")


@pytest.mark.slow
def test_a_killed_run_on_a_signed_vault_goes_on(forks: ForkServer, tmp_path: Path) -> None:
    """A sample of kills on a signed vault: each next start goes on from the right step and ends bit-identical."""
    campaign = Campaign(forks, tmp_path, lambda folder: str(folder / "vault"), {SIGNING: pem(OURS)})
    PARTS["save"](campaign, 8, 2)
    assert campaign.tried >= 8
    assert not campaign.failures, "\n".join(campaign.failures)
