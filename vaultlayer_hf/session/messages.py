"""Messages between ranks: JSON, signed with a key of this conversation, in the store of the process group.

That store is a TCPStore, which asks nobody who he is: whoever reaches ``MASTER_PORT`` can read and write it. So
nothing that is read there is unpickled, and nothing is believed that isn't signed with the conversation's nonce, which
never goes through the store. A signature covers the name under which a message lies, so one message can't stand for
another; and as each conversation has a nonce of its own, what a dead attempt has left in the store, where torchrun
keeps it over restarts, is neither found nor believed.

What remains: who reaches the port can delete messages and so make ranks wait until their time is up. Who can listen to
the traffic of the collectives, which isn't encrypted, learns the nonce and can then lie to the ranks; but not run code
by a message. So can who writes the store while the group is being made, as gloo finds its peers' addresses there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import sys
from collections.abc import Sequence
from typing import Any, Protocol, cast

from vaultlayer_hf import errors
from vaultlayer_hf.base.text import error_text
from vaultlayer_hf.errors import RanksError, StoreError, VaultLayerError

_PACKAGE = __name__.partition(".")[0]
_SIGNATURE_CHARACTERS = 2 * hashlib.sha256().digest_size
_SCALARS = (bool, int, float, str, type(None))


class KeyValueStore(Protocol):
    """The part of torch.distributed.Store that is used."""

    def set(self, key: str, value: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def multi_get(self, keys: list[str]) -> list[bytes]: ...
    def check(self, keys: list[str]) -> bool: ...
    def compare_set(self, key: str, expected: str, desired: str) -> bytes: ...
    def delete_key(self, key: str) -> bool: ...


class MessageStore:
    """The messages of one conversation. On any thread.

    Every method raises RuntimeError or OSError, as the store does, where the store can't be reached; the ones that
    read raise RanksError for what isn't a message of this conversation.

    Args:
        store: of the process group.
        nonce: the conversation's secret, the same on all ranks and never used before.
    """

    def __init__(self, store: KeyValueStore, nonce: str) -> None:
        self._store = store
        self._secret = nonce.encode()
        self._prefix = f"vaultlayer/{hashlib.sha256(b'prefix of ' + self._secret).hexdigest()[:16]}/"

    def put(self, name: str, value: object) -> None:
        """Leave a value under a name. Raises TypeError for one that ``encode`` can't."""
        self._store.set(self._prefix + name, self._seal(name, value).encode())

    def put_first(self, name: str, value: object) -> None:
        """Leave a value under a name unless there is one already."""
        self._store.compare_set(self._prefix + name, "", self._seal(name, value))

    def there(self, names: Sequence[str]) -> bool:
        """Return whether something lies under each of these names. Never waits."""
        return self._store.check([self._prefix + name for name in names])

    def get(self, name: str) -> Any:
        """Return the value under a name that is there."""
        return self._open(name, self._store.get(self._prefix + name))

    def get_all(self, names: Sequence[str]) -> list[Any]:
        """Return the values under names that are there, in one request."""
        found = self._store.multi_get([self._prefix + name for name in names]) if names else []
        return [self._open(name, data) for name, data in zip(names, found, strict=True)]

    def delete(self, name: str) -> None:
        """Remove what lies under a name."""
        self._store.delete_key(self._prefix + name)

    def _seal(self, name: str, value: object) -> str:
        text = json.dumps(encode(value), separators=(",", ":"))
        return self._sign(name, text.encode()) + text

    def _open(self, name: str, data: bytes) -> Any:
        signature, text = data[:_SIGNATURE_CHARACTERS], data[_SIGNATURE_CHARACTERS:]
        if not hmac.compare_digest(signature, self._sign(name, text).encode()):
            raise RanksError(f"what lies under {name} between the ranks is no message of this run")
        try:
            return decode(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise RanksError(f"the message {name} of another rank can't be read: {error}") from error

    def _sign(self, name: str, text: bytes) -> str:
        return hmac.new(self._secret, name.encode() + b"\0" + text, hashlib.sha256).hexdigest()


def encode(value: object) -> Any:
    """Return a value as JSON has it: scalars and lists as they are, anything else as an object that names its kind.

    Those are tuples, sets, dicts, frozen dataclasses of this package, and errors of ``vaultlayer_hf.errors`` (an error
    of a class below one of those crosses as that one). Raises TypeError for any other value.
    """
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(item) for item in value]}
    if isinstance(value, set | frozenset):
        return {type(value).__name__: [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, VaultLayerError):
        return _encode_error(value)
    kind = type(value)
    if _is_message(kind):
        values = [encode(getattr(value, field.name)) for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        return {"dataclass": f"{kind.__module__}:{kind.__name__}", "fields": values}
    raise TypeError(f"a {kind.__qualname__} can't be told to other ranks")


def decode(found: Any) -> Any:
    """Return the value that ``encode`` made JSON of. Runs nothing but constructors of values. Raises ValueError."""
    if isinstance(found, _SCALARS):
        return found
    if isinstance(found, list):
        return [decode(item) for item in found]
    try:
        kind, *_ = found
        items = found[kind]
        if kind == "dataclass":
            return _class_named(items)(*(decode(item) for item in found["fields"]))
        if kind == "error":
            return _error_named(items)(*found["args"])
        if kind == "dict":
            return {decode(key): decode(item) for key, item in items}
        return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](decode(item) for item in items)
    except (AttributeError, KeyError, TypeError, VaultLayerError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _is_message(kind: object) -> bool:
    """Return whether values of a class may cross: a frozen dataclass of this package."""
    return (
        isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        and kind.__module__.partition(".")[0] == _PACKAGE
    )


def _class_named(name: str) -> type:
    """Return a dataclass by module and name. Imports nothing: who takes part in a round has its classes."""
    module, _, own = name.partition(":")
    kind = getattr(sys.modules.get(module), own, None)
    if not _is_message(kind):
        raise ValueError(f"{name} is no class of messages")
    return cast(type, kind)


def _encode_error(error: VaultLayerError) -> dict[str, Any]:
    known = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    args = [str(error)]
    if isinstance(error, StoreError):
        args = [error.operation, error.key, error.reason, error.hint]
    return {"error": known.__name__, "args": args}


def _error_named(name: str) -> type[VaultLayerError]:
    if name not in errors.__all__:
        raise ValueError(f"{name} is no error of ours")
    return cast(type[VaultLayerError], getattr(errors, name))


def portable(error: Exception | None) -> VaultLayerError | None:
    """Return an error as the other ranks get it: ours as they are, any other in words."""
    if error is None or isinstance(error, VaultLayerError):
        return error
    return RanksError(f"rank 0 failed: {type(error).__name__}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its type where it says nothing."""
    return (error_text(error).splitlines() or [type(error).__name__])[0]
