"""S3 credentials, endpoint and region are found where users of boto3 keep them; a real server accepts them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import ROOT
from tests.kit.inside import client_of
from tests.servers import CannedServer, SeaweedServer, free_ports
from vaultlayer_hf.errors import MissingExtraError, SettingsError, StoreDeniedError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.objects import s3
from vaultlayer_hf.stores.objects.s3 import S3Access, find_access

Config = Callable[..., None]


@pytest.fixture
def without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore can't be imported, as where the extra isn't installed."""
    for name in ("botocore", "botocore.session"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def config(no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Writes the shared files and sets variables."""

    def write(*, config: str = "", credentials: str = "", **variables: str) -> None:
        for name, text in (("AWS_CONFIG_FILE", config), ("AWS_SHARED_CREDENTIALS_FILE", credentials)):
            if text:
                path = tmp_path / name.lower()
                path.write_text(text)
                monkeypatch.setenv(name, str(path))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return write


def keys(server: SeaweedServer, name: str = "default") -> str:
    """A section of a credentials file."""
    return f"[{name}]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"


def role_answer(server: SeaweedServer) -> bytes:
    """Temporary credentials, as metadata services hand them out."""
    return json.dumps(
        {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "AccessKeyId": server.access_key,
            "SecretAccessKey": server.secret_key,
            "Token": "",
            "Expiration": (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    ).encode()


def works(server: SeaweedServer) -> bool:
    """Whether the credentials that are found open the bucket for writing."""
    store = open_store(f"s3://{server.bucket}/access-{time.time_ns()}")
    store.create("x", b"x")
    return store.read("x", limit=1) == b"x"


def test_variables(config: Config, s3_server: SeaweedServer) -> None:
    """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL are enough."""
    env = s3_server.env()
    del env["AWS_REGION"]
    config(**env)
    assert works(s3_server)


def test_variables_without_botocore(config: Config, s3_server: SeaweedServer, without_botocore: None) -> None:
    """The same without the extra."""
    config(**s3_server.env())
    assert works(s3_server)


@pytest.mark.parametrize("extra", [True, False])
def test_the_endpoint_of_s3_wins(
    config: Config, s3_server: SeaweedServer, extra: bool, request: pytest.FixtureRequest
) -> None:
    """AWS_ENDPOINT_URL_S3 goes before AWS_ENDPOINT_URL, with and without botocore."""
    if not extra:
        request.getfixturevalue("without_botocore")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    config(**s3_server.env() | {"AWS_ENDPOINT_URL": nobody, "AWS_ENDPOINT_URL_S3": s3_server.endpoint})
    assert works(s3_server)


def test_default_profile(config: Config, s3_server: SeaweedServer) -> None:
    """Without any variable the default profile of the shared files gives keys, endpoint and region."""
    config(
        credentials=keys(s3_server),
        config=f"[default]\nregion = eu-west-1\nendpoint_url = {s3_server.endpoint}\n",
    )
    assert find_access().region == "eu-west-1"
    assert works(s3_server)


def test_named_profile(config: Config, s3_server: SeaweedServer) -> None:
    """AWS_PROFILE chooses a profile, and a services section its endpoint for S3 alone."""
    config(
        credentials="[default]\naws_access_key_id = WRONG\naws_secret_access_key = wrong\n"
        + keys(s3_server, "team"),
        config="[profile team]\nregion = us-west-2\nservices = local\n"
        f"[services local]\ns3 =\n  endpoint_url = {s3_server.endpoint}\n",
        AWS_PROFILE="team",
    )
    assert find_access().region == "us-west-2"
    assert works(s3_server)


def test_credential_process(config: Config, s3_server: SeaweedServer, tmp_path: Path) -> None:
    """A program named in the profile may give the credentials."""
    answer = {"Version": 1, "AccessKeyId": s3_server.access_key, "SecretAccessKey": s3_server.secret_key}
    program = tmp_path / "give"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    config(config=f"[default]\ncredential_process = {program}\nendpoint_url = {s3_server.endpoint}\n")
    assert works(s3_server)


def test_container_role(
    config: Config, s3_server: SeaweedServer, serve: Callable[..., CannedServer], tmp_path: Path
) -> None:
    """The role of a container is asked at the address that its variables name, with its token."""
    token = tmp_path / "token"
    token.write_text("token-of-the-container")

    def answer(
        method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        allowed = path == "/creds" and headers.get("Authorization") == "token-of-the-container"
        return (200 if allowed else 403), {}, role_answer(s3_server) if allowed else b""

    container = serve(answer)
    config(
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{container.endpoint}/creds",
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token),
        AWS_ENDPOINT_URL=s3_server.endpoint,
    )
    assert works(s3_server)
    assert container.requests == [("GET", "/creds")]


@pytest.mark.parametrize("extra", [True, False])
def test_instance_role(
    config: Config,
    s3_server: SeaweedServer,
    serve: Callable[..., CannedServer],
    extra: bool,
    request: pytest.FixtureRequest,
) -> None:
    """The role of an instance is asked at the metadata service (version 2), with and without botocore."""
    if not extra:
        request.getfixturevalue("without_botocore")
    base = "/latest/meta-data/iam/security-credentials"

    def answer(
        method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        low = {name.lower(): value for name, value in headers.items()}
        if method == "PUT" and path == "/latest/api/token":
            return 200, {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}, b"session"
        if low.get("x-aws-ec2-metadata-token") != "session":
            return 401, {}, b""
        if path.rstrip("/") == base:
            return 200, {}, b"trainer"
        return (200, {}, role_answer(s3_server)) if path == f"{base}/trainer" else (404, {}, b"")

    metadata = serve(answer)
    config(
        AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata.endpoint,
        AWS_EC2_METADATA_DISABLED="false",
        AWS_ENDPOINT_URL=s3_server.endpoint,
        AWS_REGION="us-east-1",
    )
    assert works(s3_server)
    assert ("GET", f"{base}/trainer") in metadata.requests


def test_web_identity(
    config: Config, s3_server: SeaweedServer, serve: Callable[..., CannedServer], tmp_path: Path
) -> None:
    """A web identity (a Kubernetes service account) is exchanged for credentials."""
    token = tmp_path / "token"
    token.write_text("identity-token")

    def answer(
        method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if b"Action=AssumeRoleWithWebIdentity" not in body or b"identity-token" not in body:
            return 400, {}, b""
        until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        space = "https://sts.amazonaws.com/doc/2011-06-15/"
        inside = (
            f"<AccessKeyId>{s3_server.access_key}</AccessKeyId>"
            f"<SecretAccessKey>{s3_server.secret_key}</SecretAccessKey>"
            f"<SessionToken></SessionToken><Expiration>{until}</Expiration>"
        )
        name = "AssumeRoleWithWebIdentity"
        result = f"<{name}Result><Credentials>{inside}</Credentials></{name}Result>"
        return 200, {}, f'<{name}Response xmlns="{space}">{result}</{name}Response>'.encode()

    sts = serve(answer)
    config(
        AWS_WEB_IDENTITY_TOKEN_FILE=str(token),
        AWS_ROLE_ARN="arn:aws:iam::123456789012:role/trainer",
        AWS_ROLE_SESSION_NAME="test",
        AWS_ENDPOINT_URL_STS=sts.endpoint,
        AWS_ENDPOINT_URL=s3_server.endpoint,
        AWS_REGION="us-east-1",
    )
    assert works(s3_server)
    assert len(sts.requests) == 1


def test_corrected_credentials_are_noticed(
    config: Config, s3_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that runs on sees it when somebody corrects the credentials file."""
    monkeypatch.setattr(s3, "_REREAD", 0.2)
    endpoint = f"[default]\nendpoint_url = {s3_server.endpoint}\nregion = us-east-1\n"
    config(credentials=keys(s3_server).replace(s3_server.secret_key, "outdated"), config=endpoint)
    store = open_store(f"s3://{s3_server.bucket}/corrected")
    with pytest.raises(StoreDeniedError):
        store.write("x", b"x")
    config(credentials=keys(s3_server))
    deadline = time.monotonic() + 30
    while True:
        try:
            store.write("x", b"x")
            break
        except StoreDeniedError:
            assert time.monotonic() < deadline, "the corrected file was never read"
            time.sleep(0.1)


@pytest.mark.parametrize("variable", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
def test_a_profile_needs_the_extra(config: Config, without_botocore: None, variable: str) -> None:
    """Without botocore a wanted profile is an error that names the extra, with keys in variables too."""
    config(AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="B", **{variable: "team"})
    with pytest.raises(MissingExtraError, match=r"pip install 'vaultlayer-hf\[s3\]'"):
        open_store("s3://bucket/x")


def test_shared_files_need_the_extra(config: Config, without_botocore: None, tmp_path: Path) -> None:
    """Without botocore and without keys in variables an existing shared file is never skipped in silence."""
    for files in ({"credentials": "[default]\n"}, {"config": "[default]\n"}):
        config(**files)
        with pytest.raises(MissingExtraError, match=r"pip install 'vaultlayer-hf\[s3\]'"):
            open_store("s3://bucket/x")
    config(AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="B", AWS_DEFAULT_REGION="eu-north-1")
    assert find_access() == S3Access(region="eu-north-1")


def test_no_credentials(config: Config) -> None:
    """Without credentials anywhere it says at once what to set."""
    config()
    with pytest.raises(StoreDeniedError, match="no AWS credentials were found") as caught:
        open_store("s3://bucket/x")
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert "AWS_PROFILE" in str(caught.value)


def test_no_credentials_without_botocore(config: Config, without_botocore: None) -> None:
    """The same without the extra, at the first request."""
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    config(AWS_EC2_METADATA_SERVICE_ENDPOINT=nobody, AWS_ENDPOINT_URL=nobody)
    with pytest.raises(StoreDeniedError, match="no credentials were found") as caught:
        open_store("s3://bucket/x").head("x")
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)


def test_a_machine_that_gives_no_credentials(config: Config, without_botocore: None) -> None:
    """A metadata server that refuses says nothing of rights in the bucket: credentials are what is missing."""
    with closing(CannedServer(lambda *asked: (403, {}, b""))) as machine:
        config(AWS_EC2_METADATA_SERVICE_ENDPOINT=machine.endpoint, AWS_ENDPOINT_URL="http://127.0.0.1:9")
        with pytest.raises(StoreDeniedError, match="no credentials were found"):
            open_store("s3://bucket/x").head("x")
    assert machine.requests


def test_an_unknown_profile(config: Config) -> None:
    """A profile that doesn't exist is named."""
    config(AWS_PROFILE="typo")
    with pytest.raises(StoreDeniedError, match="no AWS profile 'typo'"):
        open_store("s3://bucket/x")


def test_half_a_key(config: Config) -> None:
    """An access key without its secret is told, not ignored."""
    config(AWS_ACCESS_KEY_ID="A")
    with pytest.raises(StoreDeniedError, match="AWS_SECRET_ACCESS_KEY"):
        open_store("s3://bucket/x")


def test_settings_that_cannot_work(config: Config, tmp_path: Path) -> None:
    """An endpoint without a scheme and a missing file of authorities are named."""
    config(AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="B", AWS_ENDPOINT_URL="minio:9000")
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL"):
        open_store("s3://bucket/x")
    config(AWS_ENDPOINT_URL="https://minio:9000", AWS_CA_BUNDLE=str(tmp_path / "absent.pem"))
    with pytest.raises(SettingsError, match=r"absent\.pem"):
        open_store("s3://bucket/x")


def test_addressing(config: Config) -> None:
    """As in boto3: AWS by the bucket's own host name, other servers by path unless the profile says virtual."""
    config(AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="B", AWS_REGION="eu-west-1")

    def setting(uri: str) -> tuple[object, object]:
        found = client_of(open_store(uri)).config
        virtual = str(found.get("virtual_hosted_style_request", False)).lower() == "true"
        return virtual, found.get("endpoint", found.get("aws_endpoint"))

    assert setting("s3://bucket/x") == (True, None)
    assert setting("s3://bucket.with.dots/x") == (False, None)
    config(AWS_ENDPOINT_URL="https://minio:9000/")
    assert setting("s3://bucket/x") == (False, "https://minio:9000")
    config(config="[default]\ns3 =\n  addressing_style = virtual\n")
    assert setting("s3://bucket/x") == (True, "https://bucket.minio:9000")


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    """A vault in a folder needs neither obstore nor botocore, and no store needs torch."""
    program = f"""
import sys
import vaultlayer_hf
from vaultlayer_hf.stores import open_store
heavy = {{"torch", "transformers", "accelerate", "obstore", "botocore", "pytest"}}
open_store({str(tmp_path / "vault")!r}).write("x", b"x")
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import vaultlayer_hf.stores.objects.s3, vaultlayer_hf.testing, vaultlayer_hf.stores.retry, vaultlayer_hf.stores.probe
assert heavy & set(sys.modules) == {{"obstore"}}, heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
