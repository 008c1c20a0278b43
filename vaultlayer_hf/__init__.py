"""vaultlayer_hf: a training run that dies goes on from its newest complete checkpoint.

    from vaultlayer_hf import Trainer
    Trainer(model, args, train_dataset=ds, resume="s3://bucket/my-run").train()

Importing this package imports neither torch nor transformers: a name that needs them brings them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaultlayer_hf import errors
from vaultlayer_hf.base.versions import __version__
from vaultlayer_hf.errors import *  # noqa: F403  the errors are public names, listed in errors.__all__
from vaultlayer_hf.session.settings import Settings

if TYPE_CHECKING:
    from vaultlayer_hf.loops.checkpointer import Checkpointer
    from vaultlayer_hf.trainer.callback import VaultLayerCallback
    from vaultlayer_hf.trainer.trainer import Trainer, resumable
    from vaultlayer_hf.vault.reader.open import open_vault
    from vaultlayer_hf.vault.reader.vault import Vault

_LAZY = {
    "Trainer": "vaultlayer_hf.trainer.trainer",
    "resumable": "vaultlayer_hf.trainer.trainer",
    "VaultLayerCallback": "vaultlayer_hf.trainer.callback",
    "Checkpointer": "vaultlayer_hf.loops.checkpointer",
    "Vault": "vaultlayer_hf.vault.reader.vault",
    "open_vault": "vaultlayer_hf.vault.reader.open",
}

__all__ = [
    "Checkpointer",
    "Settings",
    "Trainer",
    "Vault",
    "VaultLayerCallback",
    "__version__",
    "open_vault",
    "resumable",
    *errors.__all__,
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
