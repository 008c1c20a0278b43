"""What a user may write for a vault, and what is said when it can't be meant."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultlayer_hf.errors import VaultUriError
from vaultlayer_hf.stores.uri import parse_vault


@pytest.mark.parametrize(
    ("text", "uri", "bucket", "prefix", "step"),
    [
        ("s3://bucket/my-run", "s3://bucket/my-run", "bucket", "my-run", None),
        ("s3://bucket/a/b/", "s3://bucket/a/b", "bucket", "a/b", None),
        (" s3://bucket/a\n", "s3://bucket/a", "bucket", "a", None),
        ("s3://bucket", "s3://bucket", "bucket", "", None),
        ("s3://bucket/", "s3://bucket", "bucket", "", None),
        ("s3://bucket@12", "s3://bucket", "bucket", "", 12),
        ("s3://bucket/run@500", "s3://bucket/run", "bucket", "run", 500),
        ("s3://bucket/run@0", "s3://bucket/run", "bucket", "run", 0),
        ("s3://bucket/run@500/", "s3://bucket/run", "bucket", "run", 500),
        ("s3://bucket/run@v2", "s3://bucket/run@v2", "bucket", "run@v2", None),
        ("s3://bucket/run@v2@7", "s3://bucket/run@v2", "bucket", "run@v2", 7),
        ("s3://my.bucket_1/ü %41+x", "s3://my.bucket_1/ü %41+x", "my.bucket_1", "ü %41+x", None),
    ],
)
def test_s3(text: str, uri: str, bucket: str, prefix: str, step: int | None) -> None:
    """An S3 address is taken literally, without the slash at its end, and a step is split off."""
    address = parse_vault(text)
    assert (address.uri, address.scheme, address.path) == (uri, "s3", "")
    assert (address.bucket, address.prefix, address.step) == (bucket, prefix, step)


@pytest.mark.parametrize(
    ("text", "uri", "bucket", "prefix", "step"),
    [
        ("az://acc/box/a/b/", "az://acc/box/a/b", "acc/box", "a/b", None),
        ("az://acc/box", "az://acc/box", "acc/box", "", None),
        ("az://acc/box@12", "az://acc/box", "acc/box", "", 12),
        ("az://acc/$web/run@best", "az://acc/$web/run", "acc/$web", "run", None),
        ("abfss://box@acc.dfs.core.windows.net/a/b@7", "az://acc/box/a/b", "acc/box", "a/b", 7),
        ("abfs://box@acc.blob.core.windows.net", "az://acc/box", "acc/box", "", None),
    ],
)
def test_azure(text: str, uri: str, bucket: str, prefix: str, step: int | None) -> None:
    """An address of Azure names account and container, in its short or in Hadoop's form."""
    address = parse_vault(text)
    assert (address.uri, address.scheme, address.path) == (uri, "az", "")
    assert (address.bucket, address.prefix, address.step) == (bucket, prefix, step)
    assert parse_vault(address.uri).uri == uri


def test_google_and_hugging_face() -> None:
    """Their buckets are named as their own tools name them."""
    google = parse_vault("gs://bucket/a/b@7")
    assert (google.uri, google.bucket, google.prefix, google.step) == ("gs://bucket/a/b", "bucket", "a/b", 7)
    hub = parse_vault("hf://buckets/me/data/a/b@7")
    assert (hub.uri, hub.scheme, hub.step) == ("hf://buckets/me/data/a/b", "hf", 7)
    assert (hub.bucket, hub.prefix) == ("buckets/me/data", "a/b")
    assert parse_vault("hf://buckets/me/data").prefix == ""
    repository = parse_vault("hf://me/model/a/b@best")
    assert (repository.uri, repository.bucket, repository.prefix) == ("hf://me/model/a/b", "me/model", "a/b")
    assert repository.best
    assert parse_vault("hf://me/model").prefix == ""


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths become absolute, ~ is expanded, file:/// is decoded; the canonical URI leads back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    here = os.getcwd()
    for text, path, step in [
        ("/data/run", "/data/run", None),
        ("/data/run/", "/data/run", None),
        ("/data//x/../run", "/data/run", None),
        ("run", f"{here}/run", None),
        ("./a:b", f"{here}/a:b", None),
        ("~/run", "/home/me/run", None),
        ("~/run@7", "/home/me/run", 7),
        ("run@7", f"{here}/run", 7),
        ("file:///data/run", "/data/run", None),
        ("file:///data/a%20b%25c", "/data/a b%c", None),
        ("file:///data/a b", "/data/a b", None),
        ("file:///data/run@7", "/data/run", 7),
        ("/data/100%", "/data/100%", None),
        ("/data/a%20b", "/data/a%20b", None),
    ]:
        address = parse_vault(text)
        assert (address.scheme, address.path, address.step) == ("file", path, step), text
        assert parse_vault(address.uri).path == path
        assert parse_vault(address.uri).step is None


