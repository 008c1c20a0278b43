"""The errors of vaultlayer_hf, grouped by what the caller should do.

    VaultLayerError
    ├── SettingsError             fix the argument or the VAULTLAYER_* variable
    │   └── VaultUriError         fix the URI
    ├── MissingExtraError         install the extra that the message names
    ├── StoreError                one operation of a store failed
    │   ├── ObjectNotFoundError   no such object
    │   ├── AlreadyExistsError    create-if-absent lost: somebody created it
    │   ├── StoreUnavailableError passing trouble (network, 5xx, throttling): try again
    │   ├── StoreDeniedError      credentials or permissions: fix them; training goes on meanwhile
    │   └── StoreFullError        no space or quota left: free some
    ├── ResumeError               nothing was loaded; never a silent start at step 0
    │   ├── VaultUnreachableError the vault can't be read
    │   │   └── VaultDeniedError  and no other try helps: fix credentials, permissions or the address
    │   ├── NoUsableCheckpointError  commits exist, none can be resumed from
    │   ├── NoSuchCheckpointError the step that was asked for isn't in the vault
    │   ├── WorldSizeError        it can't be resumed on this many ranks
    │   ├── WrongModelError       the checkpoint belongs to another model
    │   ├── OtherRunError         it belongs to a run with other data or another optimizer
    │   └── NotLoadedError        what was loaded into memory isn't what was saved
    ├── CorruptError              bytes in the vault are not what the log vouches for
    │   ├── FormatVersionError    written by a newer version: upgrade
    │   └── SignatureError        a key is set, and it isn't signed by that key
    ├── RanksError                another rank is gone or didn't answer in time
    └── FencedError               a newer writer has claimed the vault: stop

Every message says what was attempted, on what, and what to do. No message carries a secret.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "CorruptError",
    "FencedError",
    "FormatVersionError",
    "MissingExtraError",
    "NoSuchCheckpointError",
    "NoUsableCheckpointError",
    "NotLoadedError",
    "ObjectNotFoundError",
    "OtherRunError",
    "RanksError",
    "ResumeError",
    "SettingsError",
    "SignatureError",
    "StoreDeniedError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "VaultDeniedError",
    "VaultLayerError",
    "VaultUnreachableError",
    "VaultUriError",
    "WorldSizeError",
    "WrongModelError",
]


class VaultLayerError(Exception):
    """Base of every error that this package raises on purpose."""


class SettingsError(VaultLayerError, ValueError):
    """A setting has a value that can't be used."""


class VaultUriError(SettingsError):
    """A vault URI can't be parsed, or names a kind of store that isn't supported."""


class MissingExtraError(VaultLayerError, ImportError):
    """An optional dependency is needed here; the message names the extra that brings it."""


class StoreError(VaultLayerError):
    """An operation of a store failed.

    Attributes:
        operation: the store's method, such as ``"create"``.
        key: the object's key in the vault, or ``""`` where there is none.
        transient: whether the same call may succeed later without anyone acting.
    """

    transient = False

    def __init__(self, operation: str, key: str, reason: str, hint: str = "") -> None:
        self.operation = operation
        self.key = key
        self.reason = reason
        self.hint = hint
        where = f"{operation} {key}" if key else operation
        super().__init__(f"{where}: {reason}" + (f" ({hint})" if hint else ""))

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.operation, self.key, self.reason, self.hint)


class ObjectNotFoundError(StoreError):
    """The object doesn't exist."""


class AlreadyExistsError(StoreError):
    """The object exists already, so create-if-absent did nothing."""


class StoreUnavailableError(StoreError):
    """The store didn't answer, or answered that it can't now; the outcome of a write is unknown."""

    transient = True


class StoreDeniedError(StoreError):
    """The store refuses: no or wrong credentials, a missing permission, no such bucket."""


class StoreFullError(StoreError):
    """The store has no space or quota left."""


class ResumeError(VaultLayerError):
    """The run can't be resumed as asked; nothing was loaded and nothing was changed."""


class VaultUnreachableError(ResumeError):
    """The vault could not be read, so it is unknown whether it holds a checkpoint."""


class VaultDeniedError(VaultUnreachableError):
    """The vault can't be used before somebody changes something: credentials, a permission, a mount, the address."""


class NoUsableCheckpointError(ResumeError):
    """The vault holds commits, and none of them can be resumed from."""


class NoSuchCheckpointError(ResumeError):
    """The vault has no live checkpoint of the step that was asked for."""


class WorldSizeError(ResumeError):
    """The checkpoint was written by another number of ranks, and can't be resumed on this one."""


class WrongModelError(ResumeError):
    """The checkpoint's parameters (names, shapes, dtypes) are not those of the model at hand."""


class OtherRunError(ResumeError):
    """The checkpoint belongs to another run: one that was over on other data, or that had another optimizer."""


class NotLoadedError(ResumeError):
    """The files are whole, but what a library has loaded from them into memory isn't what was saved."""


class CorruptError(VaultLayerError):
    """Bytes in the vault differ from what the log vouches for, or are hostile."""


class FormatVersionError(CorruptError):
    """The object was written in a format version that this release doesn't know."""


class SignatureError(CorruptError):
    """A key is set, and what was read isn't signed by it: somebody else has written it, or it is older than the key."""


class RanksError(VaultLayerError):
    """Another rank of the run is gone, or didn't answer in time."""


class FencedError(VaultLayerError):
    """A newer claim exists: another process continues this run, this one must stop."""
