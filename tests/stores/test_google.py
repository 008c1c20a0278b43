"""Google Cloud Storage: credentials where Google's users keep them, errors in its words; by a double."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.stores.gateways import GoogleGateway
from vaultlayer_hf.cli.checks import Measurements, check_store
from vaultlayer_hf.errors import MissingExtraError, StoreDeniedError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault


@pytest.fixture
def uri(gs_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vault on the double, to which no credentials are found yet."""
    monkeypatch.delenv("CLOUDSDK_AUTH_ACCESS_TOKEN")
    return gs_uri


def works(uri: str) -> bool:
    """Whether an object can be made once, read, listed and deleted there."""
    store = open_store(uri)
    key = f"works-{time.time_ns()}"
    store.create(key, b"x")
    here = store.read(key, limit=1) == b"x" and key in [info.key for info in store.list("")]
    store.delete([key])
    return here and not store.exists(key)


def service_account(google: GoogleGateway, folder: Path) -> Path:
    """A service account's file, with a key of its own."""
    key = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-quiet", "-pkeyopt", "rsa_keygen_bits:2048"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    file = folder / "account.json"
    said = {
        "type": "service_account",
        "private_key": key,
        "private_key_id": "1",
        "client_email": google.account,
        "gcs_base_url": google.endpoint,
    }
    file.write_text(json.dumps(said))
    return file


def test_service_account(google: GoogleGateway, uri: str, tmp_path: Path, monkeypatch) -> None:
    """A service account's file opens the bucket, by GOOGLE_APPLICATION_CREDENTIALS or as gcloud's own."""
    monkeypatch.delenv("GOOGLE_BASE_URL")
    file = service_account(google, tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        assert works(uri)
        assert open_store(uri).credentials == "GOOGLE_APPLICATION_CREDENTIALS"
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    file.rename(tmp_path / "application_default_credentials.json")
    assert works(uri)
    assert open_store(uri).credentials == "gcloud auth application-default login"


def test_the_machines_service_account(google: GoogleGateway, uri: str, serve, monkeypatch) -> None:
    """Without any file the metadata server is asked, as on Compute Engine and in GKE."""

    def metadata(method: str, path: str, headers: dict[str, str], body: bytes):
        low = {name.lower(): value for name, value in headers.items()}
        if low.get("metadata-flavor") != "Google" or "/service-accounts/default/token" not in path:
            return 403, {}, b""
        token = {"access_token": "token-of-the-machine", "expires_in": 3600, "token_type": "Bearer"}
        return (
            200,
            {"Content-Type": "application/json", "Metadata-Flavor": "Google"},
            json.dumps(token).encode(),
        )

    machine = serve(metadata)
    google.tokens = {"token-of-the-machine"}
    monkeypatch.setenv("GCE_METADATA_HOST", machine.endpoint.removeprefix("http://"))
    assert works(uri)
    assert open_store(uri).credentials == "the machine's service account"
    assert machine.requests


def test_workload_identity_federation(
    google: GoogleGateway, uri: str, serve, tmp_path: Path, monkeypatch
) -> None:
    """A token of another identity provider is exchanged for Google's, as its configuration file says."""

    def exchange(method: str, path: str, headers: dict[str, str], body: bytes):
        if parse_qs(body.decode()).get("subject_token") != ["token-of-elsewhere"]:
            return 401, {}, b"{}"
        token = {
            "access_token": "token-of-the-exchange",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(token).encode()

    google.tokens = {"token-of-the-exchange"}
    subject = tmp_path / "subject"
    subject.write_text("token-of-elsewhere")
    file = tmp_path / "federation.json"
    said = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/elsewhere",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{serve(exchange).endpoint}/token",
        "credential_source": {"file": str(subject)},
    }
    file.write_text(json.dumps(said))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert works(uri)
    with monkeypatch.context() as patch:
        for name in ("google.auth.transport", "google.auth.transport.requests"):
            patch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match=r"external_account.*vaultlayer-hf\[gcs\]"):
            open_store(uri)


def test_doctor_says_where_credentials_are_from(gs_uri: str) -> None:
    """The finding of a vault that can be read names the place of its credentials."""
    findings = check_store(parse_vault(gs_uri), 5.0, Measurements())
    first = next(findings)
    assert isinstance(findings, Generator)
    findings.close()
    assert (first.name, first.state) == ("credentials", "ok")
    assert "the credentials of CLOUDSDK_AUTH_ACCESS_TOKEN" in first.text


def test_an_emulator(serve, no_google: None, monkeypatch) -> None:
    """STORAGE_EMULATOR_HOST leads to another server, which is shown no credentials."""
    seen: list[dict[str, str]] = []

    def answer(method: str, path: str, headers: dict[str, str], body: bytes):
        seen.append({name.lower(): value for name, value in headers.items()})
        modified = datetime.now(UTC) - timedelta(hours=1)
        stamp = modified.strftime("%a, %d %b %Y %H:%M:%S GMT")
        return (
            200,
            {"ETag": '"x"', "Last-Modified": stamp, "x-goog-generation": "1", "Content-Length": "3"},
            b"abc",
        )

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", serve(answer).endpoint.removeprefix("http://"))
    assert open_store("gs://bucket/run").head("x").size == 3
    assert "authorization" not in seen[0]


def test_errors_in_googles_words(google: GoogleGateway, gs_uri: str, tmp_path: Path, monkeypatch) -> None:
    """No bucket, a wrong token, one that may only read, a broken file: each with Google's fix, and no secret in it."""
    for call in (
        lambda store: store.write("x", b"x"),
        lambda store: store.read("x", limit=1),
        lambda store: store.head("x"),
        lambda store: list(store.list("")),
    ):
        with pytest.raises(
            StoreDeniedError, match=r"the bucket doesn't exist .*gcloud storage buckets create"
        ):
            call(open_store("gs://nobody/x"))
    said = []
    google.readers = {"token-of-a-reader"}
    for token, fix in [
        ("wrong-token", "gcloud auth application-default login"),
        ("token-of-a-reader", "objectUser"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN", token)
            with pytest.raises(StoreDeniedError, match=fix) as caught:
                open_store(gs_uri).write("x", b"x")
            said.append(str(caught.value))
            assert token not in said[-1]
    for text in (
        "no json",
        "{}",
        '{"type": "external_account"}',
        '{"type": "service_account", "private_key": "secret-key"}',
    ):
        file = tmp_path / "broken.json"
        file.write_text(text)
        with monkeypatch.context() as patch:
            patch.delenv("CLOUDSDK_AUTH_ACCESS_TOKEN")
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
            with pytest.raises(StoreDeniedError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
                open_store(gs_uri)
            said.append(str(caught.value))
    assert not any("AWS" in text or "secret-key" in text for text in said)


def test_no_credentials(uri: str, serve, monkeypatch) -> None:
    """Where the metadata server has none either, the places to put credentials are named."""
    nobody = serve(lambda method, path, headers, body: (404, {}, b""))
    monkeypatch.setenv("GCE_METADATA_HOST", nobody.endpoint.removeprefix("http://"))
    with pytest.raises(StoreDeniedError, match="gcloud auth application-default login"):
        open_store(uri).head("x")