def test_a_folder_with_a_step_in_its_name(tmp_path: Path) -> None:
    """A folder that exists as run@12 is meant as it is; elsewhere the digits are a step, and a Path never has one."""
    odd = tmp_path / "run@12"
    assert parse_vault(str(odd)).step == 12
    assert parse_vault(odd).path == str(odd)
    odd.mkdir()
    for text in (str(odd), f"file://{odd}", odd):
        address = parse_vault(text)
        assert (address.path, address.step) == (str(odd), None)
        assert parse_vault(address.uri) == address
    assert (parse_vault(f"{odd}@7").path, parse_vault(f"{odd}@7").step) == (str(odd), 7)
    assert parse_vault(str(parse_vault(f"{odd}@7"))).step == 7


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("s3:/bucket/x", "did you mean s3://bucket/x?"),
        ("s3//bucket/x", "did you mean s3://bucket/x?"),
        ("s3:bucket/x", "did you mean s3://bucket/x?"),
        ("S3://bucket/x", "did you mean s3://bucket/x?"),
        ("s3a://bucket/x", "did you mean s3://bucket/x?"),
        ("ss3://bucket/x", "did you mean s3://bucket/x?"),
        ("s3:///bucket/x", "did you mean s3://bucket/x?"),
        ("s3://bucket//x", "did you mean s3://bucket/x?"),
        ("s3://bucket/a/../x", "did you mean s3://bucket/a/x?"),
        ("s3://bucket/a\\x", "did you mean s3://bucket/a/x?"),
        ("arn:aws:s3:::bucket/x", "did you mean s3://bucket/x?"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/x/y", "did you mean s3://bucket/x/y?"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/x", "did you mean s3://bucket/x?"),
        ("file:/data/x", "did you mean file:///data/x?"),
        ("file://data/x", "did you mean file:///data/x?"),
        ("FILE:///data/x", "did you mean file:///data/x?"),
        ("s3://", "write s3://bucket/prefix"),
        ("s3://no bucket/x", "write s3://bucket/prefix"),
        ("s3://bucket/run@5@7", "write s3://bucket/prefix@step"),
        ("s3://bucket/run@5@best", "write s3://bucket/prefix@step"),
        ("s3://bucket/x?region=eu", "AWS_REGION"),
        ("http://server:9000/bucket", "AWS_ENDPOINT_URL"),
        ("s3://server:9000/bucket", "AWS_ENDPOINT_URL"),
        ("hdfs://server/x", "use s3://bucket/prefix, "),
        ("gs:///bucket/x", "did you mean gs://bucket/x?"),
        ("gcs://bucket/x", "did you mean gs://bucket/x?"),
        ("gs://bucket/x?y=1", "Google's own tools"),
        ("https://storage.googleapis.com/bucket/x", "did you mean gs://bucket/x?"),
        ("hf://me", "names no repository; write hf://namespace/repository/prefix"),
        (
            "hf://datasets/me/x",
            "'datasets' is no name of a namespace; write hf://namespace/repository/prefix",
        ),
        ("https://huggingface.co/me/x/tree/main/run", "did you mean hf://me/x/run?"),
        ("hf://buckets/me", "names no bucket; write hf://buckets/namespace/name/prefix"),
        ("https://huggingface.co/buckets/me/b/x", "did you mean hf://buckets/me/b/x?"),
        ("az://account", "names no container; write az://account/container/prefix"),
        ("az://", "names no account; write az://account/container/prefix"),
        ("az:///account/container/x", "did you mean az://account/container/x?"),
        ("az://account/container//x", "did you mean az://account/container/x?"),
        ("az://account/no container/x", "no name of a container"),
        ("az://account/container/x?sv=1", "AZURE_STORAGE_SAS_TOKEN"),
        ("azure://account/container/x", "did you mean az://account/container/x?"),
        ("abfss://container/x", "container@account.dfs.core.windows.net/prefix"),
        ("https://me.blob.core.windows.net/container/x", "did you mean az://me/container/x?"),
        ("run:1", "./"),
        ("host:/path", "./"),
        ("'s3://bucket/x'", "did you mean s3://bucket/x?"),
        ("'run'", "did you mean run?"),
        ("\ufeffs3://bucket/x", "did you mean s3://bucket/x?"),
        ("s3 ://bucket/x", "did you mean s3://bucket/x?"),
        ("s3.//bucket/x", "did you mean s3://bucket/x?"),
        ("3s://bucket/x", "did you mean s3://bucket/x?"),
        ("s3:\\\\bucket\\x", "did you mean s3://bucket/x?"),
        ("r2://bucket/x", "did you mean s3://bucket/x, with the server in AWS_ENDPOINT_URL?"),
        (
            "https://minio:9000/bucket/x",
            "did you mean s3://bucket/x, with AWS_ENDPOINT_URL=https://minio:9000?",
        ),
        ("s3://bucket.s3.amazonaws.com/x", "did you mean s3://bucket/x?"),
        ("s3://s3.amazonaws.com/bucket/x", "did you mean s3://bucket/x?"),
        ("az://me.blob.core.windows.net/container/x", "did you mean az://me/container/x?"),
        ("s3://arn:aws:s3:eu-west-1:123:accesspoint/me/x", "s3://ALIAS-s3alias/prefix"),
        ("hf://me/model@main/x", "names no revision"),
        ("s3://bucket/x /y", "did you mean s3://bucket/x/y?"),
        ("s3://bucket/x\u200b", "a character in it that can't be seen"),
        ("s3://bucket/x\ud800", "a character in it that can't be seen"),
        ("s3://bucket/" + "ü" * 400, "has 800 bytes, more than the 768"),
        ("s3://bucket/${RUN}", "holds ${RUN}, which nothing has replaced"),
        ("s3://bucket/{run}/x", "holds {run}, which nothing has replaced"),
        ("$VAULT", "holds $VAULT, which nothing has replaced"),
        ("s3://bucket/$(RUN)", "holds $(RUN), which nothing has replaced"),
        ("file:///data/$RUN", "holds $RUN, which nothing has replaced"),
        ("/data/<run>", "holds <run>, which nothing has replaced"),
        ("None", "holds no address"),
        ("true", "holds no address"),
        ("~nobody-of-this-name/x", "no user of this name"),
        ("runs\\x", "did you mean runs/x?"),
        ("\\\\server\\share", "is a path of Windows"),
        ("", "use s3://bucket/prefix, "),
        ("  ", "use s3://bucket/prefix, "),
        ("s3://bucket/a\nb", "line break"),
        ("/", "/data/my-run"),
        ("file:///", "/data/my-run"),
    ],
)
def test_mistakes(text: str, fix: str) -> None:
    """A typo is refused with one way to write it right."""
    with pytest.raises(VaultUriError) as caught:
        parse_vault(text)
    assert fix in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["None", "$RUN", "'run'", "a\\b", "{run}"])
