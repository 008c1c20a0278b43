"""Colab's store of secrets: this process's own can't be read but by name, and a name that isn't there is an error."""

from __future__ import annotations

import json
import os
from pathlib import Path


class SecretNotFoundError(Exception):
    """There is no secret of this name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Secret {key} does not exist.")


def get(key: str) -> str:
    """Return a secret. Raises SecretNotFoundError."""
    secrets = json.loads(Path(os.environ["COLAB_SECRETS"]).read_text())
    if key not in secrets:
        raise SecretNotFoundError(key)
    return str(secrets[key])
