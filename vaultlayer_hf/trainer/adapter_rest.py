"""What is trained beside an adapter, and its files don't hold: carried with each checkpoint, so that a resume has it.

PEFT writes what belongs to its adapters. Norms of the base model that a script trains as well, or the encoder of a
prompt (P-tuning keeps what it gives, not what it is), are in no file of the Trainer's checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.trainer.added import Added
from vaultlayer_hf.trainer.loaded import Trained, is_adapter


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


def adapter_rest(trained: Trained) -> list[Added]:
    """Return the trained parameters that an adapter's files lack as what is carried; nothing where there are none."""
    model = peeled(trained.model)
    if trained.sharded or not is_adapter(model):
        return []
    try:
        state_of: Any = sys.modules["peft"].get_peft_model_state_dict
        held = {
            tensor.untyped_storage().data_ptr()
            for name in model.peft_config
            for tensor in state_of(model, adapter_name=name, save_embedding_layers=False).values()
        }
    except Exception:  # an adapter that its own library can't write, which the save will show
        return []
    rest = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.untyped_storage().data_ptr() not in held
    }
    return [Added("beside_adapter", _Rest(rest))] if rest else []