def test_a_folder_of_an_odd_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What would be a slip is a folder where one is called so, or where it is given as a Path."""
    monkeypatch.chdir(tmp_path)
    for address in (parse_vault(Path(name)), parse_vault(parse_vault(Path(name)).uri)):
        assert address.path == str(tmp_path / name)
    with pytest.raises(VaultUriError):
        parse_vault(name)
    (tmp_path / name).mkdir()
    assert parse_vault(name).path == parse_vault(f"file://{tmp_path}/{name}").path == str(tmp_path / name)


def test_the_fix_can_be_used() -> None:
    """What a message proposes is itself a vault address."""
    for text in (
        "s3:/b/x",
        "S3://b/x",
        "s3://b//x",
        "file:/d/x",
        "https://b.s3.amazonaws.com/x",
        "s3:\\\\b\\x",
        "'run'",
    ):
        with pytest.raises(VaultUriError) as caught:
            parse_vault(text)
        proposed = str(caught.value).rpartition("did you mean ")[2].rstrip("?")
        assert parse_vault(proposed).uri in (proposed, f"file://{os.path.abspath(proposed)}")


@pytest.mark.parametrize(
    "form",
    [
        "s3://{}@bucket/x",
        "s3:/{}@b/x",
        "S3://{}@b",
        "https://{}@b.s3.amazonaws.com/x",
        "'s3://{}@b'",
        "r2://{}@b/$x",
    ],
)
def test_no_secret_is_repeated(form: str) -> None:
    """Keys that somebody wrote into the address don't appear in the message."""
    with pytest.raises(VaultUriError) as caught:
        parse_vault(form.format("AKIAKEY:seCret/Key"))
    assert "AKIAKEY" not in str(caught.value)
    assert "eCret" not in str(caught.value)


