"""Puts a vault into a Trainer that trains under `vl run`, and watches its training. Imported by hook.py, late.

A Trainer that has a vault already (``resume=`` or a VaultLayerCallback) keeps it, and is only reported. The second
Trainer of a process that trains gets a vault of its own beside the first one's: ``VAULT-2``, and so on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vaultlayer_hf.run.inside.watch import TrainingMonitor
from vaultlayer_hf.run.report import AT_VARIABLE, INSERT_VARIABLE, report
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.trainer.callback import VaultLayerCallback
from vaultlayer_hf.trainer.train_on import train_on

__all__ = ["install", "train"]

_count = 0
"""How many Trainers of this process have got a vault here."""


def install() -> None:
    """Have VaultLayerCallback.pull go back to the step that `vl run` names; once."""
    original = VaultLayerCallback.pull
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def pull(self: VaultLayerCallback) -> str | None:
        named = None if hasattr(self, "_vaultlayer_went_back") else os.environ.get(AT_VARIABLE)
        address = parse_vault(named) if named else None
        if address is not None and address.step is not None and address.uri == self.vault.uri:
            self.run.go_on_from(address.step)
            self._vaultlayer_went_back = True  # type: ignore[attr-defined] # a second train() goes on from there
        return original(self)

    VaultLayerCallback.pull = pull  # type: ignore[method-assign]


def train(trainer: Any, bound: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a Trainer's ``train``, watched, and on a vault where it is to have one."""
    vault, inserted = _vault_of(trainer)
    _watch(trainer, vault)
    if vault is None or not inserted:
        return bound(*args, **kwargs)
    return train_on(vault, trainer, bound, args, kwargs, inserted=True)


def _vault_of(trainer: Any) -> tuple[VaultLayerCallback | None, bool]:
    """Return a Trainer's vault and whether it was put in here; None where it is to have none."""
    global _count
    inserted = trainer.__dict__.get("_vaultlayer_inserted")
    if inserted is not None:
        return inserted, True
    callbacks = trainer.callback_handler.callbacks
    own = next((one for one in callbacks if isinstance(one, VaultLayerCallback)), None)
    if own is not None:
        return own, False
    settings = Settings()
    if os.environ.get(INSERT_VARIABLE, "1") == "0" or not settings.vault:
        return None, False
    _count += 1
    if _count > 1:
        address = parse_vault(settings.vault)
        settings = replace(settings, vault=f"{address.uri}-{_count}", fork=None)
    vault = VaultLayerCallback(settings)
    vault.bind(trainer.args, trainer.model, trainer.callback_handler)
    vault.run.stops_when_finished = True
    trainer.add_callback(vault)
    trainer._vaultlayer_inserted = vault
    return vault, True


def _watch(trainer: Any, vault: VaultLayerCallback | None) -> None:
    if "_vaultlayer_watch" not in trainer.__dict__:
        trainer._vaultlayer_watch = watch = TrainingMonitor(vault.vault.uri if vault is not None else None)
        # Ahead of the others: a training that is ended for its loss is neither saved nor noted as finished.
        trainer.callback_handler.callbacks = [watch, *trainer.callback_handler.callbacks]
    if vault is not None and not getattr(vault, "_vaultlayer_heard", False):
        vault._vaultlayer_heard = True  # type: ignore[attr-defined]
        vault.events.listen(report.note_event)
