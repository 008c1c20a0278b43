"""Vaults on S3 and on servers that speak its protocol: credentials, endpoint and region as boto3 finds them.

With botocore installed (the extra ``s3``) it looks in all the places that the AWS command line knows:
AWS_* variables, profiles in the shared config and credentials files, SSO, credential processes, web identity,
container and instance roles; and the endpoint in AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile.

Without it the client's own, shorter list holds: AWS_* variables, web identity, container and instance roles.
A profile that is evidently wanted is then an error that names the extra, never skipped in silence.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import MissingExtraError, SettingsError, StoreDeniedError
from vaultlayer_hf.stores.objects.opening import open_objects
from vaultlayer_hf.stores.objects.provider import Provider, rights
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.stores.variables import authorities, check_sendable, server_address

ENDPOINT = "AWS_ENDPOINT_URL, or the profile's endpoint_url,"
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_CHECK_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_CHECK_PERMISSIONS = (
    "these credentials need s3:ListBucket on the bucket and Get, Put and DeleteObject on the prefix"
)
_CHECK_BUCKET = "create it, or check its name, AWS_REGION and AWS_ENDPOINT_URL"
_RENEW = "the temporary credentials have expired: renew them (aws sso login, or new AWS_* variables)"
_CHECK_CLOCK = "the clock of this machine is wrong: set it"
_ELSEWHERE = "the bucket is in another region", "set AWS_REGION to the bucket's region"
_EXPIRED = "the credentials have expired", _RENEW

S3 = Provider(
    name="S3",
    bucket="bucket",
    check_keys=_CHECK_KEYS,
    check_permissions=_CHECK_PERMISSIONS,
    check_bucket=_CHECK_BUCKET,
    check_endpoint="check AWS_ENDPOINT_URL and the proxy; a network's login page looks like this",
    check_tls="name the authority of the server's certificate in AWS_CA_BUNDLE",
    check_address="check AWS_REGION and AWS_ENDPOINT_URL",
    denied={
        "NoSuchBucket": ("the bucket doesn't exist", _CHECK_BUCKET),
        "InvalidBucketName": ("the bucket can't exist under this name", _CHECK_BUCKET),
        "InvalidAccessKeyId": ("the server doesn't know this access key", _CHECK_KEYS),
        "SignatureDoesNotMatch": ("the secret key is wrong", _CHECK_KEYS),
        "ExpiredToken": _EXPIRED,
        "ExpiredTokenException": _EXPIRED,
        "TokenRefreshRequired": _EXPIRED,
        "InvalidToken": ("the session token is wrong", _RENEW),
        "RequestTimeTooSkewed": ("the request's time is off", _CHECK_CLOCK),
        "RequestExpired": ("the request's time is off", _CHECK_CLOCK),
        "PermanentRedirect": _ELSEWHERE,
        "TemporaryRedirect": _ELSEWHERE,
        "AuthorizationHeaderMalformed": _ELSEWHERE,
        "IllegalLocationConstraintException": _ELSEWHERE,
        "AccessDenied": ("access denied", _CHECK_PERMISSIONS),
        "AllAccessDisabled": ("access denied", "the provider has disabled this bucket"),
        "AccountProblem": ("access denied", "the account has a problem: ask the provider"),
    },
    full=frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}),
    # NoSuchUpload: the completion of an upload was repeated after a lost answer, or the server forgot it.
    unavailable=frozenset({"RequestTimeout", "SlowDown", "NoSuchUpload", "IncompleteBody", "InternalError"}),
    undecided=frozenset({"ConditionalRequestConflict", "OperationAborted"}),
    rights=rights(get="s3:GetObject", put="s3:PutObject", list="s3:ListBucket", delete="s3:DeleteObject"),
)
_REREAD = 60.0  # seconds after which credentials are looked up again, so that a corrected file is noticed


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach a bucket, as found on this machine.

    Attributes:
        region: such as ``us-east-1``, or None where nothing names one.
        endpoint: the server's URL, or None for AWS itself.
        addressing: ``"virtual"``, ``"path"`` or None, as in the profile's ``s3`` section.
        ca_bundle: path of a PEM file with authorities to trust, or None.
        credentials: a callable for obstore, or None where obstore looks for itself or nothing is signed.
        source: where botocore has found them, in its words; empty where obstore looks for itself.
    """

    region: str | None = None
    endpoint: str | None = None
    addressing: str | None = None
    ca_bundle: str | None = None
    credentials: Callable[[], dict[str, Any]] | None = field(default=None, repr=False)
    source: str = ""


