"""Vaults in Google Cloud Storage: Application Default Credentials, as Google's own tools find them.

They are looked for in this order, and the first that is there counts:

1. a token in CLOUDSDK_AUTH_ACCESS_TOKEN, which nobody renews
2. the file that GOOGLE_APPLICATION_CREDENTIALS names
3. the file of ``gcloud auth application-default login``
4. the service account of the machine, from the metadata server: Compute Engine, GKE with Workload Identity, Cloud Run

obstore reads the files of service accounts and of people, and renews tokens. Files of workload identity federation and
of impersonated service accounts are read by google-auth (the extra ``gcs``).

STORAGE_EMULATOR_HOST names another server, which is asked without credentials, GOOGLE_BASE_URL one that is shown them.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import MissingExtraError, StoreDeniedError
from vaultlayer_hf.stores.objects.opening import open_objects
from vaultlayer_hf.stores.objects.provider import Provider, rights
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.stores.variables import authorities, check_sendable, server_address

_CHECK_KEYS = (
    "call gcloud auth application-default login, set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service"
    " account"
)
_CHECK_PERMISSIONS = (
    "these credentials need the role Storage Object User (roles/storage.objectUser) on the bucket"
)
_CHECK_BUCKET = "create it (gcloud storage buckets create), or check its name"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"

GOOGLE = Provider(
    name="Google Cloud Storage",
    bucket="bucket",
    check_keys=_CHECK_KEYS,
    check_permissions=_CHECK_PERMISSIONS,
    check_bucket=_CHECK_BUCKET,
    check_endpoint="check STORAGE_EMULATOR_HOST and the proxy; a network's login page looks like this",
    check_tls="name the authority of the server's certificate in SSL_CERT_FILE",
    denied={
        "NoSuchBucket": ("the bucket doesn't exist", _CHECK_BUCKET),
        "InvalidBucketName": ("the bucket can't exist under this name", _CHECK_BUCKET),
        "AccessDenied": ("access denied", _CHECK_PERMISSIONS),
        "AuthenticationRequired": ("the token isn't accepted", _CHECK_KEYS),
        "ExpiredToken": ("the token has expired", _CHECK_KEYS),
        "InvalidSecurity": ("the token isn't accepted", _CHECK_KEYS),
        "AccountProblem": ("access denied", "the project's billing account has a problem"),
        "UserProjectMissing": ("the bucket lets the reader pay", "use a bucket that doesn't"),
        "UserProjectAccountProblem": ("access denied", "the project's billing account has a problem"),
        "RetentionPolicyNotMet": (
            "the bucket keeps objects unchanged by a retention policy",
            "use a bucket without one: a vault deletes old checkpoints",
        ),
    },
    full=frozenset({"QuotaExceeded"}),
    unavailable=frozenset(
        {"SlowDown", "InternalError", "NoSuchUpload", "ServiceUnavailable", "RequestTimeout"}
    ),
    undecided=frozenset({"OperationAborted", "ConditionalRequestConflict"}),
    rights=rights(
        get="storage.objects.get",
        put="storage.objects.create and storage.objects.delete",  # to replace one is to delete it
        list="storage.objects.list",
        delete="storage.objects.delete",
    ),
)


@dataclass(frozen=True, slots=True)
class GoogleAccess:
    """How to reach Google Cloud Storage, as found on this machine.

    Attributes:
        source: where the credentials are from, for messages.
        config: what obstore is told.
        credentials: a callable for obstore, or None where obstore looks itself.
    """

    source: str
    config: dict[str, Any] = field(repr=False)
    credentials: Callable[[], dict[str, Any]] | None = field(default=None, repr=False)


def open_google(address: VaultAddress, *, upload_concurrency: int = 8) -> ObjectStore:
    """Open a vault in Google Cloud Storage. Looks for credentials, but sends nothing to the bucket yet.

    Raises:
        StoreDeniedError: the file of credentials can't be used.
        MissingExtraError: its kind is read by google-auth, which isn't installed.
        SettingsError: the server's address or the file of authorities can't be used.
    """
    import obstore.store
    from obstore import exceptions

    make: Any = obstore.store.GCSStore  # its annotations exist for type checkers only
    access = find_access()
    options: dict[str, Any] = {"allow_http": access.config.get("base_url", "").startswith("http://")}
    if bundle := os.environ.get("SSL_CERT_FILE"):
        options["root_certificate"] = authorities(bundle, "SSL_CERT_FILE")
    client = partial(make, address.bucket, config=access.config, credential_provider=access.credentials)
    try:
        store = open_objects(client, address, GOOGLE, upload_concurrency=upload_concurrency, options=options)
    except exceptions.BaseError:
        raise StoreDeniedError(
            "open", "", f"the credentials of {access.source} can't be read", _CHECK_KEYS
        ) from None
    store.credentials = access.source
    return store


def find_access() -> GoogleAccess:
    """Find credentials on this machine; see the module's docstring for where. Raises as ``open_google`` does."""
    env = os.environ
    if emulator := env.get("STORAGE_EMULATOR_HOST"):
        server = emulator if "://" in emulator else f"http://{emulator.strip()}"
        server = server_address(server, "STORAGE_EMULATOR_HOST")
        return GoogleAccess(
            "nobody: STORAGE_EMULATOR_HOST is set", {"base_url": server, "skip_signature": True}
        )
    config: dict[str, Any] = {}
    if base := env.get("GOOGLE_BASE_URL"):
        config["base_url"] = server_address(base, "GOOGLE_BASE_URL")
    if token := env.get("CLOUDSDK_AUTH_ACCESS_TOKEN", "").strip():
        check_sendable(token, "CLOUDSDK_AUTH_ACCESS_TOKEN")
        return GoogleAccess("CLOUDSDK_AUTH_ACCESS_TOKEN", config | {"bearer_token": token})
    named = env.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        return _of_file("GOOGLE_APPLICATION_CREDENTIALS", Path(named).expanduser(), config)
    folder = Path(env.get("CLOUDSDK_CONFIG") or "~/.config/gcloud").expanduser()
    file = folder / "application_default_credentials.json"
    if file.exists():
        return _of_file("gcloud auth application-default login", file, config)
    return GoogleAccess("the machine's service account", config)


