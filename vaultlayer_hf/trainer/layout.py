"""The files of the Trainer's own checkpoint folder: their names, what a resume needs, and the paths inside them.

The Trainer loads a checkpoint without its optimizer, scheduler or RNG state in silence and goes on, on a
wrong trajectory. So what is missing is found out before, from the names of the files alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from vaultlayer_hf.state.layouts import has_tensor_parallel_shards, missing_parts, owner_of_shard

STATE = "trainer_state.json"
SAVE_PARTS = ("save_model", "_save_optimizer_and_scheduler", "_save_scaler", "_save_rng_state")
"""The methods by which a Trainer's ``_save_checkpoint`` writes files, in this order; ``STATE`` comes behind them."""
WEIGHTS = "the model's weights"
"""What ``missing_files`` calls them."""
_WEIGHTS = re.compile(
    r"(.*/)?(model\.safetensors|pytorch_model\.bin|adapter_model\.(safetensors|bin)"
    r"|(model\.safetensors|pytorch_model\.bin)\.index\.json)"
    r"|pytorch_model_fsdp(_\d+)?\.bin|pytorch_model_fsdp(_\d+)?_rank\d+\.bin|pytorch_model_fsdp_\d+/.*\.distcp"
    r"|global_step\d+/.*model_states\.pt"
)
_OPTIMIZER = re.compile(
    r"optimizer(_\d+)?\.(pt|bin)|optimizer_\d+_rank\d+\.bin|optimizer_\d+/.*\.distcp|global_step\d+/.*"
)
_SCHEDULER = re.compile(r"scheduler\.pt|global_step\d+/.*")
_PLACE = re.compile(r"vaultlayer_data_\d+\.pt")
_OF_RANK = re.compile(
    r"(?:.*/)?(?:(?:rng_state|vaultlayer_data)_(\d+)\.pth?|vaultlayer_digests_(\d+)\.json"
    r"|vaultlayer_added/[^/.]+\.(\d+)\.pt)"
)


def missing_files(paths: Collection[str], world_size: int = 1) -> list[str]:
    """Return what a folder of these files lacks for a faithful resume at ``world_size`` ranks; empty: nothing.

    Each item is for a message: a file's name, with the reason where it is a setting's doing.
    """
    missing = []
    if STATE not in paths:
        missing.append(STATE)
    if not any(_WEIGHTS.fullmatch(path) for path in paths):
        missing.append(WEIGHTS)
    if not any(_OPTIMIZER.fullmatch(path) for path in paths):
        missing.append("optimizer.pt")
    if not any(_SCHEDULER.fullmatch(path) for path in paths):
        missing.append("scheduler.pt")
    states = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    missing += [name for name in states if name not in paths]
    if any(_PLACE.fullmatch(path) for path in paths):  # all ranks have kept their place in the data, or none
        places = [f"vaultlayer_data_{rank}.pt" for rank in range(world_size)]
        missing += [name for name in places if name not in paths]
    return missing + missing_parts(paths, world_size)


def wanted_files(paths: Collection[str], ranks: tuple[int, ...], world_size: int) -> set[str]:
    """Return the files that these ranks load at an unchanged world size: all but those of other ranks alone."""
    if has_tensor_parallel_shards(paths):
        return set(paths)
    return {path for path in paths if (rank := _owner(path)) is None or rank in ranks or rank >= world_size}


def _owner(path: str) -> int | None:
    """Return the one rank that loads a file, or None where others may need it."""
    match = _OF_RANK.fullmatch(path)
    return int(match[match.lastindex or 0]) if match else owner_of_shard(path)


def best_step(state: dict[str, object]) -> int | None:
    """Return the step of the best checkpoint from a trainer state, or None where there is none."""
    path = state.get("best_model_checkpoint")
    match = re.search(r"checkpoint-(\d+)/*$", path) if isinstance(path, str) else None
    return int(match[1]) if match else None


def localise(
    folder: Path, output_dir: str, known: Collection[str] | None = None
) -> tuple[bytes | None, list[str]]:
    """Return new content for a folder's trainer_state.json, and the fields that are left out of it.

    The Trainer notes a path there that is wrong on another host, that of the best checkpoint, and compares it, as text,
    with those of the folders that it may rotate away: so ``output_dir`` is to be as its arguments have it, relative
    where it is relative. None: nothing to change. ``known``: the fields that can be read here; None: all. Raises
    OSError, ValueError.
    """
    state = json.loads((folder / STATE).read_text())
    unknown = [] if known is None else sorted(set(state) - set(known))
    kept = {name: value for name, value in state.items() if name not in unknown}
    step = best_step(kept)
    if step is not None:
        kept["best_model_checkpoint"] = os.path.join(output_dir, f"checkpoint-{step}")
    changed = kept != state
    return (json.dumps(kept, indent=2, sort_keys=True) + "\n").encode() if changed else None, unknown