def open_s3(address: VaultAddress, *, upload_concurrency: int = 8) -> ObjectStore:
    """Open a vault on S3. Looks for credentials, but sends nothing to the bucket yet.

    Raises:
        StoreDeniedError: no credentials were found, or the profile doesn't exist.
        MissingExtraError: a profile is wanted, and botocore isn't installed.
        SettingsError: the endpoint or the file of authorities can't be used.
    """
    access = find_access()
    _check_bucket_apart(access.endpoint or "", address.bucket)
    return open_with(access, address, address.bucket, S3, upload_concurrency=upload_concurrency)


def _check_bucket_apart(endpoint: str, bucket: str) -> None:
    """Raise SettingsError where an endpoint ends in the bucket's name, as a provider's page may show it.

    Requests name the bucket once more: they would ask for an object of that name, and find nothing.
    """
    if endpoint.strip().rstrip("/").endswith(f"/{bucket}") and "://" in endpoint.rpartition("/")[0]:
        raise SettingsError(
            f"{ENDPOINT} ends in the bucket's name, {bucket}, which the vault's address holds already: write the"
            " server's address alone"
        )


def open_with(
    access: S3Access, address: VaultAddress, bucket: str, provider: Provider, *, upload_concurrency: int
) -> ObjectStore:
    """Open a vault in a bucket of any server that speaks S3. Raises SettingsError."""
    import obstore.store

    make: Any = obstore.store.S3Store  # its annotations exist for type checkers only
    config: dict[str, Any] = {"unsigned_payload": True}
    if region := (access.region or "").strip():
        if not _REGION.fullmatch(region):
            raise SettingsError(
                "AWS_REGION, or the profile's region, is no region's name: write it as us-east-1"
            )
        config["region"] = region
    endpoint = server_address(access.endpoint, ENDPOINT) if access.endpoint else None
    virtual = access.addressing == "virtual" or (not endpoint and access.addressing != "path")
    if virtual and "." not in bucket:  # a certificate covers no bucket with dots
        config["virtual_hosted_style_request"] = True
        if endpoint:
            scheme, _, host = endpoint.partition("://")
            endpoint = f"{scheme}://{bucket}.{host}"
    if endpoint:
        config["endpoint"] = endpoint
    metadata = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if metadata and access.credentials is None:
        metadata = server_address(metadata, "AWS_EC2_METADATA_SERVICE_ENDPOINT")
        config["metadata_endpoint"] = metadata
    options: dict[str, Any] = {
        "allow_http": bool(endpoint and endpoint.startswith("http://"))
        or bool(metadata and metadata.startswith("http://")),
    }
    if access.ca_bundle:
        options["root_certificate"] = authorities(access.ca_bundle, "AWS_CA_BUNDLE")
    client = partial(make, bucket, config=config, credential_provider=access.credentials)
    store = open_objects(client, address, provider, upload_concurrency=upload_concurrency, options=options)
    store.credentials = access.source
    return store


def find_access(profile: str | None = None) -> S3Access:
    """Find endpoint, region and credentials on this machine; see the module's docstring for where.

    Args:
        profile: look in this profile of the shared files; None: where AWS's own tools look.
    """
    try:
        import botocore.session  # noqa: F401  the extra is there
    except ImportError:
        return _without_botocore(profile)
    return _with_botocore(profile)


