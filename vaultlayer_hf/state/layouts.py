"""What both seams know of a checkpoint folder: state that DeepSpeed or FSDP spreads over ranks, and indexes of files.

What the Trainer itself puts into a folder is known in trainer/layout.py.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection
from pathlib import Path

from vaultlayer_hf.state.loadable import holds_all_tensors, is_json

_ZERO_FOLDER = r"(?:global_step\d+|pytorch_model(?:_\d+)?)"  # by the Trainer, by accelerate
_ZERO_SHARD = re.compile(
    rf"{_ZERO_FOLDER}/(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_(optim|model)_states\.pt"
)
_ZERO_MODEL = re.compile(rf"{_ZERO_FOLDER}/.*model_states\.pt")
_FSDP_SHARD = re.compile(r"(pytorch_model_fsdp|pytorch_model_fsdp_\d+|optimizer_\d+)_rank(\d+)\.bin")
_DCP = re.compile(r"(pytorch_model_fsdp_\d+|optimizer_\d+)/")
_DCP_INDEX = ".metadata"


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


def owner_of_shard(path: str) -> int | None:
    """Return the one rank that loads a shard, by its name; None for any other file."""
    zero, fsdp = _ZERO_SHARD.fullmatch(path), _FSDP_SHARD.fullmatch(path)
    return int(zero[1]) if zero else int(fsdp[2]) if fsdp else None


def has_tensor_parallel_shards(paths: Collection[str]) -> bool:
    """Tell whether DeepSpeed's shards are split by tensor parallelism too: then a shard's number isn't a rank's."""
    return any(int(match[2]) > 0 for path in paths if (match := _ZERO_SHARD.fullmatch(path)))


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


def torn_files(folder: Path, paths: Collection[str]) -> list[str]:
    """Return those of a folder's files that have no end, or of which that can't be told; for a message.

    For a folder whose writer was killed before it said that all is written. What torch saves is a zip archive, whose
    directory comes last; sharded state gets its index when all of its files are written. Files of other kinds are
    written by the rank whose last file is there. Raises OSError.
    """
    torn = []
    for path in sorted(paths):
        parent, _, name = path.rpartition("/")
        if name.endswith((".pt", ".pth", ".bin", ".pkl")):
            whole = zipfile.is_zipfile(folder / path)
        elif name.endswith(".safetensors"):
            whole = holds_all_tensors(folder / path)
        elif name.endswith(".json"):
            whole = is_json(folder / path)
        else:
            whole = not name.endswith(".distcp") or f"{parent}/{_DCP_INDEX}" in paths
        if not whole:
            torn.append(f"the end of {path}")
    return torn


def _dcp_files(folder: Path) -> set[str]:
    """Return the names of the files that sharded state is spread over, from its index."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    return {place.relative_path for place in FileSystemReader(folder).read_metadata().storage_data.values()}
