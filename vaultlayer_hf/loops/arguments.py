"""What a Checkpointer makes of its arguments: the state to save, the settings, and the default folder."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.loops.objects import Objects, Stateful
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores.uri import parse_vault


def state_of(accelerator: Any, model: Any, optimizer: Any, scheduler: Any) -> Stateful:
    """Return what is saved: an Accelerator's, or these objects. Raises SettingsError."""
    if accelerator is None:
        return Objects(model, optimizer, scheduler)
    if model is not None or optimizer is not None or scheduler is not None:
        raise SettingsError("what an Accelerator has prepared comes along with it: give accelerator= alone")
    from vaultlayer_hf.loops.accelerator import Prepared

    return Prepared(accelerator)


def settings_of(vault: str | os.PathLike[str] | Settings | None, save_every: str | int | None) -> Settings:
    """Return the settings that name a vault and say when to save. Raises SettingsError."""
    settings = vault if isinstance(vault, Settings) else Settings(vault=os.fspath(vault) if vault else None)
    if not settings.vault:
        raise SettingsError("no vault is named: give its URI, or set VAULTLAYER_VAULT")
    parse_vault(settings.vault)
    every = save_every if save_every is not None else settings.save_every or "auto"
    if isinstance(every, int) and not isinstance(every, bool):
        every = f"{every} steps"
    return replace(settings, save_every=str(every))


def default_folder(vault: str) -> Path:
    """Return ``checkpoints-<name>`` beside the script, or in the current folder where there is no script."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", vault.partition("@")[0].rstrip("/").rsplit("/", 1)[-1])
    return (Path(script).resolve().parent if script else Path.cwd()) / f"checkpoints-{name or 'vault'}"
