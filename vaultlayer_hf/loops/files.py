"""The files of a checkpoint that a loop of one's own writes: plain ones, which a person can load without us.

checkpoint-500/model.safetensors    the model, unwrapped (model.pt where it holds more than tensors); config.json
                                    beside it where it is transformers' own: from_pretrained(folder) works
checkpoint-500/optimizer.pt         optimizer.state_dict(), by torch.save; scheduler.pt and <name>.pt likewise
checkpoint-500/added_groups.pt      which parameters an optimizer was given on the way
checkpoint-500/left_gradients.pt    gradients of parameters that no optimizer trains, where there are any
checkpoint-500/loose_parameters.pt  tensors that an optimizer trains and no model holds
checkpoint-500/rng_state_<rank>.pth that rank's random number generators
checkpoint-500/data_<rank>.pt       its position in the data
checkpoint-500/vaultlayer.json      step, world size, versions, loss: written last
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.state.object_files import load_plain, peeled, read_state, write_state
from vaultlayer_hf.state.tensor_digests import plain_name

ABOUT = "vaultlayer.json"
OF_A_TRAINER = (
    "all that a Checkpointer saves (a Trainer has written it, so this is the vault of another run: give this one a "
    "vault of its own)"
)
"""What a checkpoint of a Trainer lacks for a loop, in words."""
_FORMAT = 1
_OF_RANK = re.compile(
    r"(?:rng_state_(\d+)\.pth|data_(\d+)\.pt"
    r"|random_states_(\d+)\.pkl|vaultlayer_digests_(\d+)\.json)"
)


def rank_files(rank: int) -> tuple[str, str]:
    """Return the names of a rank's own files: random state, position in the data."""
    return f"rng_state_{rank}.pth", f"data_{rank}.pt"


def missing_of_ranks(paths: Collection[str], world_size: int) -> list[str]:
    """Return what a folder of these files lacks of what ``world_size`` ranks write beside the objects' own files.

    ``vaultlayer.json`` comes last. What the script's own Accelerator has saved has no files of ranks of this kind.
    """
    ranks = [name for rank in range(world_size) for name in rank_files(rank)]
    if not any(name in paths for name in ranks):
        ranks = []
    return [name for name in (ABOUT, *ranks) if name not in paths]


def saved_by_trainer(paths: Collection[str]) -> bool:
    """Tell whether a checkpoint with these files is one of a Trainer, and no loop's."""
    return "trainer_state.json" in paths and ABOUT not in paths


def of_others(path: str, ranks: Collection[int], world_size: int) -> bool:
    """Tell whether a file is one that only ranks other than these load, out of as many as have written it."""
    match = _OF_RANK.fullmatch(path)
    rank = next((int(group) for group in match.groups() if group), None) if match else None
    return rank is not None and rank < world_size and rank not in ranks


def write_about(checkpoint: Path, /, **fields: Any) -> None:
    """Write what there is to know about a checkpoint."""
    text = json.dumps({"format_version": _FORMAT, **fields}, indent=2, sort_keys=True) + "\n"
    files.write_unflushed(checkpoint / ABOUT, text.encode())


def read_about(folder: Path) -> dict[str, Any]:
    """Return what ``write_about`` has written. Raises ResumeError."""
    try:
        found = json.loads((folder / ABOUT).read_text())
        if not isinstance(found, dict) or not isinstance(found.get("step"), int):
            raise ValueError("it names no step")
    except (OSError, ValueError) as error:
        raise ResumeError(f"{ABOUT} of {folder.name} can't be read: {error}") from error
    if found.get("format_version", _FORMAT) > _FORMAT:
        raise ResumeError(f"{folder.name} was written by a newer version of vaultlayer-hf: upgrade it")
    return found


def whole(model: Any) -> Any:
    """Return a model ``peeled``. Raises SettingsError for one whose parameters are spread over ranks."""
    found = peeled(model)
    spread = any(type(one).__name__ == "DTensor" or hasattr(one, "ds_shape") for one in found.parameters())
    if spread or type(found).__name__ == "FullyShardedDataParallel":
        raise SettingsError(
            f"the parameters of this {type(found).__name__} are spread over ranks: prepare it with accelerate and give "
            "Checkpointer(accelerator=…) instead of model="
        )
    return found


def write_model(folder: Path, model: torch.nn.Module) -> None:
    """Write a model's state: tensors as safetensors, anything else by ``torch.save``."""
    from safetensors.torch import save_file

    # By their plain names: the next start may have torch.compile on or off, and others load the file, too.
    state = {plain_name(name): value for name, value in model.state_dict().items()}
    tensors = _without_copies(state, getattr(model, "_tied_weights_keys", None) or ())
    if tensors is None:
        write_state(folder / "model.pt", state)
    else:
        dropped = {name: "tied" for name in state if name not in tensors}
        files.write_atomically(
            folder / "model.safetensors",
            lambda path: save_file(tensors, path, metadata={"format": "pt", **dropped}),
        )
    config: Any = getattr(model, "config", None)
    if _is_pretrained(model) and hasattr(config, "save_pretrained"):
        config.save_pretrained(folder)


def _is_pretrained(model: Any) -> bool:
    """Tell whether a model is one of transformers, and has its own names: without adapters that were put into it.

    With a configuration beside the weights of anything else from_pretrained would make a fresh model.
    """
    of_transformers = any(cls.__name__ == "PreTrainedModel" for cls in type(model).__mro__)
    return of_transformers and getattr(model, "_hf_peft_config_loaded", False) is not True


def _without_copies(state: dict[str, Any], tied: Collection[str]) -> dict[str, torch.Tensor] | None:
    """Return a state with each tensor once; None where it holds more than whole tensors.

    ``tied``: patterns of the names that transformers leaves out where a tensor has several.
    """
    kept: dict[tuple[int, int], str] = {}
    for name, value in sorted(state.items(), key=lambda item: any(re.search(one, item[0]) for one in tied)):
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            return None
        place = value.untyped_storage().data_ptr()
        if place and value.untyped_storage().nbytes() != value.numel() * value.element_size():
            return None  # a view of something larger, of which others may be views, too
        kept.setdefault((place, 0) if place else (0, len(kept) + 1), name)
    return {name: state[name].contiguous() for name in kept.values()}


def read_model(folder: Path, model: torch.nn.Module) -> None:
    """Load a model's state. Raises ResumeError."""
    from safetensors.torch import load_file

    try:
        if (folder / "model.safetensors").exists():
            load_plain(model, load_file(folder / "model.safetensors"))
        else:
            load_plain(model, read_state(folder / "model.pt"))
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise ResumeError(f"the model of {folder.name} can't be loaded: {error}") from error
