"""Puts a vault into a Trainer that trains under `vl run`, and watches its training. Imported by hook.py, late.

A Trainer that has a vault already (``resume=`` or a VaultLayerCallback) keeps it, and is only reported. The second
Trainer of a process that trains gets a vault of its own beside the first one's: ``VAULT-2``, and so on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.run.inside.watch import TrainingMonitor
from vaultlayer_hf.run.report import AT_VARIABLE, INSERT_VARIABLE, report
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.trainer.callback import VaultLayerCallback
from vaultlayer_hf.trainer.layout import missing_files
from vaultlayer_hf.trainer.trainer import Explicit, train_on

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
    return train_on(
        vault, trainer, bound, args, kwargs, choose=lambda its, explicit: _choose(trainer, its, explicit)
    )


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
        settings = replace(settings, vault=f"{address.uri}-{_count}")
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
        vault.events.listen(report.hear)


def _choose(trainer: Any, vault: VaultLayerCallback, explicit: Explicit) -> Explicit:
    """Claim the vault and return what to resume from: its newest checkpoint, before what the script names.

    The command is started again as it stands: a checkpoint that it names is where the run once began.
    """
    path = vault.pull()
    if explicit is None or explicit is False:
        return path or explicit
    if path is not None:
        vault.events.info(
            EventKind.NOTICE,
            f"the vault wins over train(resume_from_checkpoint={explicit!r}): it holds {Path(path).name}, which this "
            "run goes on from; to start from another one, name an empty vault",
        )
        return path
    named = _newest_here(trainer) if explicit is True else Path(explicit)
    lacking = _lacking(trainer, named)
    if lacking:
        vault.events.warn(
            EventKind.NOTICE,
            f"the vault is empty, and train(resume_from_checkpoint={explicit!r}) can't be followed, so the run starts "
            f"fresh: {lacking}",
        )
        return None
    vault.events.info(
        EventKind.NOTICE,
        f"the vault is empty: train(resume_from_checkpoint={explicit!r}) is followed, as the script says",
    )
    return explicit


def _newest_here(trainer: Any) -> Path | None:
    from transformers.trainer_utils import get_last_checkpoint

    output_dir = str(trainer.args.output_dir)
    found: str | None = cast(Any, get_last_checkpoint)(output_dir) if os.path.isdir(output_dir) else None
    return Path(found) if found else None


def _lacking(trainer: Any, folder: Path | None) -> str:
    """Return why a folder of this run's own output can't be resumed from; empty for any other folder.

    A kill in the middle of a save leaves half a checkpoint, and stock transformers loads it in silence.
    """
    if folder is None:
        return f"{trainer.args.output_dir} holds no checkpoint"
    if folder.absolute().parent != Path(trainer.args.output_dir).absolute():
        return ""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    missing = missing_files(paths, trainer.args.world_size)
    return f"{folder.name} lacks {', '.join(missing)}" if missing else ""
