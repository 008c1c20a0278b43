"""Hugging Face Buckets: keys where a person has put them, and how to make them; a double of their S3 gateway."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.stores.gateways import HubGateway
from vaultlayer_hf.errors import StoreDeniedError
from vaultlayer_hf.stores import open_store


def works(uri: str) -> bool:
    """Whether an object can be made once, read, listed and deleted there."""
    store = open_store(uri)
    key = f"works-{time.time_ns()}"
    store.create(key, b"x")
    here = store.read(key, limit=1) == b"x" and key in [info.key for info in store.list("")]
    store.delete([key])
    return here and not store.exists(key)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token of this machine is seen."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "absent-hub"))


def profile(hub: HubGateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the profile hf as Hugging Face's documentation shows it."""
    (folder / "config").write_text(
        f"[profile hf]\nregion = us-east-1\nendpoint_url = {hub.endpoint}/{hub.namespace}\n"
        "s3 =\n    addressing_style = path\n"
    )
    keys = f"aws_access_key_id = {hub.access_key}\naws_secret_access_key = {hub.secret_key}\n"
    (folder / "credentials").write_text(f"[hf]\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))


def test_keys_in_variables(hf_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are enough, also without botocore."""
    assert works(hf_uri)
    assert open_store(hf_uri).credentials == "AWS_ACCESS_KEY_ID"
    for name in ("botocore", "botocore.session"):
        monkeypatch.setitem(sys.modules, name, None)
    assert works(hf_uri)


def test_the_profile_hf(
    hub: HubGateway, hf_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented profile is found by its name, also beside keys of AWS, which are never shown to the gateway."""
    profile(hub, tmp_path, monkeypatch)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert works(hf_uri)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFAWS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-aws")
    assert works(hf_uri)


def test_reading_is_led_to_the_cdn(hub: HubGateway, hf_uri: str, tmp_path: Path) -> None:
    """Bytes come from where the gateway leads to, whole, in ranges and in pieces; the keys aren't shown there."""
    data = bytes(range(256)) * 80_000
    file = tmp_path / "file"
    file.write_bytes(data)
    store = open_store(hf_uri)
    store.upload("x", file, size=len(data))
    assert bytes(store.read_range("x", 1000, 5_000_000)) == data[1000:5_001_000]
    came = bytearray(len(data))

    def take(offset: int, piece: memoryview) -> None:
        came[offset : offset + len(piece)] = piece

    store.read_pieces("x", 0, len(data), take)
    assert bytes(came) == data


def test_a_token_alone_says_how_to_make_keys(
    no_aws: None, no_hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only HF_TOKEN is there, or nothing, or keys of AWS alone, the way to S3 keys is told."""
    for variables in (
        {},
        {"HF_TOKEN": "hf_secret"},
        {"AWS_ACCESS_KEY_ID": "AKIAOFAWS", "AWS_SECRET_ACCESS_KEY": "secret-of-aws"},
    ):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(StoreDeniedError, match="Generate S3 credentials") as caught:
                open_store("hf://buckets/me/data/run")
            assert ("there is an access token" in str(caught.value)) == ("HF_TOKEN" in variables)
            assert "secret" not in str(caught.value).replace("AWS_SECRET", "")


def test_errors_in_its_words(hub: HubGateway, hf_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bucket, an unknown key and a wrong secret are told with Hugging Face's fixes."""
    for call in (
        lambda store: store.write("x", b"x"),
        lambda store: list(store.list("")),
        lambda s: s.head("x"),
    ):
        with pytest.raises(StoreDeniedError, match=r"the bucket doesn't exist .*hf buckets create"):
            call(open_store(f"hf://buckets/{hub.namespace}/nobody/x"))
    for name, value in (("AWS_ACCESS_KEY_ID", "HFAKUNKNOWN"), ("AWS_SECRET_ACCESS_KEY", "wrong")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(StoreDeniedError, match="Generate S3 credentials"):
                open_store(hf_uri).write("x", b"x")
