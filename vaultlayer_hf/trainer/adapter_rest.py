"""What is trained beside an adapter, and its files don't hold: carried with each checkpoint, so that a resume has it.

PEFT writes what belongs to its adapters. Norms of the base model that a script trains as well, the encoder of a prompt
(P-tuning, and prefix tuning with a projection, keep what it gives, not what it is), the ranks that AdaLoRA leaves out
as it trains, and how it chooses them, are in no file of the Trainer's checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.trainer.adapter_load import BESIDE
from vaultlayer_hf.trainer.added import Added
from vaultlayer_hf.trainer.trained import Trained, is_adapter

_PROMPTS = "prompt_encoder."
"""Where PEFT keeps prompts, of which CPT's file has the sum of what is trained and what it began with."""
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What AdaLoRA's allocator of ranks keeps of each tensor."""


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


def _written(model: Any, name: str) -> dict[str, Any]:
    """Return what PEFT writes of one adapter."""
    state_of: Any = sys.modules["peft"].get_peft_model_state_dict
    found: dict[str, Any] = state_of(model, adapter_name=name, save_embedding_layers=False)
    return found


class _RankAllocation:
    """What AdaLoRA has found out of how much each rank matters, and which of them it has left out."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def _config(self) -> Any:
        return self._model.peft_config[self._model.base_model.trainable_adapter_name]

    def state_dict(self) -> dict[str, Any]:
        allocator = self._model.base_model.rankallocator
        pattern = self._config.rank_pattern
        return {"pattern": pattern, **{name: dict(vars(allocator)[name]) for name in _IMPORTANCE}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        allocator = self._model.base_model.rankallocator
        device = next(self._model.parameters()).device
        for name in _IMPORTANCE:
            setattr(allocator, name, {key: one.to(device) for key, one in state[name].items()})
        self._config.rank_pattern = state["pattern"] or self._config.rank_pattern


def adapter_rest(trained: Trained) -> list[Added]:
    """Return the trained parameters that the Trainer's own files lack as what is carried; nothing where none are."""
    model = peeled(trained.model)
    if trained.sharded:
        return []
    if not is_adapter(model):  # what its class leaves out of its files, and the script trains all the same
        names = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
        rest = {n: one for n, one in model.named_parameters() if one.requires_grad and n in names}
        return [Added("beside_model", _Rest(rest))] if rest else []
    own_shapes = {name for name, config in model.peft_config.items() if _is_adalora(config)}
    try:
        held = {
            tensor.untyped_storage().data_ptr()
            for name in model.peft_config
            if name not in own_shapes
            for tensor in _written(model, name).values()
        }
    except Exception:  # an adapter that its own library can't write, which the save will show
        return []
    rest = {
        name: parameter
        for name, parameter in model.named_parameters()
        if (parameter.requires_grad or name.startswith(_PROMPTS))
        and parameter.untyped_storage().data_ptr() not in held
    }
    found = [Added(BESIDE, _Rest(rest))] if rest else []
    if own_shapes and hasattr(model.base_model, "rankallocator"):
        found.append(Added("rank_allocation", _RankAllocation(model)))
    return found


def _is_adalora(config: Any) -> bool:
    """Tell whether it is an AdaLoRA, of which PEFT writes only those ranks that aren't left out by then."""
    return str(getattr(config.peft_type, "value", config.peft_type)) == "ADALORA"
