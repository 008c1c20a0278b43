"""Encrypted and signed vaults: what a start says where the key isn't the vault's, and of keys that can't be used."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.messages.situations import begin, situation
from tests.security.test_signature import pem, public_pem
from tests.vault.vaults import start, train

CHAPTER = "Keys: encrypted and signed vaults"
ENCRYPTION, SIGNING, VERIFY = (f"VAULTLAYER_{name}_KEY" for name in ("ENCRYPTION", "SIGNING", "VERIFY"))
OURS, THEIRS = "11" * 32, "22" * 32
SIGNER, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))


def _register(name: str, made: dict[str, str], started: dict[str, str], fork: bool = False) -> None:
    """Register a start under other keys than those under which its vault was made; ``fork``: into a new vault."""

    def say(folder: Path) -> None:
        vault = str(folder / "vault")
        with patch.dict(os.environ, made):
            train(vault, folder / "out", 2)
        begin()
        with patch.dict(os.environ, started):
            if fork:
                start(str(folder / "new"), folder / "other", fork=vault)
            else:
                start(vault, folder / "other")

    situation(CHAPTER, name)(say)


_register("an encrypted vault, and no key", {ENCRYPTION: OURS}, {})
_register("an encrypted vault, and another key", {ENCRYPTION: OURS}, {ENCRYPTION: THEIRS})
_register("a plain vault, and a key", {}, {ENCRYPTION: OURS})
_register("a fork of a plain vault into an encrypted one", {}, {ENCRYPTION: OURS}, fork=True)
_register(
    "a fork of an encrypted vault, and another key", {ENCRYPTION: OURS}, {ENCRYPTION: THEIRS}, fork=True
)
_register("an encryption key that can't be used", {}, {ENCRYPTION: "my secret"})
_register("a signed vault, and no key", {SIGNING: pem(SIGNER)}, {})
_register("a signed vault, and another key", {SIGNING: pem(SIGNER)}, {SIGNING: pem(OTHER)})
_register("a signed vault, and the public key alone", {SIGNING: pem(SIGNER)}, {VERIFY: public_pem(SIGNER)})
_register("a vault without signatures, and a key", {}, {SIGNING: pem(SIGNER)})
_register("a signing key that can't be used", {}, {SIGNING: "my secret"})