@pytest.mark.parametrize("value", [None, True, 3, b"s3://b/x"])
def test_other_types(value: object) -> None:
    """What is neither text nor a path is refused by name."""
    with pytest.raises(VaultUriError, match=type(value).__name__):
        parse_vault(value)  # type: ignore[arg-type]


@given(st.text(alphabet=string.printable + "ü@:/%", max_size=40))
def test_any_text(text: str) -> None:
    """Whatever the text, it gives an address that leads back to itself, or VaultUriError, and nothing else."""
    try:
        address = parse_vault(text)
    except VaultUriError:
        return
    again = parse_vault(address.uri)
    assert (again.uri, again.path, again.bucket, again.prefix) == (
        address.uri,
        address.path,
        address.bucket,
        address.prefix,
    )
    assert again.step is None


@pytest.mark.parametrize("base", ["s3://bucket/run", "file:///data/run", "/data/run", "run"])
@pytest.mark.parametrize("end", ["@lates", "@bets", "@newest", "@abc", "@ 40", "@-1", "@"])
def test_no_step(base: str, end: str) -> None:
    """What is meant as a step and is none is refused with the fix, and isn't the name of a new vault."""
    with pytest.raises(VaultUriError, match=r"did you mean @(latest|best|40)\?|write ADDRESS@500"):
        parse_vault(base + end)


@pytest.mark.parametrize("base", ["s3://bucket/run", "file:///data/run", "/data/run", "run"])
def test_names_of_checkpoints(base: str) -> None:
    """@latest is the address alone, and @best is the best checkpoint of it."""
    plain = parse_vault(base)
    assert parse_vault(f"{base}@latest") == parse_vault(f"{base}@latest/") == plain
    best = parse_vault(f"{base}@best")
    assert (best.uri, best.step, best.best, str(best)) == (plain.uri, None, True, f"{plain.uri}@best")
    assert parse_vault(str(best)) == best


def test_a_near_name_is_proposed() -> None:
    """A slip is answered with the name that was meant."""
    for end, meant in (
        ("@lastest", "@latest"),
        ("@newest", "@latest"),
        ("@newst", "@latest"),
        ("@Best", "@best"),
    ):
        with pytest.raises(VaultUriError, match=f"did you mean {meant}"):
            parse_vault(f"s3://bucket/run{end}")


def test_folder_named_as_no_step(tmp_path: Path) -> None:
    """A folder that exists as run@latest is that folder, and its address means it wherever it is parsed."""
    odd = tmp_path / "run@latest"
    assert parse_vault(parse_vault(odd).uri).path == str(odd)
    odd.mkdir()
    assert (parse_vault(str(odd)).path, parse_vault(str(odd)).step) == (str(odd), None)
