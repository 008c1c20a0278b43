"""What a provider of object storage calls things: the words and fixes of its error messages.

A person with an Azure account is helped by the name of Azure's variable, not by Amazon's. Each provider's own words
stand beside the code that opens its stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NO_STORE = "something answers, and not as an object store does"
"""The reason where a login page or a proxy answers in the place of the store."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The words of one provider.

    Attributes:
        name: of the service, such as ``Azure Blob Storage``.
        bucket: what it calls a bucket, such as ``container``.
        check_keys: what to do where no credentials were found, or the wrong ones.
        check_permissions: what the credentials need to be allowed.
        check_bucket: what to do where the bucket doesn't exist.
        check_endpoint: what to do where something else answers.
        check_tls: what to do where the server's certificate isn't trusted.
        check_address: what to do where the server's name isn't found; empty where nothing is to be said.
        denied: by the code in the server's answer, a reason and what to do; an answer of any other code is
            told by its HTTP status.
        full: codes that say that the store is full.
        full_fix: what to do then.
        unavailable: codes that say that trying again may help.
        undecided: codes of a refused create that say only that another write is under way.
        missing: codes that say that an object doesn't exist.
        rights: what an operation of a store has to be allowed, by its name; empty where it isn't known.
    """

    name: str
    bucket: str
    check_keys: str
    check_permissions: str
    check_bucket: str
    check_endpoint: str
    check_tls: str
    check_address: str = ""
    denied: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    full: frozenset[str] = frozenset()
    full_fix: str = "free some space, or raise the quota"
    unavailable: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    rights: Mapping[str, str] = field(default_factory=dict)

    def needs(self, operation: str) -> str:
        """Return what to add to the reason where an operation is denied, such as ``: it needs s3:GetObject``."""
        right = self.rights.get(operation)
        return f": it needs {right}" if right else ""


def rights(*, get: str, put: str, list: str, delete: str) -> dict[str, str]:
    """Return ``Provider.rights`` for what a provider calls these four."""
    return {
        **dict.fromkeys(("read", "read_range", "head"), get),
        **dict.fromkeys(("create", "write", "upload"), put),
        "copy": f"{get} and {put}",
        "list": list,
        "delete": delete,
    }


NEUTRAL = Provider(
    name="an object store",
    bucket="bucket",
    check_keys="check the credentials",
    check_permissions="these credentials need to list, read, write and delete below the prefix",
    check_bucket="create it, or check its name",
    check_endpoint="check the store's address and the proxy; a network's login page looks like this",
    check_tls="trust the authority of the server's certificate",
)
"""For a client whose provider isn't known."""
