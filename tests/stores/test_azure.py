"""Azure Blob Storage: addresses, credentials where Azure's users keep them, errors in Azure's words; by Azurite."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import CannedServer
from tests.stores.azurite import AzuriteServer
from vaultlayer_hf.errors import (
    ObjectNotFoundError,
    SettingsError,
    StoreDeniedError,
    StoreError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.objects.azure import find_access

Set = Callable[..., None]


@pytest.fixture
def variables(no_azure: None, monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets AZURE_* variables, and nothing else is set."""

    def set_them(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_them


def works(uri: str) -> bool:
    """Whether an object can be made once, read, listed and deleted there."""
    store = open_store(uri)
    key = f"works-{time.time_ns()}"
    store.create(key, b"x")
    here = store.read(key, limit=1) == b"x" and key in [info.key for info in store.list("")]
    store.delete([key])
    return here and not store.exists(key)


def test_where_credentials_are_found(
    azurite: AzuriteServer, az_uri: str, variables: Set, monkeypatch
) -> None:
    """A key, a SAS and a connection string with either, under each of their names, open the container."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    container = az_uri.split("/")[3]
    account = f"AccountName={azurite.account};BlobEndpoint={azurite.endpoint}"
    for name, value in [
        ("AZURE_STORAGE_KEY", azurite.key),
        ("AZURE_STORAGE_ACCOUNT_KEY", azurite.key),
        ("AZURE_STORAGE_SAS_TOKEN", azurite.sas(container)),
        ("AZURE_STORAGE_SAS_KEY", "?" + azurite.sas(container)),
        ("AZURE_STORAGE_CONNECTION_STRING", f"{account};AccountKey={azurite.key};"),
        ("AZURE_STORAGE_CONNECTION_STRING", f"{account};SharedAccessSignature={azurite.sas(container)}"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            if "CONNECTION" in name:
                patch.delenv("AZURE_STORAGE_ENDPOINT")
            assert works(az_uri), name
            assert open_store(az_uri).credentials == name


def test_an_abfss_address_is_the_same_vault(azurite: AzuriteServer, az_uri: str) -> None:
    """What is written by az:// is read by abfss://."""
    account, container, prefix = az_uri.removeprefix("az://").split("/", 2)
    open_store(az_uri).write("x", b"x")
    same = open_store(f"abfss://{container}@{account}.dfs.core.windows.net/{prefix}")
    assert (same.uri, same.read("x", limit=1)) == (az_uri, b"x")


def test_errors_in_azures_words(azurite: AzuriteServer, az_uri: str, monkeypatch, tmp_path: Path) -> None:
    """No container, a wrong key, a SAS that may only read or has expired: each with Azure's fix, no secret."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    for call in (
        lambda store: store.write("x", b"x"),
        lambda store: store.read("x", limit=1),
        lambda store: store.head("x"),
        lambda store: list(store.list("")),
        lambda store: store.upload("x", file, size=1),
    ):
        with pytest.raises(
            StoreDeniedError, match=r"the container doesn't exist .*az storage container create"
        ):
            call(open_store(f"az://{azurite.account}/nobody"))
    container = az_uri.split("/")[3]
    wrong = base64.b64encode(b"wrong" * 8).decode()
    said = []

    def refused(call: Callable[..., object], **values: str) -> StoreError:
        with monkeypatch.context() as patch:
            patch.delenv("AZURE_STORAGE_KEY")
            for name, value in values.items():
                patch.setenv(name, value)
            with pytest.raises(StoreDeniedError) as caught:
                call(open_store(az_uri))
            said.append(str(caught.value))
            return caught.value

    assert "AZURE_STORAGE_KEY" in str(refused(lambda store: store.write("x", b"x"), AZURE_STORAGE_KEY=wrong))
    reader = {"AZURE_STORAGE_SAS_TOKEN": azurite.sas(container, "rl")}
    assert "racwdl" in str(refused(lambda store: store.write("x", b"x"), **reader))
    late = {"AZURE_STORAGE_SAS_TOKEN": azurite.sas(container, seconds=-60)}
    assert "AZURE_STORAGE_SAS_TOKEN" in str(refused(lambda store: store.write("x", b"x"), **late))
    broken = refused(lambda store: store, AZURE_STORAGE_KEY="no base64!")
    assert "from AZURE_STORAGE_KEY can't be read" in str(broken)
    for text in said:
        assert "AWS" not in text
        assert "sig=" not in text
        assert "no base64!" not in text
        assert wrong not in text


def test_no_object(az_uri: str) -> None:
    """An object that isn't there is just that."""
    with pytest.raises(ObjectNotFoundError):
        open_store(az_uri).head("x")


def test_the_account_that_was_forgotten(variables: Set) -> None:
    """az://container/prefix, as other programs write it, has no such account: the message says how it is written."""
    variables(AZURE_STORAGE_KEY="a2V5")
    with pytest.raises(StoreUnavailableError, match="az://account/container/prefix"):
        open_store("az://nosuchaccount/container/run").head("x")


def test_connection_strings_that_cannot_be_meant(variables: Set) -> None:
    """A connection string of another account, or an unreadable one, is told without repeating it."""
    for text, said in [
        ("AccountName=other;AccountKey=a2V5", "'other'.*'me'"),
        ("a2V5c2VjcmV0", "can't be read"),
        ("AccountName=me", "neither AccountKey nor SharedAccessSignature"),
    ]:
        variables(AZURE_STORAGE_CONNECTION_STRING=text)
        with pytest.raises(SettingsError, match=said) as caught:
            open_store("az://me/container")
        assert "a2V5" not in str(caught.value)


def test_a_connection_string_names_its_cloud(variables: Set) -> None:
    """Accounts of another cloud are reached where the connection string says; the emulator's short form is known."""
    variables(
        AZURE_STORAGE_CONNECTION_STRING="AccountName=me;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn"
    )
    assert find_access("me").config["endpoint"] == "https://me.blob.core.chinacloudapi.cn"
    variables(AZURE_STORAGE_CONNECTION_STRING="UseDevelopmentStorage=true")
    assert find_access("devstoreaccount1").config["endpoint"] == "http://127.0.0.1:10000/devstoreaccount1"


def test_identities(variables: Set, serve: Callable[..., CannedServer], monkeypatch, tmp_path: Path) -> None:
    """The token of a managed identity, and that of az login, is what the store is asked with."""
    seen: list[str] = []

    def blob(method: str, path: str, headers: dict[str, str], body: bytes):
        seen.append({name.lower(): value for name, value in headers.items()}.get("authorization", ""))
        return 404, {}, b""

    def identity(method: str, path: str, headers: dict[str, str], body: bytes):
        answer = {"access_token": "token-of-the-machine", "expires_on": str(int(time.time()) + 3600)}
        known = {name.lower(): value for name, value in headers.items()}.get("x-identity-header") == "header"
        wanted = {**answer, "resource": "https://storage.azure.com", "token_type": "Bearer"}
        return (200 if known else 401), {"Content-Type": "application/json"}, json.dumps(wanted).encode()

    store, machine = serve(blob), serve(identity)
    variables(AZURE_STORAGE_ENDPOINT=store.endpoint)
    program = tmp_path / "bin" / "az"
    program.parent.mkdir()
    until = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.localtime(time.time() + 3600))
    token = {
        "accessToken": "token-of-the-person",
        "expiresOn": until,
        "subscription": "s",
        "tenant": "t",
        "tokenType": "Bearer",
    }
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(token)}\nEND\n")
    program.chmod(0o755)
    (tmp_path / "azureProfile.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        patch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
        opened = open_store("az://me/container/x")
        with pytest.raises(ObjectNotFoundError):
            opened.head("x")
        assert opened.credentials == "az login"
    variables(IDENTITY_ENDPOINT=f"{machine.endpoint}/token", IDENTITY_HEADER="header")
    opened = open_store("az://me/container/x")
    with pytest.raises(ObjectNotFoundError):
        opened.head("x")
    assert opened.credentials == "the machine's managed identity"
    assert {"Bearer token-of-the-person", "Bearer token-of-the-machine"} == set(seen)


def test_no_credentials(variables: Set, serve: Callable[..., CannedServer]) -> None:
    """Where no identity answers either, the places to put credentials are named."""
    nobody = serve(lambda method, path, headers, body: (400, {}, b'{"error": "invalid_request"}'))
    variables(IDENTITY_ENDPOINT=f"{nobody.endpoint}/token", IDENTITY_HEADER="header")
    with pytest.raises(StoreDeniedError, match=r"gives no token .*az login"):
        open_store("az://me/container/x").head("x")
