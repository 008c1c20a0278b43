"""What a Checkpointer makes of its arguments: the state to save, the settings, and the default folder."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.events import Events
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.loops.objects import Objects, Stateful
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.settings import Settings, settings_from
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.vault.snapshot import LOCAL

_VAULT_ID = re.compile(r"[0-9a-f]{32}")


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
    settings = settings_from(vault, "Checkpointer's vault")
    every = save_every if save_every is not None else settings.save_every or "auto"
    if isinstance(every, int) and not isinstance(every, bool):
        every = f"{every} steps"
    return replace(settings, save_every=str(every))


def default_folder(settings: Settings, ranks: Ranks, events: Events) -> Path:
    """Return the folder for checkpoints where none is named: ``checkpoints-<name>-<digest of the URI>``. All ranks.

    It lies beside the script, or in the current folder where there is no script. The digest keeps vaults apart that end
    alike, such as those of a sweep: lr1/run and lr2/run. A folder named without it, as earlier versions did, is used
    where it holds snapshots of this vault alone: some of them may not be uploaded yet.

    Raises, on all ranks alike, VaultUnreachableError, CorruptError, RanksError.
    """
    address = parse_vault(str(settings.vault))
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    beside = Path(script).resolve().parent if script else Path.cwd()
    digest = hashlib.sha256(address.uri.encode()).hexdigest()[:8]
    folder = beside / f"checkpoints-{_plain(address.uri)}-{digest}"
    former = beside / f"checkpoints-{_plain(str(settings.vault).partition('@')[0])}"
    found = set() if folder.exists() else _vault_ids(former)
    if not any(ranks.gather(bool(found))):
        return folder

    def vault_id() -> str | None:
        _, entry = Access(settings, events).last()
        return entry.state.vault_id if entry is not None else None

    return former if found == {ranks.on_rank_zero(vault_id, within=settings.resume_timeout)} else folder


def _plain(uri: str) -> str:
    """Return the last word of a URI as it can stand in the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", uri.rstrip("/").rsplit("/", 1)[-1]) or "vault"


def _vault_ids(output_dir: Path) -> set[str]:
    """Return the ids of the vaults that have snapshots in a folder."""
    try:
        return {path.name for path in (output_dir / LOCAL).iterdir() if _VAULT_ID.fullmatch(path.name)}
    except OSError:
        return set()
