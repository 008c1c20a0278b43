"""What a person sets in variables for a store, and can't be used: said once, with a fix, before a request."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import free_ports
from vaultlayer_hf.errors import SettingsError, StoreDeniedError, StoreUnavailableError, VaultLayerError
from vaultlayer_hf.stores import open_store

KEYS = {"AWS_ACCESS_KEY_ID": "HFAKplanted", "AWS_SECRET_ACCESS_KEY": "planted"}
"""As of Hugging Face's buckets, so that they are taken for both."""
PLACES = [
    ("s3://bucket/run", "AWS_ENDPOINT_URL", KEYS),
    ("hf://buckets/me/bucket/run", "AWS_ENDPOINT_URL", KEYS),
    ("gs://bucket/run", "GOOGLE_BASE_URL", {"CLOUDSDK_AUTH_ACCESS_TOKEN": "planted"}),
    ("gs://bucket/run", "STORAGE_EMULATOR_HOST", {}),
    ("az://account/container/run", "AZURE_STORAGE_ENDPOINT", {"AZURE_STORAGE_KEY": "cGxhbnRlZA=="}),
    ("hf://me/repository/run", "HF_ENDPOINT", {}),
]
"""An address, the variable that names its server, and credentials that go with it."""


@pytest.fixture(autouse=True)
def nothing_of_this_machine(
    no_aws: None, no_azure: None, no_google: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable of this machine leads anywhere."""
    for name in ("HF_ENDPOINT", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def refused(uri: str, kind: type[VaultLayerError]) -> str:
    """Open a vault and read from it; return the message, which is one line and repeats nothing planted."""
    with pytest.raises(kind) as caught:
        open_store(uri).read("x", limit=1)
    everything = str(caught.value) + "".join(traceback.format_exception(caught.value))
    assert "planted" not in everything.lower()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("uri", "variable", "others"), PLACES, ids=[place[0] + place[1] for place in PLACES])
@pytest.mark.parametrize(
    ("address", "fix"),
    [
        ("http://planted:planted@127.0.0.1:1", "credentials by their own variables"),
        ("http://127.0.0.1:1/?token=planted", r"takes no \?options"),
        ("http://127.0.0.1:99999", "write it as https://host:port"),
        ("http://127.0.0.1:port", "write it as https://host:port"),
        ("http://[::1", "write it as https://host:port"),
        ("http://a b", "write it as https://host:port"),
        ("http://", "write it as https://host:port"),
        ("ftp://127.0.0.1:1", "start with http:// or https://"),
    ],
)
def test_servers_that_cannot_be_meant(
    uri: str, variable: str, others: dict[str, str], address: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address with a password, options, no host or no port: refused for every store, and never repeated."""
    for name, value in (*others.items(), (variable, address)):
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"{variable}.*{fix}"):
        open_store(uri)
    refused(uri, SettingsError)


@pytest.mark.parametrize(
    ("uri", "variable"),
    [
        ("s3://bucket/run", "AWS_ACCESS_KEY_ID"),
        ("s3://bucket/run", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/run", "AWS_SESSION_TOKEN"),
        ("gs://bucket/run", "CLOUDSDK_AUTH_ACCESS_TOKEN"),
    ],
)
@pytest.mark.parametrize("value", ["planted\nplanted", "planted planted", "plantedü"])
def test_keys_that_cannot_be_sent(
    uri: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was copied with more than itself is said to be one; the client would end in a trace of its own."""
    for name, text in (*KEYS.items(), (variable, value)):
        monkeypatch.setenv(name, text)
    assert "set it again, without what was copied along with it" in refused(uri, StoreDeniedError)


def test_a_region_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region with a space is refused by its variable; a line break behind it doesn't matter."""
    for name, text in (*KEYS.items(), ("AWS_REGION", "us east 1")):
        monkeypatch.setenv(name, text)
    assert "AWS_REGION" in refused("s3://bucket/run", SettingsError)
    monkeypatch.setenv("AWS_REGION", "us-east-1\n")
    open_store("s3://bucket/run")


def test_an_endpoint_with_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that ends in the bucket, as providers show it, is refused; a host of the bucket's name isn't."""
    for name, text in (*KEYS.items(), ("AWS_ENDPOINT_URL", "https://server/bucket/")):
        monkeypatch.setenv(name, text)
    assert "ends in the bucket's name, bucket" in refused("s3://bucket/run", SettingsError)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://bucket")
    open_store("s3://bucket/run")


@pytest.mark.parametrize(
    "text", ["no certificate", "-----BEGIN CERTIFICATE-----\nplanted\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize(
    ("uri", "variable"),
    [
        ("s3://bucket/run", "AWS_CA_BUNDLE"),
        ("gs://bucket/run", "SSL_CERT_FILE"),
        ("az://account/container/run", "AZURE_STORAGE_CA_BUNDLE"),
    ],
)
def test_authorities_that_are_none(
    uri: str, variable: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of authorities without one is refused by its variable."""
    file = tmp_path / "authorities.pem"
    file.write_text(text)
    said = {
        **KEYS,
        "AZURE_STORAGE_KEY": "cGxhbnRlZA==",
        "CLOUDSDK_AUTH_ACCESS_TOKEN": "x",
        variable: str(file),
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert variable in refused(uri, SettingsError)


def test_a_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers and a proxy stands in between, its variable is named; not where the server is exempt."""
    server, proxy = free_ports(2)
    said = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server}"}
    for name, value in (*said.items(), ("HTTP_PROXY", f"http://planted:planted@127.0.0.1:{proxy}")):
        monkeypatch.setenv(name, value)
    assert "HTTP_PROXY leads through a proxy: check it, or add 127.0.0.1 to NO_PROXY" in refused(
        "s3://bucket/run", StoreUnavailableError
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "proxy" not in refused("s3://bucket/run", StoreUnavailableError).lower()


@pytest.fixture(scope="module")
def private_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that holds nothing, whose authority no machine knows: its address, and the authority's certificate."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        "req", "-x509", *new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"
    )
    openssl("req", *new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
    openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"<Error><Code>NoSuchKey</Code></Error>")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}", folder / "ca.pem"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("place", "variable"),
    [(0, "AWS_CA_BUNDLE"), (1, "AWS_CA_BUNDLE"), (2, "SSL_CERT_FILE"), (4, "AZURE_STORAGE_CA_BUNDLE")],
)
def test_an_unknown_authority(
    place: int, variable: str, private_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of an authority that this machine doesn't know: the variable for it is named, and mends it."""
    endpoint, certificate = private_server
    uri, server, others = PLACES[place]
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    for name, value in (*others.items(), (server, endpoint)):
        monkeypatch.setenv(name, value)
    said = refused(uri, StoreDeniedError)
    assert f"{endpoint} shows a certificate that isn't trusted" in said
    assert variable in said
    monkeypatch.setenv(variable, str(certificate))
    assert not open_store(uri).exists("x")
