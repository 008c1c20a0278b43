"""Kinds of vault addresses that name an object store: how each is written.

``az://account/container/prefix`` and ``s3://bucket/prefix`` differ in how many parts name the place, and in what is
said where one is wrong; the rest is the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """How the addresses of one scheme are written.

    Attributes:
        scheme: what stands before ``://``.
        form: how such an address is written, for messages.
        place: what its first parts are called, in order; the last one holds the objects.
        part: what each of them has to match.
        credentials: where keys and servers are named, since the address holds none of them.
        options: where what others write behind a ``?`` is set.
        first: what the first part has to be; empty where it is free.
    """

    scheme: str
    form: str
    place: tuple[str, ...]
    part: re.Pattern[str]
    credentials: str
    options: str
    first: str = ""


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")

BUCKETS = "buckets"
"""What an address of a bucket of Hugging Face begins with; any other is a repository's."""

KINDS = {
    kind.scheme: kind
    for kind in (
        Kind(
            "s3",
            "s3://bucket/prefix",
            ("bucket",),
            _BUCKET,
            "keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, a server in AWS_ENDPOINT_URL",
            "region and endpoint with AWS_REGION and AWS_ENDPOINT_URL",
        ),
        Kind(
            "gs",
            "gs://bucket/prefix",
            ("bucket",),
            _BUCKET,
            "credentials in GOOGLE_APPLICATION_CREDENTIALS or by gcloud auth application-default login",
            "other things where Google's own tools have them",
        ),
        Kind(
            "az",
            "az://account/container/prefix",
            ("account", "container"),
            re.compile(r"[A-Za-z0-9$][A-Za-z0-9\-]*"),
            "a key in AZURE_STORAGE_KEY, a SAS in AZURE_STORAGE_SAS_TOKEN or a connection string in"
            " AZURE_STORAGE_CONNECTION_STRING",
            "a SAS with AZURE_STORAGE_SAS_TOKEN",
        ),
        Kind(
            "hf",
            "hf://buckets/namespace/name/prefix",
            (BUCKETS, "namespace", "bucket"),
            _BUCKET,
            "S3 keys (HFAK…) in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the AWS profile hf",
            "the rest in the AWS profile hf",
            first=BUCKETS,
        ),
    )
}
"""By their schemes."""

REPOSITORY = Kind(
    "hf",
    "hf://namespace/repository/prefix",
    ("namespace", "repository"),
    # Kinds of the Hub, no names.
    re.compile(r"(?!(?:models|datasets|spaces|kernels)$)[A-Za-z0-9][A-Za-z0-9._\-]*"),
    "a token in HF_TOKEN or by hf auth login",
    "another server with HF_ENDPOINT",
)
"""A model repository of the Hugging Face Hub."""


def kind_of(scheme: str, rest: str) -> Kind:
    """Return how an address is written that has one of the ``KINDS``'s schemes, and ``rest`` behind its slashes."""
    in_bucket = not rest.strip("/") or rest.lstrip("/").partition("/")[0] == BUCKETS
    return KINDS[scheme] if scheme != REPOSITORY.scheme or in_bucket else REPOSITORY


_ABFSS = re.compile(r"([^/@]+)@([a-z0-9]+)\.(?:dfs|blob)\.core\.windows\.net(/.*)?", re.DOTALL)
_AZURE_PAGE = re.compile(r"([a-z0-9]+)\.(?:dfs|blob)\.core\.windows\.net/+([^/].*)")
_S3_PATH_PAGE = re.compile(r"s3[.\-][a-z0-9.\-]*amazonaws\.com/([^/]+)/?(.*)")
_S3_HOST_PAGE = re.compile(r"([a-z0-9.\-]+?)\.s3[.\-][a-z0-9.\-]*amazonaws\.com/?(.*)")


def of_hadoop(rest: str) -> str | None:
    """Return what stands behind ``az://`` for what stands behind ``abfss://``; None where it can't be said.

    ::

        assert of_hadoop("data@acc.dfs.core.windows.net/run") == "acc/data/run"
    """
    match = _ABFSS.fullmatch(rest)
    return f"{match[2]}/{match[1]}{match[3] or ''}" if match else None


_GOOGLE_PAGE = re.compile(r"storage\.(?:googleapis|cloud\.google)\.com/([^/]+)/?(.*)")
_BUCKET_PAGE = re.compile(r"(?:huggingface\.co|hf\.co)/buckets/([^/]+)/([^/]+)/?(.*)")
_HUB_PAGE = re.compile(
    r"(?:huggingface\.co|hf\.co)/(?!buckets/|datasets/|spaces/|settings/|docs/)([^/]+)/([^/]+)(?:/(?:tree|blob)/main)?/?(.*)"
)

_PAGES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_S3_HOST_PAGE, lambda match: f"s3://{match[1]}/{match[2]}"),
    (_S3_PATH_PAGE, lambda match: f"s3://{match[1]}/{match[2]}"),
    (_AZURE_PAGE, lambda match: f"az://{match[1]}/{match[2]}"),
    (_GOOGLE_PAGE, lambda match: f"gs://{match[1]}/{match[2]}"),
    (_BUCKET_PAGE, lambda match: f"hf://{BUCKETS}/{match[1]}/{match[2]}/{match[3]}"),
    (_HUB_PAGE, lambda match: f"hf://{match[1]}/{match[2]}/{match[3]}"),
)


def of_web_page(rest: str) -> str | None:
    """Return the vault address for what stands behind ``https://``, where it is a known provider's."""
    for pattern, address in _PAGES:
        match = pattern.fullmatch(rest)
        if match is not None:
            return address(match).rstrip("/")
    return None


MEANT = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "azure": "az", "adl": "az", "wasb": "az", "wasbs": "az"}
"""Schemes of other programs, and the one that is meant."""
COMPATIBLE = {"r2", "b2", "minio", "wasabi", "spaces", "ceph", "swift", "oss", "cos"}
"""Names of servers that speak S3's protocol, which some programs have as schemes."""
