"""Vaults in Azure Blob Storage: credentials as Azure's own tools find them.

They are looked for in this order, and the first that is there counts:

1. a connection string: AZURE_STORAGE_CONNECTION_STRING (of this account, or the emulator's)
2. an account key: AZURE_STORAGE_KEY, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_ACCESS_KEY
3. a shared access signature (SAS): AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_SAS_KEY
4. a workload identity: AZURE_FEDERATED_TOKEN_FILE with AZURE_CLIENT_ID and AZURE_TENANT_ID
5. a service principal: AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_CLIENT_SECRET
6. ``az login``, where it has been called and no managed identity is announced by IDENTITY_ENDPOINT
7. the machine's managed identity (AZURE_CLIENT_ID chooses one of several)

A key or SAS names no account: it is that of the address. obstore sends the requests and renews tokens.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import SettingsError, StoreDeniedError
from vaultlayer_hf.stores.objects.opening import open_objects
from vaultlayer_hf.stores.objects.provider import Provider, rights
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.stores.variables import authorities, server_address

_CHECK_KEYS = (
    "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, call az login, or give the"
    " machine a managed identity"
)
_CHECK_PERMISSIONS = (
    "an identity needs the role Storage Blob Data Contributor on the container; a SAS the permissions racwdl (read,"
    " add, create, write, delete, list)"
)
_CHECK_CONTAINER = "create it (az storage container create), or check its name and the account's"

AZURE = Provider(
    name="Azure Blob Storage",
    bucket="container",
    check_keys=_CHECK_KEYS,
    check_permissions=_CHECK_PERMISSIONS,
    check_bucket=_CHECK_CONTAINER,
    check_endpoint="check AZURE_STORAGE_ENDPOINT and the proxy; a network's login page looks like this",
    check_tls="name the authority of the server's certificate in AZURE_STORAGE_CA_BUNDLE or SSL_CERT_FILE",
    check_address="is it the storage account? Write az://account/container/prefix",
    denied={
        "ContainerNotFound": ("the container doesn't exist", _CHECK_CONTAINER),
        "ContainerDisabled": ("the container has been disabled", "ask who administers the account"),
        "AccountIsDisabled": ("the storage account is disabled", "ask who administers the account"),
        "AuthenticationFailed": ("the key, SAS or token isn't accepted, or has expired", _CHECK_KEYS),
        "AuthorizationFailure": (
            "the key, SAS or token isn't accepted, or the account's firewall keeps this machine out",
            f"{_CHECK_KEYS}; the portal shows the firewall under Networking",
        ),
        "AuthorizationPermissionMismatch": ("these credentials may not do this", _CHECK_PERMISSIONS),
        "InsufficientAccountPermissions": ("these credentials may not do this", _CHECK_PERMISSIONS),
        "AuthorizationProtocolMismatch": ("this SAS is for https only", "use https, or another SAS"),
        "AuthorizationSourceIPMismatch": ("this SAS isn't for this machine's address", "make another SAS"),
        "AuthorizationServiceMismatch": ("this SAS isn't for blobs", "make one for the service Blob"),
        "AuthorizationResourceTypeMismatch": (
            "this SAS doesn't reach this far",
            "make one for containers and objects (sco)",
        ),
        "InvalidAuthenticationInfo": ("the credentials can't be read, or have expired", _CHECK_KEYS),
        "NoAuthenticationInformation": ("no credentials were sent", _CHECK_KEYS),
        "KeyBasedAuthenticationNotPermitted": (
            "the account accepts no keys",
            "call az login, or use a managed identity",
        ),
        "PublicAccessNotPermitted": ("the account allows no public access", _CHECK_KEYS),
        "BlobImmutableDueToPolicy": (
            "the container keeps blobs unchanged by a policy",
            "use a container without an immutability policy: a vault deletes old checkpoints",
        ),
    },
    unavailable=frozenset({"ServerBusy", "InternalError", "OperationTimedOut", "InvalidBlobList"}),
    undecided=frozenset({"ContainerBeingDeleted", "PendingCopyOperation", "SystemInUse"}),
    rights=rights(get="read (r)", put="create (c) and write (w)", list="list (l)", delete="delete (d)"),
)


@dataclass(frozen=True, slots=True)
class AzureAccess:
    """How to reach an account, as found on this machine.

    Attributes:
        source: where the credentials are from, for messages.
        config: what obstore is told; holds secrets.
    """

    source: str
    config: dict[str, Any] = field(repr=False)


def open_azure(address: VaultAddress, *, upload_concurrency: int = 8) -> ObjectStore:
    """Open a vault in Azure Blob Storage. Looks for credentials, but sends nothing to the container yet.

    Raises:
        StoreDeniedError: the credentials can't be used.
        SettingsError: the endpoint or the connection string can't be used.
    """
    import obstore.store
    from obstore import exceptions

    make: Any = obstore.store.AzureStore  # its annotations exist for type checkers only
    account, _, container = address.bucket.partition("/")
    access = find_access(account)
    endpoint = access.config.get("endpoint", "")
    options: dict[str, Any] = {"allow_http": endpoint.startswith("http://") or _asks_locally()}
    for variable in ("AZURE_STORAGE_CA_BUNDLE", "SSL_CERT_FILE"):
        if bundle := os.environ.get(variable):
            options["root_certificate"] = authorities(bundle, variable)
            break
    try:
        store = open_objects(
            partial(make, container, config=access.config),
            address,
            AZURE,
            upload_concurrency=upload_concurrency,
            options=options,
        )
    except exceptions.BaseError:  # of a key that is no base64; its text would repeat a part of it
        reason = f"the credentials from {access.source} can't be read"
        raise StoreDeniedError("open", "", reason, _CHECK_KEYS) from None
    store.credentials = access.source
    store.largest_copy = None
    return store


def find_access(account: str) -> AzureAccess:
    """Find endpoint and credentials for an account on this machine; see the module's docstring for where.

    Raises SettingsError where AZURE_STORAGE_CONNECTION_STRING can't be read or is another account's.
    """
    env = os.environ
    config: dict[str, Any] = {"account_name": account}
    endpoint = env.get("AZURE_STORAGE_ENDPOINT") or env.get("AZURE_STORAGE_SERVICE_ENDPOINT")
    if endpoint:
        config["endpoint"] = server_address(endpoint, "AZURE_STORAGE_ENDPOINT")
    text = env.get("AZURE_STORAGE_CONNECTION_STRING")
    if text:
        return AzureAccess("AZURE_STORAGE_CONNECTION_STRING", {**config, **connection(text, account)})
    for kind, names in (
        ("account_key", ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY")),
        ("sas_key", ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")),
    ):
        for name in names:
            if env.get(name):
                return AzureAccess(name, {**config, kind: env[name].strip().lstrip("?")})
    if authority := env.get("AZURE_AUTHORITY_HOST"):
        config["authority_host"] = authority
    client = {"client_id": env.get("AZURE_CLIENT_ID"), "tenant_id": env.get("AZURE_TENANT_ID")}
    if all(client.values()):
        for name, kind in (
            ("AZURE_FEDERATED_TOKEN_FILE", "federated_token_file"),
            ("AZURE_CLIENT_SECRET", "client_secret"),
        ):
            if env.get(name):
                return AzureAccess(f"AZURE_CLIENT_ID and {name}", {**config, **client, kind: env[name]})
    managed = env.get("IDENTITY_ENDPOINT") or env.get("MSI_ENDPOINT")
    if not managed and _logged_in():
        return AzureAccess("az login", {**config, "use_azure_cli": True})
    if client["client_id"]:
        config["client_id"] = client["client_id"]
    if managed:
        config["msi_endpoint"] = managed
    return AzureAccess("the machine's managed identity", config)


def connection(text: str, account: str) -> dict[str, Any]:
    """Return what a connection string says, as obstore wants it.

    ::

        connection("AccountName=me;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:10000/me", "me")
        # {"account_name": "me", "account_key": "a2V5", "endpoint": "http://127.0.0.1:10000/me"}

    Raises SettingsError where it can't be read, or belongs to another account; never repeats it.
    """
    name = "AZURE_STORAGE_CONNECTION_STRING"
    pieces = [piece.partition("=") for piece in text.strip().strip('"').split(";") if piece.strip()]
    if any(not mark for _, mark, _ in pieces):
        raise SettingsError(
            f"{name} can't be read: it has to be Name=value;Name=value, as the portal shows it"
        )
    said: Mapping[str, str] = {key.strip().lower(): value.strip() for key, _, value in pieces}
    if said.get("usedevelopmentstorage", "").lower() == "true":
        said = {"accountname": _EMULATED, "accountkey": _EMULATED_KEY, "blobendpoint": _EMULATED_AT}
    config: dict[str, Any] = {"account_name": said.get("accountname") or account}
    if config["account_name"] != account:
        raise SettingsError(
            f"{name} is of the account {config['account_name']!r}, the vault's address names {account!r}: set the"
            " other one's"
        )
    if endpoint := said.get("blobendpoint"):
        config["endpoint"] = server_address(endpoint, f"the BlobEndpoint of {name}")
    elif suffix := said.get("endpointsuffix"):
        protocol = said.get("defaultendpointsprotocol", "https")
        config["endpoint"] = server_address(f"{protocol}://{account}.blob.{suffix}", f"the server of {name}")
    if key := said.get("accountkey"):
        config["account_key"] = key
    elif signature := said.get("sharedaccesssignature"):
        config["sas_key"] = signature.lstrip("?")
    else:
        raise SettingsError(f"{name} holds neither AccountKey nor SharedAccessSignature")
    return config


# Published by Microsoft for its emulator; no secrets.
_EMULATED = "devstoreaccount1"
_EMULATED_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_EMULATED_AT = f"http://127.0.0.1:10000/{_EMULATED}"


def _logged_in() -> bool:
    """Whether ``az login`` has been called here, as far as its files tell."""
    folder = Path(os.environ.get("AZURE_CONFIG_DIR") or "~/.azure").expanduser()
    return (folder / "azureProfile.json").exists() and shutil.which("az") is not None


def _asks_locally() -> bool:
    """Whether tokens come from a service of this machine, which speaks http."""
    return (os.environ.get("IDENTITY_ENDPOINT") or os.environ.get("MSI_ENDPOINT") or "").startswith("http://")
