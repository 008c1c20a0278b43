"""What a checkpoint of the Trainer must hold to be resumed as if nothing had happened. Pure.

The Trainer loads a checkpoint without its optimizer, scheduler or RNG state in silence and goes on, on a
wrong trajectory. So what is missing is found out before, from the names of the files alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

STATE = "trainer_state.json"
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
_ZERO_FOLDER = r"(?:global_step\d+|pytorch_model(?:_\d+)?)"  # by the Trainer, by accelerate
_ZERO_SHARD = re.compile(
    rf"{_ZERO_FOLDER}/(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_(optim|model)_states\.pt"
)
_ZERO_MODEL = re.compile(rf"{_ZERO_FOLDER}/.*model_states\.pt")
_FSDP_SHARD = re.compile(r"(pytorch_model_fsdp|pytorch_model_fsdp_\d+|optimizer_\d+)_rank(\d+)\.bin")
_OF_RANK = re.compile(
    rf"(?:.*/)?(?:rng_state|vaultlayer_data)_(\d+)\.pth?|{_ZERO_SHARD.pattern}|{_FSDP_SHARD.pattern}"
)
_DCP = re.compile(r"(pytorch_model_fsdp_\d+|optimizer_\d+)/")
_DCP_INDEX = ".metadata"


def missing_files(paths: Collection[str], world_size: int = 1) -> list[str]:
    """Return what a folder of these files lacks for a faithful resume at ``world_size`` ranks; empty: nothing.

    Each item is for a message: a file's name, with the reason where it is a setting's doing.
    """
    missing = []
    if STATE not in paths:
        missing.append(STATE)
    if not any(_WEIGHTS.fullmatch(path) for path in paths):
        missing.append("the model's weights")
    if not any(_OPTIMIZER.fullmatch(path) for path in paths):
        missing.append("optimizer.pt")
    if not any(_SCHEDULER.fullmatch(path) for path in paths):
        missing.append("scheduler.pt")
    states = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    missing += [name for name in states if name not in paths]
    return missing + missing_parts(paths, world_size)


def missing_parts(paths: Collection[str], world_size: int) -> list[str]:
    """Return what of a state that is spread over ranks, by DeepSpeed or FSDP, isn't among these files."""
    return _missing_of_zero(paths, world_size) + _missing_of_fsdp(paths, world_size)


def _missing_of_zero(paths: Collection[str], world_size: int) -> list[str]:
    """Each rank has a shard of the optimizer, at stage 3 one of the model too; ``latest`` names the folder."""
    shards = [match for path in paths if (match := _ZERO_SHARD.fullmatch(path))]
    missing = []
    for folder, kind in sorted({(match[0].split("/")[0], match[3]) for match in shards}):
        count = sum(match[3] == kind and match[0].startswith(f"{folder}/") for match in shards)
        if count < world_size:
            missing.append(f"{world_size - count} of {world_size} ranks' {kind}_states.pt of DeepSpeed")
    if shards and not any(_ZERO_MODEL.fullmatch(path) for path in paths):
        missing.append("model_states.pt of DeepSpeed")
    if any(path.startswith("global_step") for path in paths) and "latest" not in paths:
        missing.append("latest")
    return missing


def _missing_of_fsdp(paths: Collection[str], world_size: int) -> list[str]:
    """Sharded state: a folder with an index for the model and for the optimizer, or a file of each rank."""
    folders = {match[1] for path in paths if (match := _DCP.match(path))}
    missing = [f"{name}/{_DCP_INDEX}" for name in sorted(folders) if f"{name}/{_DCP_INDEX}" not in paths]
    for name in sorted({match[1] for path in paths if (match := _FSDP_SHARD.fullmatch(path))}):
        missing += [file for rank in range(world_size) if (file := f"{name}_rank{rank}.bin") not in paths]
    return missing


def wanted_files(paths: Collection[str], ranks: tuple[int, ...], world_size: int) -> set[str]:
    """Return the files that these ranks load at an unchanged world size: all but those of other ranks alone."""
    shards = [match for path in paths if (match := _ZERO_SHARD.fullmatch(path))]
    if any(int(match[2]) > 0 for match in shards):
        return set(paths)  # tensor parallelism: a shard isn't named by a rank then
    return {path for path in paths if (rank := _owner(path)) is None or rank in ranks or rank >= world_size}


def _owner(path: str) -> int | None:
    """Return the one rank that loads a file, or None where others may need it."""
    match = _OF_RANK.fullmatch(path)
    return next((int(group) for group in (match[1], match[2], match[6]) if group), None) if match else None


def is_zero(paths: Collection[str]) -> bool:
    """Tell whether these are the files of a DeepSpeed ZeRO checkpoint, which only as many ranks can load."""
    return any(_ZERO_SHARD.fullmatch(path) for path in paths)


def refusal(paths: Collection[str], written: int, now: int) -> str:
    """Return why a checkpoint of ``written`` ranks can't be resumed on ``now`` ranks; empty where it can."""
    if written == now:
        return ""
    if is_zero(paths):
        return (
            f"DeepSpeed ZeRO wrote it on {written} ranks and this run has {now}: start on {written} ranks, or where "
            "DeepSpeed is installed and set up, so that it can be converted"
        )
    if any(_FSDP_SHARD.fullmatch(path) for path in paths):
        return (
            f"FSDP wrote a file of each of {written} ranks and this run has {now}: start on {written} ranks; with "
            "sharded state through torch.distributed.checkpoint, any number can go on"
        )
    return ""


def missing_shards(folder: Path, paths: Collection[str]) -> list[str]:
    """Return the files that an index in the folder names and that aren't among ``paths``.

    For a folder that this process has written: the index of sharded state is a pickle.
    """
    missing = []
    for path in paths:
        if path.endswith(f"/{_DCP_INDEX}") and (folder / path).is_file():
            parent = path.rpartition("/")[0]
            missing += sorted({f"{parent}/{name}" for name in _dcp_files(folder / parent)} - set(paths))
        if path.endswith(".index.json"):
            shards = set(json.loads((folder / path).read_text()).get("weight_map", {}).values())
            parent = path.rpartition("/")[0]
            missing += sorted(shard for shard in shards if f"{parent}/{shard}".lstrip("/") not in paths)
    return missing


def _dcp_files(folder: Path) -> set[str]:
    """Return the names of the files that sharded state is spread over, from its index."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    return {place.relative_path for place in FileSystemReader(folder).read_metadata().storage_data.values()}


def best_step(state: dict[str, object]) -> int | None:
    """Return the step of the best checkpoint from a trainer state, or None where there is none."""
    path = state.get("best_model_checkpoint")
    match = re.search(r"checkpoint-(\d+)/*$", path) if isinstance(path, str) else None
    return int(match[1]) if match else None


def localise(folder: Path, output_dir: str) -> bytes | None:
    """Return new content for trainer_state.json in which the best checkpoint lies in ``output_dir``.

    The Trainer notes a path there that is wrong on another host, and compares it, as text, with those of the
    folders that it may rotate away: so ``output_dir`` is to be as its arguments have it, relative where it is
    relative. None: nothing to change.
    """
    state = json.loads((folder / STATE).read_text())
    step = best_step(state)
    if step is None:
        return None
    path = os.path.join(output_dir, f"checkpoint-{step}")
    if state["best_model_checkpoint"] == path:
        return None
    state["best_model_checkpoint"] = path
    return (json.dumps(state, indent=2, sort_keys=True) + "\n").encode()