def _with_botocore(named: str | None) -> S3Access:
    import botocore.configprovider
    import botocore.exceptions

    try:
        session = _session(named)
        profile = session.get_scoped_config()
        endpoint = None
        if not session.get_config_variable("ignore_configured_endpoint_urls"):
            endpoint = botocore.configprovider.ConfiguredEndpointProvider(
                full_config=session.full_config, scoped_config=profile, client_name="s3"
            ).provide()
        options = profile.get("s3")
        keys = None if _unsigned() else _Credentials(session, named)
        return S3Access(
            region=os.environ.get("AWS_REGION") or session.get_config_variable("region"),
            endpoint=endpoint or None,
            addressing=options.get("addressing_style") if isinstance(options, dict) else None,
            ca_bundle=session.get_config_variable("ca_bundle"),
            credentials=keys,
            source=keys.source if keys is not None else "nobody: nothing is signed",
        )
    except botocore.exceptions.ProfileNotFound:
        name = named or os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
        hint = "correct AWS_PROFILE, or add the profile to ~/.aws/config"
        raise StoreDeniedError("open", "", f"there is no AWS profile {name!r}", hint) from None
    except botocore.exceptions.BotoCoreError as error:
        reason = f"the AWS configuration can't be used ({type(error).__name__})"
        raise StoreDeniedError("open", "", reason, _CHECK_KEYS) from None


def _without_botocore(profile: str | None) -> S3Access:
    env = os.environ.get
    extra = "pip install 'vaultlayer-hf[s3]'"
    if profile:
        raise MissingExtraError(
            f"the AWS profile {profile} is wanted, and profiles are read by botocore: {extra}"
        )
    if env("AWS_PROFILE") or env("AWS_DEFAULT_PROFILE"):
        raise MissingExtraError(f"AWS_PROFILE is set, and profiles are read by botocore: {extra}")
    roles = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    if not env("AWS_ACCESS_KEY_ID") and not any(map(env, roles)) and not _unsigned():
        for variable, default in (
            ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
            ("AWS_CONFIG_FILE", "~/.aws/config"),
        ):
            path = Path(env(variable) or default).expanduser()
            if path.exists():
                raise MissingExtraError(f"credentials may be in {path}, which botocore reads: {extra}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        check_sendable(env(name), name)
    return S3Access(
        region=env("AWS_REGION") or env("AWS_DEFAULT_REGION"),
        endpoint=env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL"),
        ca_bundle=env("AWS_CA_BUNDLE"),
    )


def _unsigned() -> bool:
    """Whether a public bucket is to be read without credentials; a variable that the client knows."""
    return os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on")


def _session(profile: str | None) -> Any:
    import botocore.session

    return botocore.session.Session(profile=profile)


_SOURCES = {"env": "AWS_ACCESS_KEY_ID", "shared-credentials-file": "the shared credentials file"}


class _Credentials:
    """Hands botocore's credentials to obstore, which asks again once a minute.

    Expiring ones are refreshed by botocore. Those that were read from a file are read again, so that a
    training that runs on gets to see the corrected file.
    """

    def __init__(self, session: Any, profile: str | None) -> None:
        self._profile = profile
        self._lock = threading.Lock()
        self._found = session.get_credentials()
        self._since = time.monotonic()
        if self._found is None:
            raise StoreDeniedError("open", "", "no AWS credentials were found", _CHECK_KEYS)
        self.source = _SOURCES.get(self._found.method, self._found.method)
        self._checked()

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            from_file = self._found.method in ("shared-credentials-file", "config-file", "env")
            if from_file and time.monotonic() - self._since > _REREAD / 2:
                self._found = _session(self._profile).get_credentials() or self._found
                self._since = time.monotonic()
            frozen = self._checked()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_REREAD),
        }

    def _checked(self) -> Any:
        """Return the keys as they are now. Raises StoreDeniedError where they can't be sent."""
        frozen = self._found.get_frozen_credentials()
        for value, name in (
            (frozen.access_key, "the access key"),
            (frozen.secret_key, "the secret key"),
            (frozen.token, "the session token"),
        ):
            check_sendable(value, f"{name} of {self.source}")
        return frozen
