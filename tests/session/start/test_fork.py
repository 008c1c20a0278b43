"""A fork: a new vault's run begins from a commit of another vault, which is only read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.vault.vaults import PARAMETERS, TrainersFiles, a_session, content, start, train, tree
from vaultlayer_hf import (
    NoSuchCheckpointError,
    NoUsableCheckpointError,
    Settings,
    SettingsError,
    SignatureError,
    WrongModelError,
    open_vault,
)
from vaultlayer_hf.cli import app
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.vault.reader.why import explain
from vaultlayer_hf.vault.signature import SIGNING


@pytest.fixture
def origin(tmp_path: Path) -> str:
    """A vault with checkpoints of steps 2, 4 and 6; the best is 4."""
    vault = str(tmp_path / "origin")
    train(vault, tmp_path / "first", 2, 4, 6, best=4, keep_last=None)
    return vault


def test_a_fork_begins_there_and_then_goes_on_by_itself(tmp_path: Path, origin: str) -> None:
    """The first start begins from the other vault's commit, which isn't touched; the next from its own newest."""
    before = tree(Path(origin))
    vault, output = str(tmp_path / "new"), tmp_path / "second"
    first = train(vault, output, 5, fork=f"{origin}@4")
    assert "begins as a fork of step 4 of" in first.reasons("notice")
    assert "the fork begins at step 4" in first.reasons("restore")
    assert content(output / "checkpoint-4") == content(tmp_path / "first" / "checkpoint-4")
    path, heard = start(vault, output, fork=f"{origin}@4")
    assert path == output / "checkpoint-5"
    assert not heard.reasons("walk-back")
    assert tree(Path(origin)) == before
    with open_vault(vault) as opened:
        assert [commit.step for commit in opened.checkpoints()] == [5]


def test_what_a_death_costs_a_fork_counts_from_its_begin(tmp_path: Path, origin: str) -> None:
    """The steps of the other vault can't be lost: of a fork of step 4 that is at step 5 one step can."""
    session, _ = a_session(str(tmp_path / "new"), tmp_path / "second", fork=f"{origin}@4")
    resume(session, TrainersFiles())
    session.step = 5
    assert session.uploader is not None
    assert session.uploader.exposure_figures()[1] == 1


