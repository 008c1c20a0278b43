"""Vaults in Hugging Face Buckets, through their S3 gateway.

The gateway takes S3 keys (HFAK…), which a person makes from an access token; the token itself is of no use there.
They are looked for where AWS keeps keys, and taken only where they are Hugging Face's: an AWS account's keys are never
sent there.

1. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile of AWS_PROFILE
2. the profile ``hf`` of the shared AWS files, as Hugging Face's documentation sets it up (it needs the extra ``s3``)

A server other than s3.hf.co is taken from where the keys are from: AWS_ENDPOINT_URL, or the profile's ``endpoint_url``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from vaultlayer_hf.errors import MissingExtraError, StoreDeniedError
from vaultlayer_hf.stores.objects.s3 import ENDPOINT, S3, S3Access, find_access, open_with
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.stores.variables import server_address

_GATEWAY = "https://s3.hf.co"
_MADE = "HFAK"  # what the keys begin with
_CHECK_KEYS = (
    "make S3 keys of an access token: on huggingface.co/settings/tokens open the token's menu, choose Generate S3"
    " credentials, and set them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in the AWS profile hf"
)
_CHECK_PERMISSIONS = "the keys may do what their token may: it needs write access to the bucket's namespace"
_CHECK_BUCKET = "create it (hf buckets create), or check namespace and name"

HUGGING_FACE = replace(
    S3,
    name="Hugging Face Buckets",
    check_keys=_CHECK_KEYS,
    check_permissions=_CHECK_PERMISSIONS,
    check_bucket=_CHECK_BUCKET,
    check_endpoint="check the proxy; a network's login page looks like this",
    check_address="",
    rights={},
    denied={
        **S3.denied,
        "NoSuchBucket": ("the bucket doesn't exist", _CHECK_BUCKET),
        "InvalidAccessKeyId": ("the gateway doesn't know this access key", _CHECK_KEYS),
        "SignatureDoesNotMatch": ("the secret key is wrong", _CHECK_KEYS),
        "AccessDenied": ("access denied", _CHECK_PERMISSIONS),
    },
)


def open_hugging_face(address: VaultAddress, *, upload_concurrency: int = 8) -> ObjectStore:
    """Open a vault in a bucket of Hugging Face. Looks for keys, but sends nothing to the bucket yet.

    Raises:
        StoreDeniedError: no keys of Hugging Face were found.
        SettingsError: the server's address or the file of authorities can't be used.
    """
    _, namespace, bucket = address.bucket.split("/")
    access = _find_keys()
    place = urlsplit(server_address(access.endpoint or _GATEWAY, ENDPOINT))
    access = replace(
        access, region="us-east-1", endpoint=f"{place.scheme}://{place.netloc}/{namespace}", addressing="path"
    )
    return open_with(access, address, bucket, HUGGING_FACE, upload_concurrency=upload_concurrency)


def _find_keys() -> S3Access:
    for profile in (None, "hf"):
        try:
            access = find_access(profile)
        except (StoreDeniedError, MissingExtraError):
            # Other stores' keys, or none: not what is asked for here.
            continue
        if access.credentials is not None:
            key = access.credentials()["access_key_id"]
        else:
            key = os.environ.get("AWS_ACCESS_KEY_ID", "") if profile is None else ""
        if key.startswith(_MADE):
            return access if access.source else replace(access, source="AWS_ACCESS_KEY_ID")
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or _token_file().exists()
    there = "there is an access token, and the S3 gateway of Hugging Face Buckets takes none" if token else ""
    raise StoreDeniedError("open", "", there or "no S3 keys of Hugging Face were found", _CHECK_KEYS)


def _token_file() -> Path:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
