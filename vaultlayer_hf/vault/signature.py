"""Signatures: who has written an entry of the log, by ed25519, where a key is set.

An entry vouches for the state of the vault and, by their digests, for the manifest of each checkpoint and so for each
of its files: to sign entries is enough. Of several nodes the one that commits believes what the others list as theirs,
so those lists are signed, too. With a key set, what isn't signed by it counts as damaged: who can write to the vault
and hasn't the key can take checkpoints away, put older states of this vault back, and no more.

Keys are named by variables, never by an argument that could end up in a script or a log:

    VAULTLAYER_SIGNING_KEY   the private key, to write (and read): PEM, or the path of a file of it
    VAULTLAYER_VERIFY_KEY    public keys, to read: PEM, one behind the other, or the path of a file of them

    openssl genpkey -algorithm ed25519 -out run.key && openssl pkey -in run.key -pubout -out run.pub

Without either nothing is signed and nothing is asked for. The signature is one more field of an entry: releases that
know of none read a signed vault as any other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vaultlayer_hf.errors import MissingExtraError, SettingsError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNING = "VAULTLAYER_SIGNING_KEY"
VERIFY = "VAULTLAYER_VERIFY_KEY"
FIELD = "signature"
"""Name of the field that holds a signature: 128 hex digits."""
_LIMIT = 65536
_PREFIX = b"vaultlayer_hf 1\0"
"""Ahead of all that is signed: the same key used for something else signs nothing that could pass for an entry."""


@dataclass(frozen=True)
class Keys:
    """The keys that are set.

    Attributes:
        private: to sign with; None where only reading is meant.
        public: those by one of which a signature must be; empty where nothing is to be signed.
    """

    private: Ed25519PrivateKey | None
    public: tuple[Ed25519PublicKey, ...]

    def sign(self, kind: str, data: bytes) -> str:
        """Return the signature of data of a kind. Raises SettingsError where there is no key to sign with."""
        return self.signer.sign(_message(kind, data)).hex()

    @property
    def signer(self) -> Ed25519PrivateKey:
        """The private key. Raises SettingsError where there is none."""
        if self.private is None:
            raise SettingsError(
                f"only a key to read signed vaults with is set ({VERIFY}): writing to one needs {SIGNING}"
            )
        return self.private

    def check(self, kind: str, data: bytes, signature: object, what: str) -> None:
        """Raise SignatureError where data of a kind weren't signed by one of the keys."""
        from cryptography.exceptions import InvalidSignature

        if not isinstance(signature, str):
            raise SignatureError(f"{what}: it isn't signed, and {SIGNING} or {VERIFY} asks for that")
        for key in self.public:
            try:
                key.verify(bytes.fromhex(signature), _message(kind, data))
            except (InvalidSignature, ValueError):
                continue
            return
        raise SignatureError(f"{what}: it isn't signed by the key that {SIGNING} or {VERIFY} names")


def _message(kind: str, data: bytes) -> bytes:
    return _PREFIX + kind.encode() + b"\0" + data


def keys() -> Keys | None:
    """Return the keys that this process's variables name; None where none is named.

    Raises SettingsError for a key that can't be used, MissingExtraError.
    """
    named = os.environ.get(SIGNING, "").strip(), os.environ.get(VERIFY, "").strip()
    return _load(*named) if any(named) else None


def check_may_write(signed: bool, uri: str) -> None:
    """Raise SettingsError where the entries of the vault at ``uri`` are signed and no key to sign with is set.

    Nothing that is written without it would count.
    """
    found = keys()
    if found is not None:
        _ = found.signer  # raises where there is none
    elif signed:
        raise SettingsError(
            f"{uri}: its entries are signed: set {SIGNING} to write to it. Who has the key passes over what was "
            "written without it"
        )


def of_another_key(uri: str, error: SignatureError) -> SignatureError:
    """Return the error for a vault none of whose entries is signed by the key that is set, such as ``error`` says."""
    return SignatureError(
        f"{uri}: {error}, and no entry of this log is. A key fits only a vault whose log it has signed from the first "
        "entry on: set the key of this vault, or name a vault of this key. One that was made without a key is used "
        "without one"
    )


@lru_cache(maxsize=4)
def _load(signing: str, verify: str) -> Keys:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError as error:
        raise MissingExtraError(
            f"{SIGNING} or {VERIFY} is set, and signatures need cryptography: pip install 'vaultlayer-hf[sign]'"
        ) from error
    private: Ed25519PrivateKey | None = None
    public: list[Ed25519PublicKey] = []
    for variable, text in ((SIGNING, signing), (VERIFY, verify)):
        try:
            for pem in _pems(text):
                if variable == SIGNING:
                    found = serialization.load_pem_private_key(pem, password=None)
                    if not isinstance(found, Ed25519PrivateKey):
                        raise ValueError
                    private = found
                    public.append(found.public_key())
                else:
                    other = serialization.load_pem_public_key(pem)
                    if not isinstance(other, Ed25519PublicKey):
                        raise ValueError
                    public.append(other)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):  # what it says could repeat the key
            kind = "a private ed25519 key" if variable == SIGNING else "public ed25519 keys"
            raise SettingsError(
                f"{variable} can't be used: it is neither {kind} as PEM without a password, nor the path of a file of "
                "that which can be read (a relative path counts from the folder in which the program runs). "
                "`openssl genpkey -algorithm ed25519` makes a key"
            ) from None
    return Keys(private, tuple(public))


def _pems(text: str) -> list[bytes]:
    """Return each PEM block of a text, or of the file that it names. Raises OSError, ValueError."""
    if not text:
        return []
    data = text.replace("\\n", "\n").encode() if "-----BEGIN" in text else _content(Path(text).expanduser())
    blocks = [b"-----BEGIN" + part for part in data.split(b"-----BEGIN")[1:]]
    if not blocks:
        raise ValueError
    return blocks


def _content(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise ValueError
    return data
