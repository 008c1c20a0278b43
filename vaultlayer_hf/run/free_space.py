"""Frees local disk space after a full disk, as decide/clean.py allows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.errors import VaultLayerError
from vaultlayer_hf.run.decide.clean import Deletion, decide_deletions
from vaultlayer_hf.run.journal import notes_of, read_notes
from vaultlayer_hf.run.report import LOOP, TRAINER
from vaultlayer_hf.session.output_dir import checkpoints, clear_half_done
from vaultlayer_hf.trainer.layout import STATE, missing_files
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.reader.open import open_vault
from vaultlayer_hf.vault.retention.tidy import clear_trash
from vaultlayer_hf.vault.snapshot import LOCAL

_PATIENCE = 10.0
"""Seconds for which a store that doesn't answer is tried again."""


def free_space(
    output_dir: Path, vault: str | None, world_size: int, seam: str = TRAINER
) -> tuple[int, list[Deletion]]:
    """Delete what is safe to delete in ``output_dir``; return the bytes that this freed and the checkpoints deleted.

    Only while no process trains there. ``seam``: who has written the folders, as the ``train`` note names it. Half-done
    restores and what was put aside go, too. Never raises for the disk's or the store's sake: then less is freed.
    """
    if not output_dir.is_dir():
        return 0, []
    before = shutil.disk_usage(output_dir).free
    removed: list[Deletion] = []
    try:
        clear_half_done(output_dir)
        files.remove_tree(output_dir / LOCAL / "aside")
        state = _state_of(vault)
        here = checkpoints(output_dir)
        lacking = {step: _lacking(path, world_size, seam) for step, path in here.items()}
        for deletion in decide_deletions(lacking, state):
            files.remove_tree(here[deletion.step])
            removed.append(deletion)
        clear_trash(output_dir)
    except OSError:
        pass
    return max(0, shutil.disk_usage(output_dir).free - before), removed


def _state_of(vault: str | None) -> VaultState | None:
    if not vault:
        return None
    try:
        with open_vault(vault, patience=_PATIENCE) as opened:
            return opened.state
    except VaultLayerError:
        return None


def _lacking(folder: Path, world_size: int, seam: str) -> Sequence[str] | None:
    """Return what a checkpoint folder lacks by its seam's layout; None where nobody can tell whether it is torn.

    Each seam writes one file last. With it, a folder that lacks others may be meant so (``save_only_model``).
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if seam == TRAINER:
        last, lacking = STATE, missing_files(names, world_size)
    elif seam == LOOP:
        try:
            from vaultlayer_hf.loops.files import ABOUT, missing_of_ranks
        except ImportError:  # this Python has no torch
            return None
        last, lacking = ABOUT, missing_of_ranks(names, world_size)
    else:
        return None
    return None if lacking and last in names else lacking


def free_space_of_attempt(attempt: Path, vault: str, notice: Callable[[str, str], None]) -> int:
    """Free space in every output_dir of an attempt, say what was deleted and why, and return the bytes freed.

    ``vault``: URI of the one that the attempt was given; a training may have one of its own.
    """
    trains = {str(line["output_dir"]): line for line in notes_of(read_notes(attempt), "train")}
    total = 0
    for output_dir, line in sorted(trains.items()):
        if not Path(output_dir).is_dir():  # a temporary one goes with its process
            continue
        freed, removed = free_space(
            Path(output_dir),
            line.get("vault") or vault,
            int(line.get("world_size") or 1),
            str(line.get("seam", TRAINER)),
        )
        total += freed
        left = size_text(shutil.disk_usage(output_dir).free)
        deleted = "; ".join(f"checkpoint-{one.step} ({one.reason})" for one in removed) or "no checkpoint"
        notice("clean", f"{size_text(freed)} freed in {output_dir}, {left} are free now; deleted: {deleted}")
    return total