def _of_file(source: str, file: Path, config: dict[str, Any]) -> GoogleAccess:
    try:
        said = json.loads(file.read_text())
        kind = said["type"]
    except OSError as error:
        reason = f"{source}: can't read {file}: {error.strerror}"
        raise StoreDeniedError("open", "", reason, _CHECK_KEYS) from None
    except (ValueError, KeyError, TypeError):
        raise StoreDeniedError("open", "", f"{source}: {file} holds no credentials", _CHECK_KEYS) from None
    if kind in ("service_account", "authorized_user"):
        if base := said.get("gcs_base_url"):
            config = {"base_url": str(base), **config}
        return GoogleAccess(source, config | {"application_credentials": str(file)})
    try:
        from google.auth import exceptions
        from google.auth.transport.requests import Request
    except ImportError:
        extra = "pip install 'vaultlayer-hf[gcs]'"
        raise MissingExtraError(f"{file} is of the kind {kind}, which google-auth reads: {extra}") from None
    try:
        credentials = _federated(kind, said)
    except (exceptions.GoogleAuthError, ValueError, KeyError):
        raise StoreDeniedError("open", "", f"{source}: {file} can't be used", _CHECK_KEYS) from None
    return GoogleAccess(source, config, partial(_token, credentials, Request()))


def _federated(kind: str, said: dict[str, Any]) -> Any:
    """Return google-auth's credentials of a file's contents.

    Its function for files of any kind asks for a project, too, by another service, which a trainer may not reach.
    """
    module, make = "", "from_info"
    if kind == "external_account":
        place = said.get("credential_source", {})
        aws = str(place.get("environment_id", "")).startswith("aws")
        module = "aws" if aws else "pluggable" if "executable" in place else "identity_pool"
    elif kind == "external_account_authorized_user":
        module = kind
    elif kind == "impersonated_service_account":
        module, make = "impersonated_credentials", "from_impersonated_service_account_info"
    if not module:
        raise ValueError(kind)
    found = importlib.import_module(f"google.auth.{module}").Credentials
    return getattr(found, make)(said, scopes=[_SCOPE])


def _token(credentials: Any, request: Any) -> dict[str, Any]:
    """Renew a token and hand it to obstore, which asks again when it has expired."""
    credentials.refresh(request)
    return {"token": credentials.token, "expires_at": credentials.expiry.replace(tzinfo=UTC)}
