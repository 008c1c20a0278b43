"""What is trained beside an adapter, and its files don't hold: carried with each checkpoint, so that a resume has it.

PEFT writes what belongs to its adapters. Norms of the base model that a script trains as well, or the encoder of a
prompt (P-tuning keeps what it gives, not what it is), are in no file of the Trainer's checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.trainer.added import Added
from vaultlayer_hf.trainer.loaded import Trained, is_adapter, of_adapter


class _Rest:
    """Parameters of a model, by name, as an object with a state."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters

    def state_dict(self) -> dict[str, Any]:
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[name])


def warn_of_unfit(events: Events, rank: int, trained: Trained) -> None:
    """Say, once, that an adapter's own library writes it in shapes that it can't load again. Never raises.

    AdaLoRA leaves ranks out as it trains, and prefix tuning with a projection writes what the projection gives.
    """
    model = peeled(trained.model)
    if rank or trained.sharded or not is_adapter(model):
        return
    try:
        every = dict(model.named_parameters())
        found = []
        for name in model.peft_config:
            own = of_adapter(every, name)
            own["prompt_embeddings"] = own.get("prompt_encoder.embedding.weight")
            for path, tensor in _written(model, name).items():
                if own.get(path) is not None and own[path].shape != tensor.shape:
                    found.append(path)
    except Exception:  # an adapter that its own library can't write, which the save will show
        return
    if found:
        events.warn_once(
            "unfit",
            EventKind.TROUBLE,
            f"PEFT writes {found[0]} in another shape than the model has ({len(found)} such tensor(s)), and can't load "
            "it again: nothing can go on from such a checkpoint, though its weights are kept. AdaLoRA does so once it "
            "leaves ranks out, prefix tuning with prefix_projection=True: take another adapter for a run that may die",
        )


def _written(model: Any, name: str) -> dict[str, Any]:
    """Return what PEFT writes of one adapter."""
    state_of: Any = sys.modules["peft"].get_peft_model_state_dict
    found: dict[str, Any] = state_of(model, adapter_name=name, save_embedding_layers=False)
    return found


def adapter_rest(trained: Trained) -> list[Added]:
    """Return the trained parameters that the Trainer's own files lack as what is carried; nothing where none are."""
    model = peeled(trained.model)
    if trained.sharded:
        return []
    if not is_adapter(model):  # what its class leaves out of its files, and the script trains all the same
        names = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
        rest = {n: one for n, one in model.named_parameters() if one.requires_grad and n in names}
        return [Added("beside_model", _Rest(rest))] if rest else []
    try:
        held = {
            tensor.untyped_storage().data_ptr()
            for name in model.peft_config
            for tensor in _written(model, name).values()
        }
    except Exception:  # an adapter that its own library can't write, which the save will show
        return []
    rest = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.untyped_storage().data_ptr() not in held
    }
    return [Added("beside_adapter", _Rest(rest))] if rest else []