def test_a_plain_vault_is_forked_into_an_encrypted_one(
    tmp_path: Path, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key set a plain vault is begun from as it is, and what the fork commits is encrypted: both are said."""
    pytest.importorskip("cryptography")
    monkeypatch.setenv("VAULTLAYER_ENCRYPTION_KEY", "11" * 32)
    before, vault = tree(Path(origin)), str(tmp_path / "new")
    first = train(vault, tmp_path / "second", 5, fork=f"{origin}@4")
    assert "That vault isn't encrypted, and this one is" in first.reasons("notice")
    assert content(tmp_path / "second" / "checkpoint-4") == content(tmp_path / "first" / "checkpoint-4")
    path, _ = start(vault, tmp_path / "third", fork=f"{origin}@4")
    assert path is not None
    plain = set(content(path).values())
    assert plain == set(content(tmp_path / "second" / "checkpoint-5").values())
    assert not plain & set(content(tmp_path / "new" / "data").values())
    assert tree(Path(origin)) == before
    monkeypatch.delenv("VAULTLAYER_ENCRYPTION_KEY")
    with pytest.raises(SettingsError, match="is encrypted, and no key is set"):
        start(str(tmp_path / "other"), tmp_path / "fourth", fork=vault)


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sets a new key to sign with, as often as it is called; afterwards none is set."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return lambda: monkeypatch.setenv(SIGNING, Ed25519PrivateKey.generate().private_bytes(*form).decode())


def test_an_unsigned_vault_is_forked_into_a_signed_one(
    tmp_path: Path, origin: str, signing: Callable[[], None]
) -> None:
    """With a key set an unsigned vault is begun from as it is, which is said; what the fork commits is signed."""
    before, vault = tree(Path(origin)), str(tmp_path / "new")
    signing()
    first = train(vault, tmp_path / "second", 5, fork=f"{origin}@4")
    assert "isn't signed, and this vault is" in first.reasons("notice")
    assert not first.reasons("walk-back")
    assert content(tmp_path / "second" / "checkpoint-4") == content(tmp_path / "first" / "checkpoint-4")
    again, heard = start(vault, tmp_path / "third", fork=f"{origin}@4")
    assert again == tmp_path / "third" / "checkpoint-5"
    assert not heard.reasons("notice")
    assert tree(Path(origin)) == before
    signing()
    with pytest.raises(SignatureError, match="no entry of this log is"):
        start(vault, tmp_path / "fourth")


def test_a_signed_vault_is_not_forked_without_its_key(
    tmp_path: Path, origin: str, signing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no key can't pass a signed vault off as an unsigned one by what he writes behind its end."""
    signed = str(tmp_path / "signed")
    signing()
    train(signed, tmp_path / "ours", 2)
    key = os.environ[SIGNING]
    signing()
    with pytest.raises(SignatureError, match="no entry of this log is"):
        start(str(tmp_path / "new"), tmp_path / "second", fork=signed)
    monkeypatch.setenv(SIGNING, key)
    log = Path(signed) / "log"
    newest = max(log.iterdir())
    theirs = max((Path(origin) / "log").iterdir()).read_text()
    (log / f"{int(newest.stem) + 1:020}.json").write_text(theirs)
    heard = train(str(tmp_path / "another"), tmp_path / "third", 5, fork=signed)
    assert "isn't signed" not in heard.reasons("notice")
    assert "begins as a fork of step 2 of" in heard.reasons("notice")


@pytest.mark.parametrize(("end", "step"), [("", 6), ("@latest", 6), ("@best", 4), ("@2", 2)])
def test_what_a_fork_may_name(tmp_path: Path, origin: str, end: str, step: int) -> None:
    """Without a step the newest, else the step or the best."""
    path, _ = start(str(tmp_path / "new"), tmp_path / "second", fork=f"{origin}{end}")
    assert path == tmp_path / "second" / f"checkpoint-{step}"


def test_a_fork_that_died_before_its_first_commit(tmp_path: Path, origin: str) -> None:
    """It begins from the same commit again, although the other vault holds a newer one by now."""
    vault, output = str(tmp_path / "new"), tmp_path / "second"
    start(vault, output, fork=origin)
    train(origin, tmp_path / "first", 8, keep_last=None)
    path, _ = start(vault, output, fork=origin)
    assert path == output / "checkpoint-6"


def test_a_fork_of_the_best_that_died_before_its_first_commit(tmp_path: Path, origin: str) -> None:
    """It begins from the same commit again, although another one is the best by now; another name is another choice."""
    vault, output = str(tmp_path / "new"), tmp_path / "second"
    start(vault, output, fork=f"{origin}@best")
    train(origin, tmp_path / "first", 8, best=8, keep_last=None)
    for end, step in (("@best", 4), ("@6", 6), ("@best", 8)):
        path, _ = start(vault, output, fork=f"{origin}{end}")
        assert path == output / f"checkpoint-{step}"


@pytest.mark.parametrize(
    ("fork", "says"),
    [
        ("{}@3", r"holds no checkpoint of step 3; it has: 2, 4, 6"),
        ("{}-typo@4", r"there is no vault.*did you mean .*origin\?"),
        ("{}/empty", "there is no vault"),
    ],
)
def test_a_fork_of_nothing_is_an_error(tmp_path: Path, origin: str, fork: str, says: str) -> None:
    """A mistyped vault or step starts nothing at step 0, and leaves no claim and no folder anywhere."""
    before = tree(tmp_path)
    with pytest.raises(NoSuchCheckpointError, match=says):
        start(str(tmp_path / "new"), tmp_path / "second", fork=fork.format(origin))
    new = str(tmp_path / "new")
    assert {path for path in tree(tmp_path) if not path.startswith(new)} == set(before)
    assert not list((tmp_path / "new").rglob("*.json"))


def test_a_damaged_commit_is_not_walked_back_from(tmp_path: Path, origin: str) -> None:
    """Another commit would be another run: the error says to name one."""
    (Path(origin) / "data" / "1" / "checkpoint-4" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(NoUsableCheckpointError, match="name another one as @STEP"):
        start(str(tmp_path / "new"), tmp_path / "second", fork=f"{origin}@4")


def test_a_fork_of_another_model_is_refused(tmp_path: Path, origin: str) -> None:
    """As with one's own vault, and before anything is claimed."""
    session, _ = a_session(str(tmp_path / "new"), tmp_path / "second", fork=origin)
    training = Training(session)
    try:
        with pytest.raises(WrongModelError, match=f"{origin} belongs to another model"):
            resume(session, TrainersFiles((("other.weight", (4, 4), "float32"), *PARAMETERS)))
    finally:
        training.close()
    assert not list((tmp_path / "new").rglob("*.json"))


def test_a_vault_is_no_fork_of_itself(tmp_path: Path) -> None:
    """The error says what is done instead."""
    with pytest.raises(SettingsError, match="that is this run's own vault"):
        Settings(vault=str(tmp_path / "v"), fork=f"{tmp_path / 'v'}@4")


def test_the_log_keeps_where_it_comes_from(tmp_path: Path, origin: str) -> None:
    """`vl why` tells of every checkpoint of a fork where its run began, and `vl show` of the first ones."""
    vault, output = str(tmp_path / "new"), tmp_path / "second"
    train(vault, output, 5, fork=f"{origin}@4", keep_last=None)
    train(vault, output, 7, fork=f"{origin}@4", keep_last=None)
    with open_vault(vault) as opened:
        history = opened.history()
        first, second = opened.checkpoints()
        for commit in (first, second):
            walk = [line.text for line in explain(history, commit).walk]
            assert sum(f"began as a fork of file://{origin}@4" in text for text in walk) == 1
        assert opened.forked_from(first) == f"file://{origin}@4"
        assert opened.forked_from(second) is None
    for command, says in (("why", "began as a fork of"), ("show", "@4: a fork"), ("logs", "a fork of")):
        shown = CliRunner().invoke(app, [command, vault if command == "logs" else f"{vault}@5"])
        assert says in " ".join(shown.output.split()), shown.output
