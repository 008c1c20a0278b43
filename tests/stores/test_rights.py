"""The least rights: what the guide says is enough for a run, for one that can't delete and for a reader, and no more.

Against servers that enforce them: moto's server checks AWS policies by action and resource, Azurite a SAS.
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme.blocks import of_kind
from tests.stores.azurite import AzuriteServer
from tests.stores.others import INSTALL, OtherServer, moto
from tests.vault.vaults import train
from vaultlayer_hf import StoreDeniedError, open_vault
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store

pytestmark = pytest.mark.slow

READER = {"s3:ListBucket", "s3:GetObject"}


def policy(*, without: set[str] = frozenset(), only: set[str] | None = None) -> str:  # type: ignore[assignment]
    """The guide's policy, for the tests' bucket; without some of its actions, or with some alone."""
    (block,) = of_kind("json:policy")
    said = json.loads(block.text.replace("arn:aws:s3:::bucket", f"arn:aws:s3:::{OtherServer.bucket}"))
    for statement in said["Statement"]:
        statement.pop("Condition", None)  # moto can't tell what prefix a listing asks for
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        statement["Action"] = [one for one in actions if one not in without and (not only or one in only)]
        # Many at once moto asks of the bucket, AWS of each object.
        if "s3:DeleteObject" in statement["Action"]:
            statement["Resource"] = [statement["Resource"], f"arn:aws:s3:::{OtherServer.bucket}"]
    return json.dumps(said)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    """A moto server that lets nobody do what no policy allows; an administrator's keys are in ``owner``."""
    if moto(0, tmp_path_factory.getbasetemp()) is None:
        pytest.skip(f"no moto here: {INSTALL[moto]}")
    server = OtherServer(moto)
    yield server
    server.close()


def enforce(server: OtherServer, on: bool) -> None:
    """Have the server check rights from now on, or no more."""
    request = urllib.request.Request(
        f"{server.endpoint}/moto-api/reset-auth",
        data=b"0" if on else b"inf",
        headers={"Content-Type": "text/plain"},
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


@pytest.fixture
def allow(strict: OtherServer, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Makes a user with a policy, and has this process be that user."""
    import botocore.session

    def become(document: str) -> None:
        enforce(strict, False)
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        client = botocore.session.get_session().create_client("iam", endpoint_url=strict.endpoint, **keys)
        name = f"user-{uuid.uuid4().hex[:8]}"
        client.create_user(UserName=name)
        client.put_user_policy(UserName=name, PolicyName="least", PolicyDocument=document)
        made = client.create_access_key(UserName=name)["AccessKey"]
        for variable, value in strict.env().items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", made["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made["SecretAccessKey"])
        enforce(strict, True)

    yield become
    enforce(strict, False)


def steps(uri: str) -> list[int]:
    """The steps of a vault's checkpoints, each read back whole."""
    with open_vault(uri) as vault:
        assert all(vault.verify(one).ok for one in vault.checkpoints())
        return [one.step for one in vault.checkpoints()]


def folders(uri: str) -> set[str]:
    """The names of the checkpoint folders that lie in a vault."""
    return {item.key.split("/")[2] for item in open_store(uri).list("data/")}


def refused(store: Store, right: str) -> None:
    """Check that writing and deleting are refused, and that the message names the right that is missing."""
    with pytest.raises(StoreDeniedError, match=right):
        store.write("hint.json", b"{}")
    with pytest.raises(StoreDeniedError, match=right):
        store.create("log/00000000000000000099.json", b"{}")


def test_policies_of_s3(strict: OtherServer, allow, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The guide's policy is enough for a run with retention; without an action it goes on; a reader only reads."""
    uri = f"s3://{strict.bucket}/my-run"
    allow(policy())
    heard = train(uri, tmp_path / "a", 100, 200, 300, keep_last=1)
    assert steps(uri) == [300]
    assert not heard.reasons("trouble")
    assert not [item.key for item in open_store(uri).list("probe/")]
    with pytest.raises(StoreDeniedError):  # nothing beside the prefix
        open_store(f"s3://{strict.bucket}/other").write("x", b"x")

    allow(policy(without={"s3:DeleteObject"}))
    heard = train(uri, tmp_path / "b", 400, 500, keep_last=1)
    assert "s3:DeleteObject" in heard.reasons("trouble")
    assert folders(uri) >= {"checkpoint-400", "checkpoint-500"}

    allow(policy(only=READER))
    store = open_store(uri)
    key = next(item.key for item in store.list("data/") if item.key.endswith("500/model.safetensors"))
    assert len(store.read(key, limit=10_000)) == 3000
    refused(store, "s3:PutObject")

    allow(policy())
    open_store(uri).delete(["hint.json"])  # moto takes no signature of a listing that begins at a ~
    train(uri, tmp_path / "c", 600, keep_last=1)
    assert folders(uri) == {"checkpoint-500", "checkpoint-600"}  # what it went on from stays
    enforce(strict, False)
    assert steps(uri) == [500, 600]


def test_signatures_of_azure(
    azurite: AzuriteServer, az_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SAS of ``racwdl`` is enough for a run with retention, ``racwl`` for one that can't delete, ``rl`` to read."""
    container = az_uri.removeprefix("az://").split("/")[1]
    monkeypatch.delenv("AZURE_STORAGE_KEY")

    def become(permissions: str) -> None:
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", azurite.sas(container, permissions))

    become("racwdl")
    heard = train(az_uri, tmp_path / "a", 100, 200, 300, keep_last=1)
    assert steps(az_uri) == [300]
    assert not heard.reasons("trouble")
    become("racwl")
    heard = train(az_uri, tmp_path / "b", 400, 500, keep_last=1)
    assert "delete (d)" in heard.reasons("trouble")
    assert steps(az_uri)[-1] == 500
    become("rl")
    assert steps(az_uri)[-1] == 500
    refused(open_store(az_uri), r"write \(w\)")
