"""Frees local disk space after a full disk: only what the vault has, or what can't be resumed from."""

from __future__ import annotations

import shutil
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import VaultLayerError
from vaultlayer_hf.session.output_dir import checkpoints, clear_half_done
from vaultlayer_hf.trainer.layout import missing_files
from vaultlayer_hf.vault.reader.open import open_vault
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.tidy import clear_trash, tidy_local
from vaultlayer_hf.vault.snapshot import LOCAL


def free_space(output_dir: Path, vault: str | None, world_size: int) -> tuple[int, list[str]]:
    """Delete what is safe to delete in ``output_dir``; return the bytes that this freed and the names deleted.

    Half-done restores, what was put aside, checkpoint folders that a save has left torn, committed ones but the newest
    and the best, and those behind the newest commit, which the next start doesn't go on from. Only while no process
    trains there. Never raises for the disk's or the store's sake: then less is freed.
    """
    if not output_dir.is_dir():
        return 0, []
    before = shutil.disk_usage(output_dir).free
    removed: list[str] = []
    try:
        clear_half_done(output_dir)
        files.remove_tree(output_dir / LOCAL / "aside")
        for path in checkpoints(output_dir).values():
            names = {one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()}
            if missing_files(names, world_size):
                files.remove_tree(path)
                removed.append(path.name)
        if vault:
            with open_vault(vault, patience=10.0) as opened:
                if opened.state is not None and opened.state.newest is not None:
                    for step, path in checkpoints(output_dir).items():
                        if step > opened.state.newest.step:
                            files.remove_tree(path)
                            removed.append(path.name)
                    removed += tidy_local(output_dir, opened.state, Policy(last=1), set())
        clear_trash(output_dir)
    except (OSError, VaultLayerError):
        pass
    return max(0, shutil.disk_usage(output_dir).free - before), removed
