"""Puts a vault into a Trainer that trains under `vl run`, and watches its training. Imported by hook.py, late.

A Trainer that has a vault already (``resume=`` or a VaultLayerCallback) keeps it, and is only reported. The second
Trainer of a script that trains gets a vault of its own beside the first one's, ``VAULT-2`` and so on: see numbered.py.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import TrainingArguments

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.run.inside.numbered import numbered, pick_number, stage_of
from vaultlayer_hf.run.inside.watch import TrainingMonitor
from vaultlayer_hf.run.report import AT_VARIABLE, INSERT_VARIABLE, report
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.trainer.callback import VaultLayerCallback
from vaultlayer_hf.trainer.terms import folder_noted, has_ended, ranks_of
from vaultlayer_hf.trainer.train_on import train_on

__all__ = ["install", "train"]

_used: set[int] = set()
"""The numbers of the vaults that Trainers of this process have got here."""


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


def is_over(trainer: Any) -> bool:
    """Tell whether a Trainer whose ``train()`` has returned is at its end; a script's callback may have stopped it."""
    handler = trainer.callback_handler
    vaults = (one for one in handler.callbacks if isinstance(one, VaultLayerCallback))
    return has_ended(trainer.state, handler, None) or any(vault.run.complete for vault in vaults)


def _vault_of(trainer: Any) -> tuple[VaultLayerCallback | None, bool]:
    """Return a Trainer's vault and whether it was put in here; None where it is to have none."""
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
    number, noted = _number_of(trainer.args, settings)
    others = len(set(range(1, number)) - _used)
    settings = numbered(settings, number)
    _used.add(number)
    vault = VaultLayerCallback(settings)
    if trainer.args.process_index == 0:
        _say_which(vault, folder_noted(trainer.args), settings.vault, others, noted)
    vault.bind(trainer.args, trainer.model, trainer.callback_handler)
    vault.run.stops_when_finished = True
    trainer.add_callback(vault)
    trainer._vaultlayer_inserted = vault
    return vault, True


def _say_which(
    vault: VaultLayerCallback, folder: str, uri: str | None, others: int, noted: str | None
) -> None:
    """Say which vault a training has, where somebody could think that it has another one.

    ``others``: how many before it are left to other folders. ``noted``: the other folder whose vault it has.
    """
    if others:
        which = "the one" if others == 1 else f"the {others}"
        vault.events.info(
            EventKind.NOTICE,
            f"the training in {folder} has the vault {uri}, since trainings in other folders have {which} before it",
        )
    if noted is not None:
        vault.events.warn(
            EventKind.NOTICE,
            f"the training in {folder} goes on from the vault {uri}, whose run trained in {noted} and isn't over. "
            "Where these are two trainings of the script, give this one a vault of its own by resume=",
        )


def _number_of(args: TrainingArguments, settings: Settings) -> tuple[int, str | None]:
    """Return the number of the vault for a Trainer of these arguments, as ``pick_number``: rank 0 looks for all."""
    ranks = ranks_of(args, settings.part_timeout)

    def pick() -> tuple[int, str | None]:
        return pick_number(folder_noted(args), _used, partial(stage_of, settings), os.path.isdir)

    return ranks.on_rank_zero(pick, within=3 * settings.resume_timeout)


def _watch(trainer: Any, vault: VaultLayerCallback | None) -> None:
    if "_vaultlayer_watch" not in trainer.__dict__:
        trainer._vaultlayer_watch = watch = TrainingMonitor(vault.vault.uri if vault is not None else None)
        # Ahead of the others: a training that is ended for its loss is neither saved nor noted as finished.
        trainer.callback_handler.callbacks = [watch, *trainer.callback_handler.callbacks]
    if vault is not None and not getattr(vault, "_vaultlayer_heard", False):
        vault._vaultlayer_heard = True  # type: ignore[attr-defined]
        vault.events.listen(report.note_event)
