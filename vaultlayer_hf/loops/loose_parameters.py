"""Tensors that an optimizer trains and no model holds: a temperature, an image, a prompt. They go with a checkpoint.

No ``state_dict()`` has them, the optimizer's neither, so a resume would begin with fresh ones, in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.errors import ResumeError
from vaultlayer_hf.state.object_files import read_state, write_state

FILE = "loose_parameters.pt"
_NOT_SAVED = (
    "the checkpoint lacks the tensors that an optimizer trains and no model holds: earlier versions saved none "
    "that an Accelerator's optimizers train"
)


def loose_parameters(optimizers: Iterable[Any], models: Iterable[torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Return what these optimizers train beside the parameters of these models, by its place in them.

        loose_parameters([Adam([*model.parameters(), temperature])], [model])  # {"0/0/6": temperature}

    A tensor of several places comes once. Optimizers without ``param_groups`` are passed over.
    """
    held = {id(one) for model in models for one in model.parameters()}
    found: dict[str, torch.Tensor] = {}
    for number, optimizer in enumerate(optimizers):
        for place, group in enumerate(getattr(optimizer, "param_groups", ())):
            for index, one in enumerate(group["params"]):
                if isinstance(one, torch.Tensor) and id(one) not in held:
                    held.add(id(one))
                    found[f"{number}/{place}/{index}"] = one
    return found


def write_loose(folder: Path, loose: dict[str, torch.Tensor]) -> None:
    """Write them, where there are any. Raises OSError."""
    if loose:
        write_state(folder / FILE, {name: one.detach() for name, one in loose.items()})


def load_loose(folder: Path, now: dict[str, torch.Tensor], *, needed: bool) -> list[str]:
    """Copy the values that were saved into the tensors of now; return what speaks against the numbers behind that.

    ``needed``: whether each checkpoint of such a loop has the file. Raises ResumeError.
    """
    if not now:
        return []
    if not needed and not (folder / FILE).exists():
        return [_NOT_SAVED]
    put_loose(read_state(folder / FILE), now, folder.name)
    return []


def put_loose(saved: dict[str, torch.Tensor], now: dict[str, torch.Tensor], where: str) -> None:
    """Copy the values that were saved into the tensors of now. Raises ResumeError; ``where``: of what it says so."""
    if saved.keys() != now.keys() or any(saved[name].shape != one.shape for name, one in now.items()):
        raise ResumeError(
            f"{FILE} of {where} holds {len(saved)} tensors that the optimizer trains outside of the model, and this "
            f"start has {len(now)}, or others: make the optimizer as it was made then"
        )
    with torch.no_grad():
        for name, one in now.items():
            one.copy_(saved[name])
